package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckAddress(t *testing.T) {
	for _, test := range []struct{ kind, value, byDefault, says string }{
		{listenAddress, ":5000", ":5000", ""},
		{listenAddress, "127.0.0.1:0", ":5000", ""},
		{listenAddress, "[::1]:25001", ":5000", ""},
		{listenAddress, "[fe80::1%eth0]:65535", ":5000", ""},
		{listenAddress, "localhost:80", ":5000", ""},
		{listenAddress, "25001", ":5000", `"25001" is not HOST:PORT: write :25001`},
		{listenAddress, "::1:25001", ":5000", "write [::1]:25001"},
		{listenAddress, "fe80::1:25001", ":5000", "write [fe80::1]:25001"},
		{listenAddress, "::1", ":5000", "write [::1]:5000"},
		{listenAddress, "[::1]", ":5000", "write [::1]:5000"},
		{listenAddress, "::", ":5000", "write [::]:5000"},
		{listenAddress, "localhost", ":5000", "write localhost:5000"},
		{listenAddress, "0.0.0.0", ":5000", "write 0.0.0.0:5000"},
		{listenAddress, "http://127.0.0.1:25001/webhook/fastio", ":5000", "write 127.0.0.1:25001"},
		{listenAddress, "http://host", ":5000", "write host:5000"},
		{listenAddress, "a:b:c", ":5000", "write 127.0.0.1:5000"},
		{listenAddress, "127.0.0.1:", ":5000", `port "" is not a number from 0 to 65535: write 127.0.0.1:5000`},
		{listenAddress, ":http", ":5000", `port "http" is not a number`},
		{listenAddress, ":65536", ":5000", "write :5000"},
		{listenAddress, ":-1", ":5000", "write :5000"},
		{dialAddress, "kafka-1:9092", "127.0.0.1:9092", ""},
		{dialAddress, "kafka-1", "127.0.0.1:9092", "write kafka-1:9092"},
		{dialAddress, "kafka-1", "", "write kafka-1:9092"},
		{dialAddress, "9093", "", "write 127.0.0.1:9093"},
		{dialAddress, " kafka-2:9092", "", `" kafka-2:9092" is not HOST:PORT: write kafka-2:9092`},
		{dialAddress, "kafka 2:9092", "", "is not HOST:PORT: write 127.0.0.1:9092"},
		{dialAddress, "", "", "is not HOST:PORT"},
		{dialAddress, "kafka-1:0", "", "not a number from 1 to 65535"},
		{dialAddress, "PLAINTEXT://kafka-1:9093", "", "write kafka-1:9093"},
		{urlAddress, "http://127.0.0.1:8080", "", ""},
		{urlAddress, "https://host/prefix/", "", ""},
		{urlAddress, "127.0.0.1:8080", "", "write http://127.0.0.1:8080"},
		{urlAddress, "localhost:8080", "", "write http://localhost:8080"},
		{urlAddress, ":8080", "", "write http://127.0.0.1:8080"},
		{urlAddress, "ftp://host", "", "begins with http://"},
		{urlAddress, "http://", "", "begins with http://"},
		{urlAddress, "host", "", "begins with http://"},
	} {
		err := checkAddress(test.kind, test.value, test.byDefault)
		if (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s %q: %v, want %q", test.kind, test.value, err, test.says)
		}
		if err == nil || test.kind == urlAddress {
			continue
		}
		if _, advice, _ := strings.Cut(err.Error(), ": write "); checkAddress(test.kind, advice,
			test.byDefault) != nil {
			t.Errorf("%s %q: what is advised is refused: %q", test.kind, test.value, advice)
		}
	}
}

// Every address of every command, wherever it is set, is refused before anything is made.
func TestAddressesAreUsageErrors(t *testing.T) {
	for _, test := range []struct {
		command []string
		flags   []string
	}{
		{[]string{"dev"}, []string{"ingress-addr", "api-addr", "admin-addr", "kafka-addr", "brokers"}},
		{[]string{"ingest"}, []string{"ingress-addr", "admin-addr", "brokers"}},
		{[]string{"process"}, []string{"admin-addr", "brokers"}},
		{[]string{"serve"}, []string{"api-addr", "admin-addr", "brokers"}},
		{[]string{"topics", "plan"}, []string{"brokers"}},
		{[]string{"topics", "apply"}, []string{"brokers"}},
		{[]string{"tail", "events"}, []string{"brokers"}},
		{[]string{"why", "w", "f"}, []string{"brokers"}},
		{[]string{"dlq", "list"}, []string{"brokers"}},
		{[]string{"replay"}, []string{"brokers"}},
		{[]string{"diff", "a", "b"}, []string{"brokers"}},
		{[]string{"doctor"}, []string{"brokers", "ingress-url", "ready-url"}},
		{[]string{"get", "w", "f"}, []string{"api-url"}},
		{[]string{"ls", "w"}, []string{"api-url"}},
		{[]string{"send"}, []string{"url", "api-url"}},
	} {
		for _, flag := range test.flags {
			data := filepath.Join(t.TempDir(), "data")
			args := append(append([]string{}, test.command...), "--"+flag, "x::25001")
			if command := test.command[0]; command == "dev" || command == "process" || command == "serve" {
				args = append(args, "--data", data)
			}
			_, errs, code := tidemark(t, args...)
			if code != exitUsage || !strings.Contains(errs, "--"+flag) || !strings.Contains(errs, "x::25001") {
				t.Errorf("%q: exit %d\n%s", args, code, errs)
			}
			if _, err := os.Stat(data); err == nil {
				t.Errorf("%q created its data directory", args)
			}
		}
	}
	t.Setenv("TIDEMARK_API_ADDR", "25002")
	if _, errs, code := tidemark(t, "serve"); code != exitUsage || !strings.Contains(errs, "write :25002") {
		t.Errorf("by a variable: exit %d\n%s", code, errs)
	}
	file := writeFile(t, "settings.yaml", "brokers: [\"kafka-1:9092\", kafka-2]\n")
	if _, errs, code := tidemark(t, "ingest", "--config", file); code != exitUsage ||
		!strings.Contains(errs, "write kafka-2:9092") {
		t.Errorf("by a file: exit %d\n%s", code, errs)
	}
}

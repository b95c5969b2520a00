package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tidemark/e2e/provider"
)

// refuseDLQ takes the right to write dead letters from the processors, sends poison, and gives it back.
func refuseDLQ(ctx context.Context, r *run) (figures, error) {
	deleted, err := r.admin.DeleteACLs(ctx, r.dlqACL)
	for _, d := range deleted {
		err = errors.Join(err, d.Err)
	}
	if err != nil {
		return nil, err
	}
	restore := func() error {
		made, err := r.admin.CreateACLs(ctx, r.dlqACL)
		for _, m := range made {
			err = errors.Join(err, m.Err)
		}
		return err
	}
	poison := 0
	for i := range 12 {
		if err := r.foreign.write(1 + i%4); err != nil {
			return nil, errors.Join(err, restore())
		}
		poison++
	}
	if err := errors.Join(sleep(ctx, r.between(6*time.Second, 12*time.Second)), restore()); err != nil {
		return nil, err
	}
	back := time.Now()
	for _, p := range r.process {
		if !p.alive() {
			return nil, fmt.Errorf("%s ended because it may not write dead letters\n%s", p.name, p.tail())
		}
		if _, err := awaitReady(ctx, p, 60*time.Second); err != nil {
			return nil, err
		}
	}
	return figures{"poison": float64(poison), "recovery s": round(time.Since(back))}, nil
}

// wrong starts roles with what cannot work, and wants each to end at once and to name the cause.
func wrong(ctx context.Context, r *run) (figures, error) {
	file := func(name string) string { return filepath.Join(r.certs, name) }
	secure, _ := r.security("process")
	replace := func(flag, value string) []string {
		all := slices.Clone(secure)
		all[slices.Index(all, flag)+1] = value
		return all
	}
	const password = "TIDEMARK_KAFKA_SASL_PASSWORD=tidemark-process-secret"
	cases := []struct {
		name string
		args []string
		env  string
		says string
	}{
		{"wrong password", secure, password + "x", "authentication"},
		{"another authority", replace("--kafka-ca-file", file("otherca.pem")), password, "certificate"},
		{"stranger's certificate", r.certificate("stranger"), "", "certificate"},
		{"missing ACL", replace("--kafka-sasl-user", "tidemark-serve"), "TIDEMARK_KAFKA_SASL_PASSWORD=tidemark-serve-secret", "grant"},
		{"wrong partitions", append(slices.Clone(secure), "--partitions", "7"), password, "partitions"},
		{"wrong min.insync", append(slices.Clone(secure), "--min-insync", "3"), password, "min.insync.replicas"},
	}
	out := figures{}
	for _, c := range cases {
		limit, cancel := context.WithTimeout(ctx, 60*time.Second)
		args := append(append([]string{"process"}, r.sizing()...), c.args...)
		cmd := exec.CommandContext(limit, r.binary, append(args, "--data", filepath.Join(r.dir, "data-wrong"), "--admin-addr", freeAddr(), "--log-format", "text")...)
		cmd.Env = []string{c.env}
		begin := time.Now()
		said, err := cmd.CombinedOutput()
		cancel()
		exit := new(exec.ExitError)
		switch {
		case !errors.As(err, &exit) || exit.ExitCode() != 1:
			return nil, fmt.Errorf("%s: ends with %w, wanted exit code 1\n%s", c.name, err, said)
		case !strings.Contains(strings.ToLower(string(said)), c.says):
			return nil, fmt.Errorf("%s: does not say %q: %s", c.name, c.says, said)
		}
		out[c.name+" s"] = round(time.Since(begin))
	}
	return out, nil
}

// hostile lets others' webhooks compete with slow, huge, deep and dishonest requests.
func hostile(ctx context.Context, r *run) (figures, error) {
	all := attacks() // before anything is measured: making them costs more than sending them
	calm, end := r.traffic.watch()
	defer end()
	if err := sleep(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	end()
	target := strings.TrimPrefix(r.ingress[0].url, "http://")
	w, stop := r.traffic.watch()
	defer stop()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close() // ours
		}
	}()
	for range 400 { // a slow loris: headers that never end
		c, err := net.DialTimeout("tcp", target, time.Second)
		if err != nil {
			break // refused: it defends itself
		}
		_, _ = fmt.Fprintf(c, "POST /webhook/fastio HTTP/1.1\r\nHost: x\r\nX-A: ") // it may hang up at any time
		open = append(open, c)
	}
	sent, refused := 0, map[int]int{}
	for begin := time.Now(); time.Since(begin) < r.between(5*time.Second, 10*time.Second); {
		for _, attack := range all {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.ingress[0].url+"/webhook/fastio", bytes.NewReader(attack.body))
			if err != nil {
				return nil, err
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Fastio-Signature", provider.Sign(secret, attack.body))
			if attack.encoding != "" {
				req.Header.Set("Content-Encoding", attack.encoding)
			}
			sent++
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				refused[0]++ // hung up on
				continue
			}
			_ = resp.Body.Close() // only the status is asked for
			refused[resp.StatusCode]++
			if resp.StatusCode < 400 || resp.StatusCode >= 500 {
				return nil, fmt.Errorf("%s is answered %d", attack.name, resp.StatusCode)
			}
		}
	}
	stop()
	return figures{"attacks": float64(sent), "200 p99 ms": p99(w.ok), "200 p99 ms before": p99(calm.ok), "5xx": float64(w.refused), "RSS MB": r.ingress[0].rss()}, nil
}

type attack struct {
	name, encoding string
	body           []byte
}

func attacks() []attack {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 32<<20)) // to memory: cannot fail
	_ = z.Close()
	head := `{"event":"workspace_storage_file_added","workspace_id":"w","event_id":"attack","x":`
	return []attack{
		{"deep JSON", "", []byte(head + strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000) + "}")},
		{"a gzip bomb", "gzip", bomb.Bytes()},
		{"a huge body", "", append([]byte(head+`"`), bytes.Repeat([]byte("a"), 16<<20)...)},
		{"a name twice", "", []byte(head + `1,"x":2}`)},
		{"no text", "", []byte("\xff\xfe")},
	}
}

package main

import (
	"io"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parse reads a command line into the grammar without running a command.
func parse(t *testing.T, args ...string) *cli {
	t.Helper()
	grammar := &cli{}
	parser, err := newParser(grammar, console{out: io.Discard, err: io.Discard}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatalf("parse %q: %v", args, err)
	}
	return grammar
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	file := writeFile(t, "settings.yaml", `
topic-prefix: from-file
partitions: 11
brokers: [file-1:9092, file-2:9092]
kafka-tls: true
log-level: error
`)
	type values struct {
		Prefix     string
		Partitions int
		Brokers    []string
		TLS        bool
		Level      slog.Level
	}
	of := func(c *cli) values {
		p := c.Process
		return values{p.TopicPrefix, p.Partitions, p.Brokers, p.KafkaTLS, p.LogLevel}
	}
	check := func(step string, want values, args ...string) {
		t.Helper()
		if diff := cmp.Diff(want, of(parse(t, append([]string{"process"}, args...)...))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	byDefault := values{"fastio", 32, []string{"127.0.0.1:9092"}, false, slog.LevelInfo}
	check("defaults", byDefault)
	check("file", values{"from-file", 11, []string{"file-1:9092", "file-2:9092"}, true, slog.LevelError}, "--config",
		file)

	t.Setenv("TIDEMARK_TOPIC_PREFIX", "from-env")
	t.Setenv("TIDEMARK_PARTITIONS", "22")
	t.Setenv("TIDEMARK_BROKERS", "env-1:9092,env-2:9092")
	t.Setenv("TIDEMARK_KAFKA_TLS", "false")
	t.Setenv("TIDEMARK_LOG_LEVEL", "warn")
	fromEnv := values{"from-env", 22, []string{"env-1:9092", "env-2:9092"}, false, slog.LevelWarn}
	check("environment over defaults", fromEnv)
	check("environment over file", fromEnv, "--config", file)
	t.Setenv("TIDEMARK_CONFIG", file)
	check("environment over a file that it names", fromEnv)

	check("flags over all", values{"from-flag", 33, []string{"flag:9092"}, true, slog.LevelDebug},
		"--topic-prefix", "from-flag", "--partitions=33", "--brokers", "flag:9092", "--kafka-tls",
		"--log-level", "debug")
}

func TestDevSizesTopicsForOneBroker(t *testing.T) {
	grammar := parse(t, "dev")
	streams, err := grammar.Dev.streams()
	if err != nil {
		t.Fatal(err)
	}
	if e := streams.Events; e.Partitions != 32 || e.Replication != 1 || e.MinISR != 1 {
		t.Errorf("dev: %+v, want 32 partitions on one broker", e)
	}
	production, err := parse(t, "process").Process.streams()
	if err != nil {
		t.Fatal(err)
	}
	if e := production.Events; e.Partitions != 32 || e.Replication != 3 || e.MinISR != 2 {
		t.Errorf("process: %+v, want 32 partitions that survive the loss of a broker", e)
	}
}

func TestKnobsOfOneInvocationIgnoreTheEnvironment(t *testing.T) {
	t.Setenv("TIDEMARK_WORKSPACE", "other")
	t.Setenv("TIDEMARK_OUTPUT", "yaml")
	send := parse(t, "send").Send
	if send.Workspace != "123" || send.Output != asTable {
		t.Errorf("send takes workspace %q and output %q from the environment", send.Workspace, send.Output)
	}
}

func TestAnEmptyVariableIsAnAbsentOne(t *testing.T) {
	t.Setenv("TIDEMARK_PARTITIONS", "")
	t.Setenv("TIDEMARK_TOPIC_PREFIX", "")
	if out := succeed(t, "topics", "acls", "-o", "commands"); out == "" {
		t.Error("no ACLs")
	}
	if got := parse(t, "process").Process; got.Partitions != 32 || got.TopicPrefix != "fastio" {
		t.Errorf("partitions %d, prefix %q: want the defaults", got.Partitions, got.TopicPrefix)
	}
}

func TestPasswordComesFromEnvironmentOrFile(t *testing.T) {
	file := writeFile(t, "password", "s3cret \n") // the space is the password's, the line's end is the editor's
	flags := securityFlags{KafkaSASLMechanism: "PLAIN", KafkaSASLUser: "me", KafkaSASLPasswordFile: file}
	config, err := flags.config([]string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := config.SASL.Password; got != "s3cret " {
		t.Errorf("password from the file: %q", got)
	}
	t.Setenv(passwordVariable, "from env")
	if _, err := flags.config([]string{"127.0.0.1:1"}); err == nil {
		t.Error("a password given in two ways is accepted")
	}
	flags.KafkaSASLPasswordFile = ""
	if config, err = flags.config([]string{"127.0.0.1:1"}); err != nil || config.SASL.Password != "from env" {
		t.Errorf("password from the environment: %q, %v", config.SASL.Password, err)
	}
}

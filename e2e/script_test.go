package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidemark/devbroker"
	"tidemark/e2e/rig"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestScripts runs the real binary as a person does. Beside testscript's own, the scripts have the commands
//
//	exits N PROGRAM ARG..   run the program and want this exit code
//	addr NAME..             set variables to loopback addresses that are free
//	broker NAME             start a broker and set a variable to its address
//	await FILE TEXT         wait until the file holds the text
//	retry N PROGRAM ARG..   run the program until it exits so; its last output is stdout
//	produce TOPIC PARTITION KEY VALUE    put a record into a topic at $TIDEMARK_BROKERS, wherever it belongs
func TestScripts(t *testing.T) {
	t.Parallel()
	binary := build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "addr": addrs, "broker": startBroker, "await": await, "retry": retry,
			"produce": produceRecord,
		},
	})
}

func usage(ts *testscript.TestScript, neg, ok bool, form string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", form)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "exits N PROGRAM ARG..")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code, err := exitCode(ts, args[1:])
	ts.Check(err)
	if code != want {
		ts.Fatalf("%s exits %d, want %d", strings.Join(args[1:], " "), code, want)
	}
}

func addrs(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 0, "addr NAME..")
	for _, name := range args {
		ts.Setenv(name, rig.FreeAddr())
	}
}

func startBroker(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "broker NAME")
	b, err := devbroker.Start(context.Background(), devbroker.Config{})
	ts.Check(err)
	ts.Defer(func() {
		if err := b.Close(); err != nil {
			ts.Logf("close the broker: %v", err)
		}
	})
	ts.Setenv(args[0], b.Addr())
}

const patience = 60 * time.Second

func await(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "await FILE TEXT")
	var data []byte
	_, err := rig.Until(context.Background(), patience, func() (bool, error) {
		data, _ = os.ReadFile(ts.MkAbs(args[0])) // it may not be there yet
		return strings.Contains(string(data), args[1]), nil
	})
	if err != nil {
		ts.Fatalf("%s does not have %q: %v\n%s", args[0], args[1], err, data)
	}
}

func retry(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "retry N PROGRAM ARG..")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	_, err = rig.Until(context.Background(), patience, func() (bool, error) {
		code, err = exitCode(ts, args[1:])
		return code == want && err == nil, nil
	})
	if err != nil {
		ts.Fatalf("%s exits %d, want %d: %v", strings.Join(args[1:], " "), code, want, err)
	}
}

// exitCode runs a program; an error says that it did not exit.
func exitCode(ts *testscript.TestScript, args []string) (int, error) {
	err := ts.Exec(args[0], args[1:]...)
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func produceRecord(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 4, "produce TOPIC PARTITION KEY VALUE")
	partition, err := strconv.ParseInt(args[1], 10, 32)
	ts.Check(err)
	client, err := rig.Client([]string{ts.Getenv("TIDEMARK_BROKERS")})
	ts.Check(err)
	defer client.Close()
	record := &kgo.Record{Topic: args[0], Partition: int32(partition), Key: []byte(args[2]), Value: []byte(args[3])}
	ts.Check(client.ProduceSync(context.Background(), record).FirstErr())
}

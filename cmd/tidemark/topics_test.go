package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"tidemark/devbroker"
)

func TestTopicsPlanApplyAndMismatch(t *testing.T) {
	brokers := strings.Join(devbroker.ForTest(t), ",")
	prefix := fmt.Sprintf("cmd%08x", rand.Uint32())
	where := func(args ...string) []string {
		return append(append([]string{"topics"}, args...), "--brokers", brokers, "--topic-prefix", prefix,
			"--replication", "1", "--min-insync", "1")
	}
	type change struct{ Action, Topic, Setting, Found, Wanted string }
	changes := func(args ...string) (list []change) {
		t.Helper()
		if err := json.Unmarshal([]byte(succeed(t, where(args...)...)), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}

	// A role refuses to start while they are missing, and says what to do.
	role := []string{
		"process", "--brokers", brokers, "--topic-prefix", prefix, "--replication", "1", "--min-insync", "1",
		"--partitions", "4", "--admin-addr", "127.0.0.1:0", "--data", t.TempDir(),
	}
	if _, errs, code := tidemark(t, role...); code != exitFailed ||
		!strings.Contains(errs, prefix+"-events does not exist: create it with `tidemark topics apply`") {
		t.Errorf("process without topics: exit %d, %s", code, errs)
	}

	planned := changes("plan", "--partitions", "4", "-o", "json")
	if len(planned) != 9 || planned[0].Action != "create" || planned[0].Topic != prefix+"-events" {
		t.Errorf("plan: %+v, want nine topics to create, events first", planned)
	}
	if created := changes("apply", "--partitions", "4", "-o", "json"); len(created) != 9 {
		t.Errorf("apply: %+v, want nine topics created", created)
	}
	if out := succeed(t, where("plan", "--partitions", "4")...); !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("plan after apply: %s", out)
	}
	if again := changes("apply", "--partitions", "4", "-o", "json"); len(again) != 0 {
		t.Errorf("apply again: %+v", again)
	}

	// Another count is shown, and nothing is altered.
	planned = changes("plan", "--partitions", "5", "-o", "json")
	if len(planned) != 9 || planned[0] != (change{"mend", prefix + "-events", "partitions", "4", "5"}) {
		t.Errorf("plan of a mismatch: %+v", planned)
	}
	if _, errs, code := tidemark(t, where("apply", "--partitions", "5")...); code != exitFailed ||
		!strings.Contains(errs, "partitions is 4, want 5") {
		t.Errorf("apply of a mismatch: exit %d, %s", code, errs)
	}
	role[len(role)-5] = "5"
	if _, errs, code := tidemark(t, role...); code != exitFailed ||
		!strings.Contains(errs, "topic "+prefix+"-events: partitions is 4, want 5") {
		t.Errorf("process on a mismatch: exit %d, %s", code, errs)
	}
}

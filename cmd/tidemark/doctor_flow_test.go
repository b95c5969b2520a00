package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tidemark/kafka"
)

// A lag is growing when it matters and more came than was read, whatever share of it that is.
func TestGrowingLag(t *testing.T) {
	at := func(end, commit int64) kafka.GroupLag {
		return kafka.GroupLag{Group: "g", State: "Stable", Members: 1, Partitions: []kafka.PartitionLag{{End: end, Commit: commit}}}
	}
	for _, test := range []struct {
		name          string
		before, after kafka.GroupLag
		status, says  string
	}{
		{"falls behind by a fifth", at(1_000_000, 990_000), at(1_050_000, 1_030_500), warning, "lag 19500 and growing"},
		{"between two commits", at(10_000, 9_750), at(15_000, 14_749), fine, "lag 251, little"},
		{"catches up", at(1_000_000, 900_000), at(1_050_000, 980_000), fine, "lag 70000, little or shrinking"},
		{"stands", at(1000, 900), at(1000, 900), failing, "did not move"},
		{"has read all", at(1000, 900), at(1000, 1000), fine, "lag 0"},
	} {
		if f := moving(test.before, test.after, 5*time.Second, "events wait"); f.Status != test.status || !strings.Contains(f.What, test.says) {
			t.Errorf("%s: %v, %s", test.name, f.Status, f.What)
		}
	}
}

// What to do follows from what an error is, however it is wrapped.
func TestFailedSaysWhatToDo(t *testing.T) {
	denied := &kafka.Denied{Resource: "topic t", Action: "read it", Operation: "Read"}
	for _, test := range []struct {
		err        error
		says, mend string
	}{
		{fmt.Errorf("topic t %w: create it", kafka.ErrNoTopic), "topic t does not exist: create it", "run `tidemark topics apply`"},
		{fmt.Errorf("look: %w", errors.Join(errors.New("a"), denied)), "topic t: this user may not read it: grant the ACL operation Read", "grant it: `tidemark topics acls`"},
		{&kafka.Mismatch{Change: kafka.Change{Topic: "t", Setting: "partitions", Found: "3", Wanted: "4"}}, "topic t: partitions is 3, want 4", "every topic must have the same number"},
		{&kafka.Mismatch{Change: kafka.Change{Topic: "t", Setting: "cleanup.policy", Found: "delete", Wanted: "compact"}}, "want compact", "mend the setting"},
		{errors.New("the log does not exist"), "does not exist", "look at the brokers above"},
	} {
		f := new(clusterDoctor).failed(test.err)
		if f.Status != failing || !strings.Contains(f.What, test.says) || !strings.HasPrefix(f.Mend, test.mend) {
			t.Errorf("%v: %+v", test.err, f)
		}
	}
}

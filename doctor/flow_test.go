package doctor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tidemark/kafka"
	"tidemark/topology"
)

// A lag is growing when it matters and more came than was read, whatever share of it that is.
func TestGrowingLag(t *testing.T) {
	at := func(end, commit int64) kafka.GroupLag {
		return kafka.GroupLag{
			Group: "g", State: "Stable", Members: 1,
			Partitions: []kafka.PartitionLag{{End: end, Commit: commit}},
		}
	}
	for _, test := range []struct {
		name          string
		before, after kafka.GroupLag
		status, says  string
	}{
		{"falls behind by a fifth", at(1_000_000, 990_000), at(1_050_000, 1_030_500), Warning, "lag 19500 and growing"},
		{"between two commits", at(10_000, 9_750), at(15_000, 14_749), OK, "lag 251, small"},
		{"catches up", at(1_000_000, 900_000), at(1_050_000, 980_000), OK, "lag 70000, small or shrinking"},
		{"is stuck", at(1000, 900), at(1000, 900), Failure, "did not move"},
		{"has read all", at(1000, 900), at(1000, 1000), OK, "lag 0"},
	} {
		if f := progress(test.before, test.after, 5*time.Second, topology.Role{},
			topology.GroupUse{}); f.Status != test.status || !strings.Contains(f.What, test.says) {
			t.Errorf("%s: %v, %s", test.name, f.Status, f.What)
		}
	}
}

// What to do follows from what an error is, however it is wrapped.
func TestFailedSaysWhatToDo(t *testing.T) {
	denied := &kafka.Denied{Resource: "topic t", Action: "read it", Operation: "Read"}
	for _, test := range []struct {
		err       error
		says, fix string
	}{
		{fmt.Errorf("topic t %w: create it", kafka.ErrNoTopic), "topic t does not exist: create it", "run `tidemark topics apply`"},
		{fmt.Errorf("look: %w", errors.Join(errors.New("a"), denied)), "topic t: this user may not read it: grant the ACL operation Read", "grant it: `tidemark topics acls`"},
		{&kafka.Mismatch{Change: kafka.Change{Topic: "t", Setting: "partitions", Found: "3", Wanted: "4"}}, "topic t: partitions is 3, want 4", "every topic must have the same number"},
		{&kafka.Mismatch{Change: kafka.Change{Topic: "t", Setting: "cleanup.policy", Found: "delete", Wanted: "compact"}}, "want compact", "correct the setting"},
		{errors.New("the log does not exist"), "does not exist", "fix what the check of the brokers reports"},
	} {
		f := new(cluster).failed(test.err)
		if f.Status != Failure || !strings.Contains(f.What, test.says) || !strings.HasPrefix(f.Fix, test.fix) {
			t.Errorf("%v: %+v", test.err, f)
		}
	}
}

// Retention deleted records that the group had not read.
func TestLostEvents(t *testing.T) {
	found := outOfRange(
		kafka.GroupLag{
			Topic: "events",
			Partitions: []kafka.PartitionLag{
				{Partition: 0, Start: 10, Commit: 10, End: 20},
				{Partition: 1, Start: 10, Commit: 4, End: 20},
				{Partition: 2, Start: 5, Commit: -1, End: 5},
			},
		}, topology.Role{})
	if len(found) != 1 || found[0].Status != Failure ||
		!strings.Contains(found[0].What,
			"events/1 begins at offset 10, and the group had committed 4 only: 6 records were deleted unread") {
		t.Errorf("%+v", found)
	}
}

// All replicas are in sync, and writes need more than there are.
func TestRefusingWritesWithAllReplicasInSync(t *testing.T) {
	weak := kafka.UnderReplicated{Topic: "t", Partition: 3, Replicas: 1, InSync: 1, BelowMinISR: true}
	if got := weak.String(); got != "t/3 has 1 of 1 replicas in sync" {
		t.Error(got)
	}
	if got := new(cluster).missingBrokers([]kafka.UnderReplicated{weak}); got != "another broker" {
		t.Error(got)
	}
}

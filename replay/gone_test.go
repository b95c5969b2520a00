package replay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/kafka"
	"tidemark/replay"
	"tidemark/topology"
)

// A table that was deleted while its group was not is not continued.
func TestRebuildNoticesThatItsTableIsGone(t *testing.T) {
	b := newBench(t)
	b.put(t, b.record("added", "w", "e", "f", 1))
	dir := t.TempDir()
	target, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(b.client)
	gone := func() {
		t.Helper()
		if _, err := admin.DeleteTopics(t.Context(), target.Files.Name); err != nil {
			t.Fatal(err)
		}
		// Kafka does it a moment later
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if plan, err := kafka.PlanTopics(t.Context(), b.conf, []topology.Topic{target.Files}); err == nil &&
				len(plan) == 1 && plan[0].Create {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the topic stays")
			}
		}
	}
	gone()
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil); err == nil ||
		!strings.Contains(err.Error(), "delete the group too") {
		t.Errorf("deleted: %v", err)
	}
	if _, err := kafka.ApplyTopics(t.Context(), b.conf, []topology.Topic{target.Files}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil); err == nil ||
		!strings.Contains(err.Error(), "delete the group too") {
		t.Errorf("recreated: %v", err)
	}
	gone()
	if _, err := admin.DeleteGroups(t.Context(), target.FilesGroup); err != nil {
		t.Fatal(err)
	}
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil); err != nil {
		t.Fatal(err)
	}
	if rows := b.records(t, target.Files); len(rows) != 1 {
		t.Errorf("%d rows after the group was deleted too", len(rows))
	}
	// The state file of the first table is ignored: another selection is allowed, and not widened.
	gone()
	if _, err := admin.DeleteGroups(t.Context(), target.FilesGroup); err != nil {
		t.Fatal(err)
	}
	later := replay.Selection{From: time.Now().Add(time.Hour).Format(time.RFC3339)}
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", later, nil); err != nil {
		t.Fatal(err)
	}
	if rows := b.records(t, target.Files); len(rows) != 0 {
		t.Errorf("%d rows of a selection that has none", len(rows))
	}
}

// A partition without selected events continues from the beginning of the selection too.
func TestAnEmptyPartitionContinuesFromItsFirstStart(t *testing.T) {
	b := newBench(t)
	b.put(t, b.record("added", "w", "e", "f", 1))
	dir, sel := t.TempDir(), replay.Selection{From: "1h"}
	if _, err := b.rebuild(t.Context(), t, dir, "lately", sel, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 8 { // in all partitions
		b.put(t, b.record("added", fmt.Sprint("w", i), fmt.Sprint("e", i), "f", 1))
	}
	target, err := b.rebuild(t.Context(), t, dir, "lately", sel,
		func(r *replay.Rebuild) { r.Now = func() time.Time { return time.Now().Add(3 * time.Hour) } })
	if err != nil {
		t.Fatal(err)
	}
	if rows := b.records(t, target.Files); len(rows) != 9 {
		t.Errorf("%d rows, want 9", len(rows))
	}
}

// A killed run is a member of its group until its session times out: the next run waits for that.
func TestARebuildWaitsForTheKilledOne(t *testing.T) {
	b := newBench(t)
	for i := range 5 {
		b.put(t, b.record("added", "w", fmt.Sprint("e", i), fmt.Sprint("f", i), 1))
	}
	home := kafka.Partition("w", partitions)
	dir, sel := t.TempDir(), replay.Selection{To: fmt.Sprintf("%d:3", home)}
	target, err := b.rebuild(t.Context(), t, dir, "half", sel, nil)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := kgo.NewClient(kgo.SeedBrokers(b.conf.Brokers...), kgo.ConsumerGroup(target.FilesGroup),
		kgo.ConsumeTopics(b.s.Events.Name), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer killed.Close()
	killed.PollFetches(t.Context()) // it has joined
	beyond := map[string]map[int32]kgo.EpochOffset{b.s.Events.Name: {home: {Epoch: -1, Offset: 5}}}
	killed.CommitOffsetsSync(t.Context(), beyond,
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, commitErr error) {
			err = commitErr
		})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*time.Second, killed.Close)
	if _, err := b.rebuild(t.Context(), t, dir, "half", sel, nil); err != nil {
		t.Error(err)
	}
	if committed, err := kafka.Committed(t.Context(), b.conf, target.FilesGroup, b.s.Events.Name); err != nil ||
		committed[home].At != 3 {
		t.Errorf("committed %v, %v", committed, err)
	}
}

func TestTargetTakesANameWithOrWithoutThePrefix(t *testing.T) {
	s, err := topology.New("shop", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	short, err1 := replay.Target(s, "v2")
	long, err2 := replay.Target(s, "shop-v2")
	if err1 != nil || err2 != nil || short.FilesGroup != "shop-v2" || short.FilesGroup != long.FilesGroup {
		t.Errorf("%s, %v and %s, %v", short.FilesGroup, err1, long.FilesGroup, err2)
	}
}

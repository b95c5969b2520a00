package replay_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"tidemark/kafka"
	"tidemark/replay"
	"tidemark/topology"
)

// A table that was deleted, while its group was not, is not taken for one that holds what the group has read.
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
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // Kafka does it a moment later
			if plan, err := kafka.PlanTopics(t.Context(), b.conf, []topology.Topic{target.Files}); err == nil && len(plan) == 1 && plan[0].Create {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the topic stays")
			}
		}
	}
	gone()
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil); !errors.Is(err, replay.ErrTableGone) {
		t.Errorf("deleted: %v", err)
	}
	if _, err := kafka.ApplyTopics(t.Context(), b.conf, []topology.Topic{target.Files}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil); !errors.Is(err, replay.ErrTableGone) {
		t.Errorf("made anew: %v", err)
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
}

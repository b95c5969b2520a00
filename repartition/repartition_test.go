package repartition_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/prototext"

	"tidemark/codecs"
	"tidemark/deadletters"
	"tidemark/devbroker"
	"tidemark/diff"
	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/processors"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/repartition"
	"tidemark/topology"
)

// A happening is one record of a history, wherever it is to lie.
type happening struct {
	workspace, key, value string
	astray                bool
	at                    time.Time
	nullKey               bool
}

func (i *installation) send(t *testing.T, history []happening) {
	t.Helper()
	n := i.conf.Streams.Events.Partitions
	records := make([]*kgo.Record, len(history))
	for j, h := range history {
		records[j] = &kgo.Record{
			Topic: i.conf.Streams.Events.Name, Key: []byte(h.key), Value: []byte(h.value),
			Partition: kafka.Partition(h.workspace, n), Timestamp: h.at,
		}
		if h.astray {
			records[j].Partition = (records[j].Partition + 1) % int32(n)
		}
		if h.nullKey {
			records[j].Key = nil
		}
	}
	if err := i.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// A historian makes events: of files, and of what touches none, good and bad, some of them twice.
type historian struct {
	rnd    *rand.Rand
	serial int
	now    time.Time
	past   []happening
}

var workspaces = []string{"w1", "w10", "a/b", "a%2Fb", "_x", "w2", "w3", "w4", "w5", "w6", "w7", "w8"}

func (h *historian) write(n int) (history []happening) {
	for range n {
		h.serial++
		h.now = h.now.Add(1500 * time.Millisecond)
		ws := workspaces[h.rnd.IntN(len(workspaces))]
		is := happening{workspace: ws, key: ws, at: h.now}
		created := fmt.Sprintf(`,"created":%q`, h.now.Add(-time.Duration(h.rnd.IntN(600))*time.Second).Format(time.RFC3339))
		if h.rnd.IntN(10) == 0 {
			created = "" // undated
		}
		received := fmt.Sprintf(`,"received_at":%q`, h.now.UTC().Format("2006-01-02T15:04:05.000000Z"))
		kinds := []string{
			"file_added", "file_updated", "file_updated", "file_deleted", "file_restored", "file_moved",
			"file_downloaded",
		}
		is.value = fmt.Sprintf(`{"event":"workspace_storage_%s","workspace_id":%q,"event_id":"e%d","object_id":"f/%d","size":%d,"mime":"text/%d","name":"n%d"%s}`,
			kinds[h.rnd.IntN(len(kinds))], ws, h.serial, h.rnd.IntN(8), h.serial, h.rnd.IntN(3), h.serial, created+
				received)
		switch h.rnd.IntN(20) {
		case 0:
			is.value = fmt.Sprintf(`{"event":"added_member_to_workspace","workspace_id":%q,"event_id":"m%d","user_id":"u%d"%s}`, ws, h.serial, h.rnd.IntN(5), created+received)
		case 1:
			is.value = fmt.Sprintf(`{"event":"removed_member_from_workspace","workspace_id":%q,"event_id":"m%d","user_id":"u%d"%s}`, ws, h.serial, h.rnd.IntN(5), created+received)
		case 2:
			is.value = "not JSON"
		case 3:
			is.astray = true
		case 4:
			is.key = ws + "-other"
		case 5:
			is.nullKey = true
		case 6, 7:
			if len(h.past) > 0 { // a resend
				is = h.past[h.rnd.IntN(len(h.past))]
				is.at = h.now
			}
		}
		history = append(history, is)
	}
	h.past = append(h.past, history...)
	return history
}

// rows returns the newest row of each key of a table as text, without what says where its events lie.
func rows(t *testing.T, conf kafka.Config, table topology.Topic, kind diff.Kind) map[string]string {
	t.Helper()
	spans, err := kafka.Extent(t.Context(), conf, table.Name)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	err = kafka.Read(t.Context(), conf, table.Name, spans, func(r *kgo.Record) error {
		if want := kafka.FilePartition(r.Key, table.Partitions); want != r.Partition {
			return fmt.Errorf("key %q lies in partition %d of %s, want %d", r.Key, r.Partition, table.Name, want)
		}
		row, err := kind.Decode(r)
		if err != nil {
			return err
		}
		switch row := row.(type) {
		case *tidemarkv1.FileState:
			row.Position, row.LogId, row.SilentOffset = nil, "", 0
			for end := 24; end <= len(row.GetSeen()); end += 24 { // the record's time, which the broker may give
				copy(row.GetSeen()[end-4:end], "time")
			}
		case *tidemarkv1.WorkspaceState:
			row.Position, row.LogId, row.Applied, row.AppliedFrom, row.AppliedCount = nil, "", nil, 0, 0
			for _, m := range row.GetMembers() {
				m.Offset = 0
			}
		}
		found[string(r.Key)] = strings.Join(strings.Fields(prototext.Format(row)), " ")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// open returns the open dead letters: reason and value of each, by their source if that lies in the events topic.
func open(t *testing.T, i *installation) map[string]int {
	t.Helper()
	queue := deadletters.New(i.conf.Kafka, i.conf.Streams)
	entries, err := queue.Entries(t.Context(), deadletters.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	err = queue.Records(t.Context(), entries, func(e *deadletters.Entry, r *kgo.Record) error {
		if e.Topic != i.conf.Streams.Events.Name {
			return fmt.Errorf("the source of a dead letter is %+v", e.Source)
		}
		span := kafka.Spans{e.Partition: {From: e.Offset, To: e.Offset + 1}}
		return kafka.Read(t.Context(), i.conf.Kafka, e.Topic, span, func(source *kgo.Record) error {
			if string(source.Value) != string(r.Value) {
				return fmt.Errorf("the dead letter of %+v is %s, there lies %s", e.Source, r.Value, source.Value)
			}
			found[e.Reason+" "+string(r.Value)]++
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestAMoveIsAsIfItHadBeenSoFromTheStart cuts a copy short again and again, goes on under the new prefix, and compares
// with an installation that had this number of partitions when the first event came.
func TestAMoveIsAsIfItHadBeenSoFromTheStart(t *testing.T) {
	for _, c := range []struct {
		guarantee epochs.Guarantee
		from, to  int
	}{{epochs.AtLeastOnce, 4, 8}, {epochs.ExactlyOnce, 4, 8}, {epochs.AtLeastOnce, 6, 4}} {
		t.Run(fmt.Sprintf("%s %d to %d", c.guarantee, c.from, c.to), func(t *testing.T) {
			t.Parallel() // most of their time they wait
			brokers := devbroker.ForTest(t)
			h := &historian{
				rnd: rand.New(rand.NewPCG(uint64(c.from), uint64(c.to))),
				now: time.Now().Add(-2 * time.Hour).Truncate(time.Second),
			}
			old, fresh := install(t, brokers, c.from, c.guarantee).apply(t), install(t, brokers, c.to,
				c.guarantee).apply(t)
			moved := install(t, brokers, c.to, c.guarantee)

			folded, uncounted, waiting, later := h.write(650), h.write(50), h.write(60), []happening(nil)
			old.send(t, folded)
			old.process(t)
			old.send(t, uncounted)
			old.run(t, false)
			if c.guarantee == epochs.AtLeastOnce { // as a crash leaves it: rows and notices beyond the commits
				rewind(t, old.conf, old.conf.Streams.FilesGroup, old.conf.Streams.Events.Name, 9)
				rewind(t, old.conf, old.conf.Streams.WorkspacesGroup, old.conf.Streams.Notify.Name, 13)
			}
			old.send(t, waiting)
			kills, summary := moveAll(t, h.rnd, old, moved)
			if n := int(summary.Unfolded); n < len(waiting) || n > len(waiting)+9*c.from || summary.Notices < 30 {
				t.Errorf("%+v: %d events are not folded", summary, len(waiting))
			}
			if kills < 5 {
				t.Errorf("the copy was cut short %d times: that shows little", kills)
			}
			checkEvents(t, old, moved)

			later = append(later, h.past[:200]...) // resends of the oldest
			for i := range later {
				later[i].at = h.now
			}
			later = append(later, h.write(100)...)
			moved.send(t, later)
			moved.process(t)
			fresh.send(t, folded)
			fresh.send(t, uncounted)
			fresh.send(t, waiting)
			fresh.send(t, later)
			fresh.process(t)

			for _, table := range []struct {
				of   func(topology.Streams) topology.Topic
				kind diff.Kind
			}{
				{func(s topology.Streams) topology.Topic { return s.Files }, diff.Files},
				{func(s topology.Streams) topology.Topic { return s.Workspaces }, diff.Workspaces},
			} {
				want := rows(t, fresh.conf.Kafka, table.of(fresh.conf.Streams), table.kind)
				got := rows(t, moved.conf.Kafka, table.of(moved.conf.Streams), table.kind)
				if diff := cmp.Diff(want, got); diff != "" || len(want) < 12 {
					t.Errorf("%d rows; from the start (-), moved (+):\n%s", len(want), diff)
				}
			}
			if diff := cmp.Diff(open(t, fresh), open(t, moved)); diff != "" {
				t.Errorf("dead letters, from the start (-), moved (+):\n%s", diff)
			}
			if diff := cmp.Diff(index(t, fresh), index(t, moved)); diff != "" {
				t.Errorf("index, from the start (-), moved (+):\n%s", diff)
			}
			checkPositions(t, moved)
		})
	}
}

// rewind takes some of a group's commits back.
func rewind(t *testing.T, conf processors.Config, group, topic string, by int64) {
	t.Helper()
	commits, err := kafka.Committed(t.Context(), conf.Kafka, group, topic)
	if err != nil {
		t.Fatal(err)
	}
	var back []kadm.Offset
	for _, o := range commits {
		o.At = max(0, o.At-by)
		back = append(back, o)
	}
	if err := kafka.Commit(t.Context(), conf.Kafka, group, back...); err != nil {
		t.Fatal(err)
	}
}

var errKilled = errors.New("killed")

// moveAll runs a move until it succeeds. Each run is killed at a record, later and later ones.
func moveAll(t *testing.T, rnd *rand.Rand, from, to *installation) (kills int, summary *repartition.Summary) {
	t.Helper()
	for least := 1; ; least += 60 {
		left := least + rnd.IntN(120)
		ctx, cancel := context.WithCancelCause(t.Context())
		move := from.moveTo(to, func(*kgo.Record) error {
			if left--; left == 0 {
				cancel(errKilled)
				if rnd.IntN(2) == 0 {
					return errKilled
				}
			}
			return nil
		})
		summary, err := move.Run(ctx)
		cancel(nil)
		if err == nil {
			if summary.Files.Equal == 0 || summary.Workspaces.Equal == 0 ||
				summary.Files.Different+summary.Workspaces.Different+summary.Misplaced > 0 || summary.DeadLetters == 0 {
				t.Errorf("%+v", summary)
			}
			return kills, summary
		}
		if !errors.Is(err, errKilled) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		kills++
	}
}

// checkEvents wants each event of the old log once in the new one, in the order of its workspace, byte for byte.
func checkEvents(t *testing.T, old, moved *installation) {
	t.Helper()
	byWorkspace := func(i *installation) map[string][]string {
		topic, found := i.conf.Streams.Events.Name, map[string][]string{}
		spans, err := kafka.Extent(t.Context(), i.conf.Kafka, topic)
		if err != nil {
			t.Fatal(err)
		}
		err = kafka.Read(t.Context(), i.conf.Kafka, topic, spans, func(r *kgo.Record) error {
			workspace := string(r.Key)
			if e, err := codecs.ParseEvent(r.Value); err == nil && r.Key == nil {
				workspace = e.GetWorkspaceId()
			}
			if want := kafka.Partition(workspace, len(spans)); want != r.Partition {
				workspace += " astray"
			}
			found[workspace] = append(found[workspace], fmt.Sprint(r.Key == nil, string(r.Key), string(r.Value)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if diff := cmp.Diff(byWorkspace(old), byWorkspace(moved)); diff != "" {
		t.Errorf("events, old (-), moved (+):\n%s", diff)
	}
}

// index returns the newest record of each id, without positions.
func index(t *testing.T, i *installation) map[string]string {
	t.Helper()
	topic, found := i.conf.Streams.Index, map[string]string{}
	spans, err := kafka.Extent(t.Context(), i.conf.Kafka, topic.Name)
	if err != nil {
		t.Fatal(err)
	}
	err = kafka.Read(t.Context(), i.conf.Kafka, topic.Name, spans, func(r *kgo.Record) error {
		message, err := codecs.Index{}.Decode(r.Value)
		if err != nil {
			return err
		}
		op := message.(*tidemarkv1.IndexOp)
		if op.Position = nil; op.GetFile() != nil {
			op.File.Position = nil
		}
		found[string(r.Key)] = strings.Join(strings.Fields(prototext.Format(op)), " ")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

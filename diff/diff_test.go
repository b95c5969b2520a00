package diff_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/devbroker"
	"tidemark/diff"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A pair is two tables, of the groups files and other, that both have committed up to offset 100 of partition 0.
type pair struct {
	conf   kafka.Config
	s      topology.Streams
	client *kgo.Client
	diff.Comparison
}

func newPair(t *testing.T) *pair {
	t.Helper()
	s, err := topology.New(fmt.Sprintf("c%d", time.Now().UnixNano()),
		topology.Sizing{Partitions: 1, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{conf: kafka.Config{Brokers: devbroker.ForTest(t)}, s: s}
	p.Comparison = diff.Comparison{
		Kafka: p.conf, A: p.table(t, "files"),
		B: p.table(t, s.Events.Name[:len(s.Events.Name)-len("events")]+"other"), Ignore: []string{"log_id", "seen"},
	}
	second := s.Files
	second.Name = p.B.Topic
	if _, err := kafka.ApplyTopics(t.Context(), p.conf, []topology.Topic{s.Events, s.Files, second}); err != nil {
		t.Fatal(err)
	}
	if p.client, err = kafka.NewProducer(p.conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	p.commit(t, p.A.Group)
	p.commit(t, p.B.Group)
	return p
}

func (p *pair) table(t *testing.T, group string) diff.Table {
	t.Helper()
	table, err := diff.TableOf(p.s, group)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func (p *pair) commit(t *testing.T, group string) {
	t.Helper()
	if err := kafka.Commit(t.Context(), p.conf, group,
		kadm.Offset{Topic: p.s.Events.Name, At: 100, LeaderEpoch: -1}); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) put(t *testing.T, table diff.Table, rows ...*tidemarkv1.FileState) {
	t.Helper()
	for _, row := range rows {
		value, err := proto.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		p.raw(t, table, tidemarkv1.JoinKey(row.GetWorkspaceId(), row.GetFileId()), value)
	}
}

func (p *pair) raw(t *testing.T, table diff.Table, key string, value []byte) {
	t.Helper()
	if err := p.client.ProduceSync(t.Context(),
		&kgo.Record{Topic: table.Topic, Key: []byte(key), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) run(t *testing.T) (summary diff.Summary, lines string) {
	t.Helper()
	got, err := p.Run(t.Context(), func(d diff.Difference) error {
		line, err := json.Marshal(d)
		lines += string(line) + "\n"
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return *got, lines
}

func row(file string, version, offset int64) *tidemarkv1.FileState {
	return &tidemarkv1.FileState{
		WorkspaceId: "w", FileId: file, Version: version,
		Position: &tidemarkv1.Position{Offset: offset},
	}
}

func TestTheNewestRowsAreCompared(t *testing.T) {
	p := newPair(t)
	// a former owner's older row behind the newer
	p.put(t, p.A, row("zombie", 1, 10), row("zombie", 3, 30), row("zombie", 2, 20))
	p.put(t, p.B, row("zombie", 3, 30))
	p.put(t, p.A, row("gone", 1, 1), row("back", 5, 5))
	p.raw(t, p.A, "w/gone", nil)
	p.raw(t, p.A, "w/back", nil)
	p.put(t, p.A, row("back", 1, 50))
	p.put(t, p.B, row("back", 1, 50))
	bookkeeping := row("kept", 1, 1)
	bookkeeping.LogId, bookkeeping.Seen = "another", []byte("window")
	p.put(t, p.A, bookkeeping)
	p.put(t, p.B, row("kept", 1, 1))
	p.put(t, p.A, row("ahead", 2, 100)) // at the commit: the other may not have read it
	p.put(t, p.B, row("ahead", 1, 1), row("new", 1, 100))
	gone := row("of a deleted topic", 1, 500) // beyond any commit in the present one
	gone.LogId = "another"
	p.put(t, p.A, gone)
	p.put(t, p.B, gone)
	if summary, lines := p.run(t); lines != "" ||
		summary != (diff.Summary{Equal: 4, NotCompared: 2, BehindA: 2, BehindB: 2}) {
		t.Errorf("%+v\n%s", summary, lines)
	}

	newer := row("of a deleted topic", 2, 500)
	newer.LogId = "another"
	p.put(t, p.A, newer)
	if summary, lines := p.run(t); summary.Different != 1 || !strings.Contains(lines, `"field":"version","a":2,"b":1`) {
		t.Errorf("of a deleted topic: %+v\n%s", summary, lines)
	}

	p.put(t, p.B, newer)
	p.Ignore = nil
	if summary, lines := p.run(t); summary.Different != 1 || !strings.Contains(lines, `"field":"log_id","a":"another","b":null`) {
		t.Errorf("with nothing ignored: %+v\n%s", summary, lines)
	}
}

func TestDifferencesAreSaid(t *testing.T) {
	p := newPair(t)
	left, right := row("f/1", 2, 7), row("f/1", 3, 8)
	left.Status, right.Status = tidemarkv1.Status_STATUS_ACTIVE, tidemarkv1.Status_STATUS_TRASHED
	left.Size = proto.Int64(0)
	right.DeletedAt = new(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).UnixMicro())
	p.put(t, p.A, left, row("only", 1, 1))
	p.put(t, p.B, right)
	summary, lines := p.run(t)
	want := `{"partition":0,"key":"w/f%2F1","workspace_id":"w","file_id":"f/1","fields":[{"field":"size","a":0,"b":null},{"field":"status","a":"active","b":"trashed"},` +
		`{"field":"version","a":2,"b":3},{"field":"position","a":"0:7","b":"0:8"},{"field":"deleted_at","a":null,"b":"2026-11-24T12:00:00Z"}]}` + "\n" +
		`{"partition":0,"key":"w/only","workspace_id":"w","file_id":"only","only_in":"` + p.A.Group + `"}` + "\n"
	if diff := cmp.Diff(want, lines); diff != "" || summary.Different != 2 {
		t.Errorf("%+v (-want +got):\n%s", summary, diff)
	}
}

func TestWhatCannotBeCompared(t *testing.T) {
	p := newPair(t)
	none := func(diff.Difference) error { return nil }
	wrong := p.Comparison
	wrong.Ignore = []string{"colour"}
	if _, err := wrong.Run(t.Context(), none); !errors.Is(err, diff.ErrField) {
		t.Errorf("an unknown field: %v", err)
	}
	wrong = p.Comparison
	wrong.B = p.table(t, "nosuch")
	if _, err := wrong.Run(t.Context(), none); err == nil ||
		!strings.Contains(err.Error(), "nosuch has committed nothing") {
		t.Errorf("a group that never ran: %v", err)
	}
	if _, err := diff.TableOf(p.s, "workspaces"); err == nil {
		t.Error("workspaces are taken for files")
	}
	p.raw(t, p.A, "w/f", []byte("not a row"))
	if _, err := p.Run(t.Context(), none); err == nil || !strings.Contains(err.Error(), "not a row") {
		t.Errorf("a record that is no row: %v", err)
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/processors"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A whyLine is one line of why -o json.
type whyLine struct {
	Kind, Position, Verdict, Reason, Detail, Agrees string

	EventID string `json:"event_id"`
	Version *int64
	Unread  []string `json:"unreadable"`
	Sent    string   `json:"sent_event"`
	Row     *struct {
		Name    string
		Version int64
	}
}

// asked runs why for the file f of workspace ws.
func asked(t *testing.T, brokers []string, streams topology.Streams, want int, more ...string) (lines []whyLine,
	errs string,
) {
	t.Helper()
	args := append([]string{
		"why", "ws", "f", "-o", "json", "--brokers", strings.Join(brokers, ","), "--topic-prefix",
		prefixOf(streams),
	}, more...)
	out, errs, code := tidemark(t, args...)
	if code != want {
		t.Fatalf("exit %d, want %d\n%s%s", code, want, out, errs)
	}
	for line := range strings.Lines(out) {
		var l whyLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines, errs
}

func prefixOf(s topology.Streams) string { return strings.TrimSuffix(s.Events.Name, "-events") }

// verdicts is what became of each event, in order, as "id verdict version".
func verdicts(lines []whyLine) (found []string) {
	for _, l := range lines {
		if l.Kind != "event" {
			continue
		}
		text := l.EventID + " " + l.Verdict
		if l.Reason != "" {
			text += ":" + l.Reason
		}
		if l.Version != nil {
			text += fmt.Sprintf(" v%d", *l.Version)
		}
		found = append(found, text)
	}
	return found
}

// fold runs both groups until they have committed all that there is.
func fold(t *testing.T, brokers []string, streams topology.Streams) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	config := kafka.Config{Brokers: brokers}
	conf := processors.Config{
		Kafka: config, Streams: streams, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(),
	}
	files, workspaces := processors.NewFiles(conf), processors.NewWorkspaces(conf)
	go func() { ended <- files.Run(ctx) }()
	go func() { ended <- workspaces.Run(ctx) }()
	defer func() {
		stop()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	}()
	done := func(group, topic string) bool {
		lag, err := kafka.Lags(t.Context(), config, group, topic)
		return err == nil && lag.Total() == 0 && lag.Members > 0
	}
	for deadline := time.Now().Add(30 * time.Second); !done(streams.FilesGroup, streams.Events.Name) ||
		!done(streams.WorkspacesGroup, streams.Notify.Name); {
		if time.Now().After(deadline) {
			t.Fatal("not folded")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestWhy(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	partition := kafka.Partition("ws", streams.Events.Partitions)
	event := func(key, value string) *kgo.Record {
		return &kgo.Record{Topic: streams.Events.Name, Partition: partition, Key: []byte(key), Value: []byte(value)}
	}
	of := func(id, kind, more string) *kgo.Record {
		return event("ws", fmt.Sprintf(`{"event":"workspace_storage_file_%s","event_id":"%s","workspace_id":"ws","object_id":"f"%s}`, kind, id, more))
	}
	produce(t, brokers,
		of("e1", "added", `,"name":"a","created":"2026-01-01 10:00:00 UTC"`),
		event("ws", `{"event":"workspace_storage_file_added","event_id":"x","workspace_id":"ws","object_id":"other"}`),
		of("e3", "updated", `,"name":"c","created":"2026-01-01 12:00:00 UTC"`),
		of("e2", "updated", `,"name":"b","created":"2026-01-01 11:00:00 UTC"`),
		of("e1", "added", `,"name":"a","created":"2026-01-01 10:00:00 UTC"`),
		of("d1", "downloaded", ""),
		of("bad", "updated", `,"name":"x","name":"y"`), // a name twice
		event("elsewhere", `{"event":"workspace_storage_file_updated","event_id":"k","workspace_id":"ws","object_id":"f"}`),
		event("ws", `{"event":"workspace_storage_file_updated","event_id":"esc","workspace_id":"ws","object_id":"\u0066"}`),
	)
	fold(t, brokers, streams)
	lines, _ := asked(t, brokers, streams, exitOK)
	want := []string{
		"e1 accepted v1", "e3 accepted v2", "e2 late v3", "e1 duplicate", "d1 passed",
		"bad dead_lettered:not_json", "k dead_lettered:key_mismatch", "esc accepted v4",
	}
	if diff := cmp.Diff(want, verdicts(lines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	last := lines[len(lines)-1]
	if last.Kind != "row" || last.Agrees != "yes" || last.Row == nil || last.Row.Version != 4 || last.Row.Name != "c" {
		t.Errorf("row %+v", last)
	}
	if duplicate := lines[3]; duplicate.Detail != "a copy of "+lines[0].Position {
		t.Errorf("duplicate: %+v", duplicate)
	}

	// Nobody processes: new events are pending. Since then, an old id is known by the row alone.
	since := time.Now()
	time.Sleep(5 * time.Millisecond) // record times are of milliseconds
	produce(t, brokers, of("e4", "updated", ""), of("e3", "updated", ""))
	lines, _ = asked(t, brokers, streams, exitOK, "--since", since.UTC().Format(time.RFC3339Nano))
	if diff := cmp.Diff([]string{"e4 pending", "e3 pending"}, verdicts(lines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	fold(t, brokers, streams)
	lines, _ = asked(t, brokers, streams, exitOK, "--since", since.UTC().Format(time.RFC3339Nano))
	if diff := cmp.Diff([]string{"e4 accepted v5", "e3 duplicate"}, verdicts(lines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// For people.
	out := succeed(t, "why", "ws", "f", "--brokers", strings.Join(brokers, ","), "--topic-prefix", prefixOf(streams))
	for _, want := range []string{"POSITION", "dead_lettered: key_mismatch", "Agrees with the notices"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	// Somebody else writes into the table.
	row := &tidemarkv1.FileState{WorkspaceId: "ws", FileId: "f", Name: "forged", Version: 5}
	value, err := codecs.Proto[*tidemarkv1.FileState]{New: func() *tidemarkv1.FileState { return nil }}.Encode(row)
	if err != nil {
		t.Fatal(err)
	}
	produce(t, brokers, &kgo.Record{Topic: streams.Files.Name, Partition: partition, Key: []byte("ws/f"), Value: value})
	_, errs := asked(t, brokers, streams, exitFailed)
	if !strings.Contains(errs, "at version 5 the row and the notice of") || !strings.Contains(errs, "name") {
		t.Errorf("a forged row: %s", errs)
	}
}

// What could not be read, and what a foreign name was taken for, is said of the event.
func TestWhyOfUnreadableFields(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	produce(t, brokers, &kgo.Record{
		Topic: streams.Events.Name, Partition: kafka.Partition("ws", streams.Events.Partitions), Key: []byte("ws"),
		Value: []byte(`{"event":"file.uploaded","canonical_event":"workspace_storage_file_added","event_id":"e1","workspace_id":"ws","object_id":"f","size":"1 kB","created":"noon"}`),
	})
	fold(t, brokers, streams)
	lines, _ := asked(t, brokers, streams, exitOK)
	if diff := cmp.Diff([]string{"e1 accepted v1"}, verdicts(lines)); diff != "" ||
		!slices.Equal(lines[0].Unread, []string{"created", "size"}) || lines[0].Sent != "file.uploaded" {
		t.Errorf("%+v (-want +got):\n%s", lines[0], diff)
	}
	out := succeed(t, "why", "ws", "f", "--brokers", strings.Join(brokers, ","), "--topic-prefix", prefixOf(streams))
	if want := "could not be read: created, size; sent as file.uploaded"; !strings.Contains(out, want) {
		t.Errorf("no %q in\n%s", want, out)
	}
}

func TestWhyOfAnUnknownFile(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	lines, errs := asked(t, brokers, streams, exitFailed)
	if len(lines) != 0 {
		t.Errorf("%+v", lines)
	}
	for _, topic := range []topology.Topic{streams.Events, streams.Notify, streams.DLQ, streams.Files} {
		if !strings.Contains(errs, topic.Name+", ") {
			t.Errorf("does not say that it looked at %s:\n%s", topic.Name, errs)
		}
	}
	if _, errs, code := tidemark(t, "why", "ws", "f", "--since", "yesterday"); code != exitUsage {
		t.Errorf("--since yesterday: exit %d, %s", code, errs)
	}
}

// An event that left nothing behind is named, not explained away.
func TestWhyNamesALostEvent(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	partition := kafka.Partition("ws", streams.Events.Partitions)
	produce(t, brokers, &kgo.Record{
		Topic: streams.Events.Name, Partition: partition, Key: []byte("ws"),
		Value: []byte(`{"event":"workspace_storage_file_added","event_id":"e1","workspace_id":"ws","object_id":"f"}`),
	})
	commit(t, brokers, streams.FilesGroup, streams.Events.Name, partition, 1)
	lines, _ := asked(t, brokers, streams, exitOK)
	if diff := cmp.Diff([]string{"e1 no_trace"}, verdicts(lines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// commit commits for a group that nobody is in.
func commit(t *testing.T, brokers []string, group, topic string, partition int32, offset int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1})
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), group, offsets); err != nil {
		t.Fatal(err)
	}
}

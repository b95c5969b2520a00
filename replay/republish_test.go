package replay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/replay"
	"tidemark/topology"
)

// A forgotten replay does not keep others from running.
func TestForgottenReplayIsOver(t *testing.T) {
	b := newBench(t)
	for i := range 40 {
		b.put(t, b.record("added", fmt.Sprint("w", i%8), fmt.Sprint("e", i), "f", i))
	}
	whole := b.republish(replay.Selection{})
	spans, _, err := whole.Spans(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	cut, cancel := context.WithCancel(t.Context())
	whole.Rate = 20
	whole.Report = func(replay.Progress) { cancel() }
	if _, err := whole.Run(cut, spans); err == nil {
		t.Fatal("was not interrupted")
	}
	one := b.republish(replay.Selection{WorkspaceID: "w1"})
	if _, _, err := one.Spans(t.Context(), false); err == nil ||
		!strings.Contains(err.Error(), "another replay was interrupted") {
		t.Fatalf("another replay beside an interrupted one: %v", err)
	}
	if spans, _, err = one.Spans(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := one.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Run(t.Context(), spans); err != nil {
		t.Fatal(err)
	}
	for _, sel := range []replay.Selection{{}, {WorkspaceID: "w2"}} {
		if _, resumed, err := b.republish(sel).Spans(t.Context(), false); err != nil || resumed {
			t.Errorf("%s: resumed %t, %v", sel, resumed, err)
		}
	}
}

// Events that would have a second effect are skipped without --force.
func TestUnsafeEventsAreSkipped(t *testing.T) {
	b := newBench(t)
	of := func(value string) *kgo.Record {
		return &kgo.Record{
			Topic: b.s.Events.Name, Partition: kafka.Partition("w", partitions), Key: []byte("w"),
			Value: []byte(value),
		}
	}
	b.put(t,
		b.record("updated", "w", "dated", "f", 1),
		of(`{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"undated","object_id":"f"}`),
		of(`{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"ahead","object_id":"f","created":"2026-11-24T12:10:00Z","received_at":"2026-11-24T12:00:00Z"}`),
		of(`{"event":"workspace_storage_file_downloaded","workspace_id":"w","event_id":"rowless","object_id":"f","created":"2026-11-24T12:00:00Z"}`),
		of(`{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"bare","object_id":"f","created":"2026-11-24T12:00:00Z"}`),
	)
	for _, test := range []struct {
		force         bool
		sent, skipped int
	}{{false, 2, 3}, {true, 7, 0}} { // also the two that the first replay has put there
		a := b.republish(replay.Selection{})
		a.Force = test.force
		spans, _, err := a.Spans(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if count, err := a.Run(t.Context(), spans); err != nil || count.Sent != test.sent ||
			count.Skipped != test.skipped || (count.FirstSkipped == "") != test.force {
			t.Errorf("force %t: %+v, %v", test.force, count, err)
		}
	}
}

// A foreign producer's record can be over the size limit once it is uncompressed: it does not end the replay.
func TestTooLargeEventsAreSkipped(t *testing.T) {
	b := newBench(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.conf.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(
			32<<20), kgo.BrokerMaxWriteBytes(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	large := b.record("updated", "w", "large", "f", 1)
	large.Value = []byte(strings.Replace(string(large.Value), "{", `{"pad":"`+strings.Repeat(" ", 5<<20)+`",`, 1))
	if err := client.ProduceSync(t.Context(), large).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.put(t, b.record("updated", "w", "next", "f", 2))
	a := b.republish(replay.Selection{})
	a.Force = true
	spans, _, err := a.Spans(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if count, err := a.Run(t.Context(), spans); err != nil || count.Sent+count.Invalid+count.Skipped != 2 ||
		count.Sent != 1 {
		t.Errorf("%+v, %v", count, err)
	}
}

func (b *bench) republish(sel replay.Selection) *replay.Republish {
	return &replay.Republish{Kafka: b.conf, Events: b.s.Events.Name, Group: b.s.ReplayGroup, Select: sel}
}

// The selected events are sent once, in order, however often the run was interrupted.
func TestRepublish(t *testing.T) {
	b := newBench(t)
	for i := range 60 {
		b.put(t, b.record([]string{"added", "updated"}[i%2], fmt.Sprint("w", i%2), fmt.Sprintf("e%02d", i), "f", i%60))
	}
	home := kafka.Partition("w1", partitions)
	b.put(t, &kgo.Record{Topic: b.s.Events.Name, Partition: home, Key: []byte("w1"), Value: []byte("no event")})
	stray := b.record("updated", "w1", "stray", "f", 1)
	stray.Partition = (home + 1) % partitions
	b.put(t, stray)

	sel := replay.Selection{WorkspaceID: "w1", Events: []string{"workspace_storage_file_updated"}}
	a := b.republish(sel)
	spans, resumed, err := a.Spans(t.Context(), false)
	if err != nil || resumed || len(spans) != 1 {
		t.Fatalf("%v, %t, %v", spans, resumed, err)
	}
	cut, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	a.Rate = 20
	first, err := a.Run(cut, spans)
	if err == nil || first.Sent == 0 || first.Sent > 20 || first.Remaining == 0 {
		t.Fatalf("interrupted: %+v, %v", first, err)
	}
	if _, _, err := b.republish(replay.Selection{}).Spans(t.Context(), false); err == nil ||
		!strings.Contains(err.Error(), "another replay was interrupted") {
		t.Errorf("another replay, while one waits: %v", err)
	}
	a = b.republish(sel)
	if spans, resumed, err = a.Spans(t.Context(), false); err != nil || !resumed {
		t.Fatalf("%v, %t, %v", spans, resumed, err)
	}
	second, err := a.Run(t.Context(), spans)
	if err != nil || first.Sent+second.Sent != 30 || first.Invalid+second.Invalid != 1 || second.Remaining != 0 {
		t.Fatalf("%+v and %+v, %v", first, second, err)
	}
	var ids []string
	for _, r := range b.records(t, b.s.Events) {
		for _, h := range r.Headers {
			if h.Key == topology.HeaderReplay {
				var e struct {
					ID string `json:"event_id"`
				}
				if err := json.Unmarshal(r.Value, &e); err != nil {
					t.Fatal(err)
				}
				ids = append(ids, e.ID)
			}
		}
	}
	var want []string
	for i := 1; i < 60; i += 2 {
		want = append(want, fmt.Sprintf("e%02d", i))
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// It is finished: the same selection starts over.
	if _, resumed, err := b.republish(sel).Spans(t.Context(), false); err != nil || resumed {
		t.Errorf("%t, %v", resumed, err)
	}
}

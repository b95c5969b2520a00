package replay_test

import (
	"context"
	"encoding/json"
	"errors"
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

// A replay that is given up hinders none that comes later, wherever it had come to.
func TestForgottenReplayIsOver(t *testing.T) {
	b := newBench(t)
	for i := range 40 {
		b.put(t, b.record("added", fmt.Sprint("w", i%8), fmt.Sprint("e", i), "f", i))
	}
	whole := b.again(replay.Selection{})
	spans, _, err := whole.Spans(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	cut, cancel := context.WithCancel(t.Context())
	whole.Rate = 20
	whole.Report = func(replay.Progress) { cancel() }
	if _, err := whole.Run(cut, spans); err == nil {
		t.Fatal("was not cut short")
	}
	one := b.again(replay.Selection{WorkspaceID: "w1"})
	if _, _, err := one.Spans(t.Context(), false); !errors.Is(err, replay.ErrUnfinished) {
		t.Fatalf("another replay beside one that was cut: %v", err)
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
		if _, wentOn, err := b.again(sel).Spans(t.Context(), false); err != nil || wentOn {
			t.Errorf("%s: goes on %t, %v", sel, wentOn, err)
		}
	}
}

// What could not be told from new when it came a second time is left out, unless that is asked for.
func TestWhatIsNotSafeToRepeatIsLeftOut(t *testing.T) {
	b := newBench(t)
	of := func(value string) *kgo.Record {
		return &kgo.Record{Topic: b.s.Events.Name, Partition: kafka.Partition("w", partitions), Key: []byte("w"), Value: []byte(value)}
	}
	b.put(t,
		b.record("updated", "w", "dated", "f", 1),
		of(`{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"undated","object_id":"f"}`),
		of(`{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"ahead","object_id":"f","created":"2026-11-24T12:10:00Z","received_at":"2026-11-24T12:00:00Z"}`),
		of(`{"event":"workspace_storage_file_downloaded","workspace_id":"w","event_id":"rowless","object_id":"f","created":"2026-11-24T12:00:00Z"}`),
		of(`{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"bare","object_id":"f","created":"2026-11-24T12:00:00Z"}`),
	)
	for _, test := range []struct {
		force      bool
		sent, left int
	}{{false, 2, 3}, {true, 7, 0}} { // also the two that the first replay has put there
		a := b.again(replay.Selection{})
		a.Force = test.force
		spans, _, err := a.Spans(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if count, err := a.Run(t.Context(), spans); err != nil || count.Sent != test.sent || count.Left != test.left || (count.LeftWhy == "") != test.force {
			t.Errorf("force %t: %+v, %v", test.force, count, err)
		}
	}
}

// A foreign producer's record may be larger than any of ours, once it is unpacked: it does not end the replay.
func TestWhatIsTooLargeIsLeftOut(t *testing.T) {
	b := newBench(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.conf.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(64<<20))
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
	a := b.again(replay.Selection{})
	a.Force = true
	spans, _, err := a.Spans(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if count, err := a.Run(t.Context(), spans); err != nil || count.Sent+count.Unfit+count.Left != 2 || count.Sent != 1 {
		t.Errorf("%+v, %v", count, err)
	}
}

func (b *bench) again(sel replay.Selection) *replay.Again {
	return &replay.Again{Kafka: b.conf, Events: b.s.Events.Name, Group: b.s.ReplayGroup, Select: sel}
}

// What is put into the topic again is what was selected, once, in order, however often the run was cut.
func TestReplayIntoTheTopic(t *testing.T) {
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
	a := b.again(sel)
	spans, wentOn, err := a.Spans(t.Context(), false)
	if err != nil || wentOn || len(spans) != 1 {
		t.Fatalf("%v, %t, %v", spans, wentOn, err)
	}
	cut, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	a.Rate = 20
	first, err := a.Run(cut, spans)
	if err == nil || first.Sent == 0 || first.Sent > 20 || first.Remaining == 0 {
		t.Fatalf("cut short: %+v, %v", first, err)
	}
	if _, _, err := b.again(replay.Selection{}).Spans(t.Context(), false); !errors.Is(err, replay.ErrUnfinished) {
		t.Errorf("another replay, while one waits: %v", err)
	}
	a = b.again(sel)
	if spans, wentOn, err = a.Spans(t.Context(), false); err != nil || !wentOn {
		t.Fatalf("%v, %t, %v", spans, wentOn, err)
	}
	second, err := a.Run(t.Context(), spans)
	if err != nil || first.Sent+second.Sent != 30 || first.Unfit+second.Unfit != 1 || second.Remaining != 0 {
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
	// It is over: the same words begin anew.
	if _, wentOn, err := b.again(sel).Spans(t.Context(), false); err != nil || wentOn {
		t.Errorf("%t, %v", wentOn, err)
	}
}

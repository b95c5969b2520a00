package replay_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/kafka"
	"tidemark/replay"
)

func TestSelectionNamesPlaces(t *testing.T) {
	b := newBench(t)
	for i := range 8 {
		r := b.record("updated", fmt.Sprint("w", i), fmt.Sprint("e", i), "f", i)
		r.Partition = int32(i % 2)
		b.put(t, r)
	}
	middle := time.Now()
	time.Sleep(5 * time.Millisecond)
	for i := range 6 {
		r := b.record("updated", "w", fmt.Sprint("x", i), "f", i)
		r.Partition = int32(i % 2)
		b.put(t, r)
	}
	none, later := kafka.Span{}, time.Now().Add(time.Hour).Format(time.RFC3339)
	at := middle.UTC().Add(2 * time.Millisecond).Format(time.RFC3339Nano)
	for _, test := range []struct {
		from, to string
		want     kafka.Spans
	}{
		{"", "", kafka.Spans{0: {From: 0, To: 7}, 1: {From: 0, To: 7}, 2: none, 3: none}},
		{"start", "end", kafka.Spans{0: {From: 0, To: 7}, 1: {From: 0, To: 7}, 2: none, 3: none}},
		{at, "", kafka.Spans{0: {From: 4, To: 7}, 1: {From: 4, To: 7}, 2: none, 3: none}},
		{"", at, kafka.Spans{0: {From: 0, To: 4}, 1: {From: 0, To: 4}, 2: none, 3: none}},
		{"1h", "1h", kafka.Spans{0: none, 1: none, 2: none, 3: none}},
		{later, "end", kafka.Spans{0: {From: 7, To: 7}, 1: {From: 7, To: 7}, 2: none, 3: none}},
		{"1h", "0:3", kafka.Spans{0: {From: 0, To: 3}}},
		{"1:2,0:7", "end", kafka.Spans{0: {From: 7, To: 7}, 1: {From: 2, To: 7}}},
		{"0:2,1:3", "0:5", kafka.Spans{0: {From: 2, To: 5}}},
	} {
		got, err := replay.Selection{From: test.from, To: test.to}.Spans(t.Context(), b.conf, b.s.Events.Name,
			time.Now())
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("from %q to %q: %v (-want +got):\n%s", test.from, test.to, err, diff)
		}
	}
	home := kafka.Partition("w", 4)
	for _, wrong := range []replay.Selection{
		{From: "end"},
		{To: "start"},
		{From: "yesterday"},
		{From: "9:1"},
		{To: "1:2,1:3"},
		{From: "-2h"},
		{From: "1:2,0:99"},
		{To: "0:99"},
		{From: "0:5", To: "1:5"},
		{From: "0:5", To: "0:4"}, // these select nothing
		{From: fmt.Sprintf("%d:0", (home+1)%4), WorkspaceID: "w"},
		{To: fmt.Sprintf("%d:0", (home+1)%4), WorkspaceID: "w"},
	} {
		_, err := wrong.Spans(t.Context(), b.conf, b.s.Events.Name, time.Now())
		if _, bad := errors.AsType[*replay.BadBound](err); !bad {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

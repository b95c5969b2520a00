package rig

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/oracle"
)

// A Foreign writes records straight to the events topic, as another producer would: good ones without the ingress's
// headers, and poison, which must become dead letters without delaying what is behind it.
type Foreign struct {
	client     *kgo.Client
	topic      string
	partitions int
	rnd        *rand.Rand

	mu      sync.Mutex
	serial  int
	Written map[string]bool // positions; complete when Run and Write have returned
}

// NewForeign returns a writer; its client must leave partitions to the caller.
func NewForeign(client *kgo.Client, topic string, partitions int, rnd *rand.Rand) *Foreign {
	return &Foreign{client: client, topic: topic, partitions: partitions, rnd: rnd, Written: map[string]bool{}}
}

// Poison is how many kinds of records there are that must become dead letters. Two thirds of all kinds are.
const (
	Poison = 10
	kinds  = 15
)

// Run writes until ctx ends.
func (f *Foreign) Run(ctx context.Context, every time.Duration) error {
	for Sleep(ctx, every) == nil {
		if err := f.Write(f.rnd.IntN(kinds)); err != nil {
			return err
		}
	}
	return nil
}

// Write writes one record; kinds below Poison are poison.
func (f *Foreign) Write(kind int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Not the run's context: a record whose write is cut off may land all the same, at a position that nobody knows.
	r, err := f.client.ProduceSync(context.Background(), f.record(kind)).First()
	if err != nil {
		return fmt.Errorf("write a foreign record: %w", err)
	}
	f.Written[fmt.Sprintf("%d:%d", r.Partition, r.Offset)] = true
	return nil
}

func (f *Foreign) record(kind int) *kgo.Record {
	f.serial++
	serial, ws, now := f.serial, fmt.Sprintf("foreign-%d", f.serial%6), time.Now().UTC()
	if kind == 10 { // the workspace's event before this one, with other times
		serial -= 6
	}
	value := fmt.Sprintf(`{"event":"workspace_storage_file_updated","workspace_id":%q,`+
		`"event_id":"foreign-evt-%d","object_id":"f%d","size":%d`, ws, serial, serial/6%10, serial)
	if kind != kinds-1 {
		value += fmt.Sprintf(`,"created":%q,"received_at":%q`,
			now.Add(-time.Second).Format("2006-01-02 15:04:05 UTC"), now.Format("2006-01-02T15:04:05.000000"))
	}
	value += "}"
	r := &kgo.Record{Topic: f.topic, Key: []byte(ws)}
	n := oracle.Partition(r.Topic, ws, f.partitions)
	replace := func(old, by string) { value = strings.Replace(value, old, by, 1) }
	switch kind {
	case 0:
		value = ""
	case 1:
		value = value[:len(value)-1]
	case 2:
		replace(`"event_id"`, `"other_id"`)
	case 3: // a control character in an id
		replace(`"event_id":"`, `"event_id":"\u0007`)
	case 4:
		replace(`"size"`, `"name":"`+strings.Repeat("n", 5000)+`","size"`)
	case 5:
		r.Key = []byte(ws + "-other")
	case 6:
		n = (n + 1) % f.partitions
	case 7:
		value, r.Key = "\xff\xfe not text", nil
	case 8: // duplicate names
		replace("{", `{"event":"workspace_storage_file_deleted",`)
	case 9:
		r.Headers = []kgo.RecordHeader{{Key: "ce_id", Value: []byte("another")}}
	case 11: // allowed where it belongs
		r.Key = nil
	}
	r.Partition = int32(n)
	if value != "" {
		r.Value = []byte(value)
	}
	return r
}

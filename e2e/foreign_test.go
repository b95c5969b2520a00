package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"tidemark/e2e/oracle"

	"github.com/twmb/franz-go/pkg/kgo"
)

// foreign writes records straight to the events topic, as another producer would: good ones without our headers, and ones
// that must become dead letters without holding up what lies behind them.
type foreign struct {
	rig    *rig
	rnd    *rand.Rand
	serial int

	written map[string]bool // positions
}

// run writes until ctx ends.
func (f *foreign) run(ctx context.Context, every time.Duration) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
		// Not ctx: a record that is cut off might land all the same, and nobody would know where.
		r, err := f.rig.client.ProduceSync(context.Background(), f.record()).First()
		if err != nil {
			return fmt.Errorf("write a foreign record: %w", err)
		}
		f.written[fmt.Sprintf("%d:%d", r.Partition, r.Offset)] = true
	}
}

func (f *foreign) record() *kgo.Record {
	f.serial++
	ws := fmt.Sprintf("foreign-%d", f.rnd.IntN(6))
	id := fmt.Sprintf("foreign-evt-%d", f.serial)
	now := time.Now().UTC()
	value := fmt.Sprintf(`{"event":"workspace_storage_file_updated","workspace_id":%q,"event_id":%q,"object_id":"f%d","size":%d,"created":%q,"received_at":%q}`,
		ws, id, f.rnd.IntN(10), f.serial, now.Add(-time.Second).Format("2006-01-02 15:04:05 UTC"), now.Format("2006-01-02T15:04:05.000000"))
	r := &kgo.Record{Topic: f.rig.topics.Events, Key: []byte(ws), Value: []byte(value)}
	n := oracle.Partition(r.Topic, ws, partitions)
	switch f.rnd.IntN(12) {
	case 0:
		r.Value = nil
	case 1:
		r.Value = []byte(value[:len(value)-1])
	case 2:
		r.Value = []byte(strings.Replace(value, `"event_id"`, `"other_id"`, 1))
	case 3: // a control character in an id
		r.Value = []byte(strings.Replace(value, `"event_id":"`, `"event_id":"\u0007`, 1))
	case 4:
		r.Value = []byte(strings.Replace(value, `"size"`, `"name":"`+strings.Repeat("n", 5000)+`","size"`, 1))
	case 5:
		r.Key = []byte(ws + "-other")
	case 6:
		n = (n + 1) % partitions
	case 7:
		r.Value, r.Key = []byte("\xff\xfe not text"), nil
	case 8: // duplicate names
		r.Value = []byte(strings.Replace(value, "{", `{"event":"workspace_storage_file_deleted",`, 1))
	case 9: // the same event as the one before, word for word but for its times
		r.Value = []byte(strings.Replace(value, id, fmt.Sprintf("foreign-evt-%d", f.serial-1), 1))
	}
	r.Partition = int32(n)
	return r
}

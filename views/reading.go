package views

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// readingProgress says how much of a partition's changelog was read since its storage was opened.
type readingProgress struct {
	since       atomic.Int64 // when it was opened, in nanoseconds since 1970
	records     atomic.Int64
	first, next atomic.Int64 // offset of the first record, and the one after the last
	end         atomic.Int64 // where the changelog ended at the first poll; 0 before it
	finishing   atomic.Bool  // a load is being finished: nothing is read meanwhile
}

func (r *readingProgress) begin() {
	r.since.Store(time.Now().UnixNano())
	r.records.Store(0)
}

func (r *readingProgress) noteRead(offset int64) {
	if r.records.Add(1) == 1 {
		r.first.Store(offset)
	}
	r.next.Store(offset + 1)
}

// A readSoFar is how much was read of the partitions of a table that are not complete.
type readSoFar struct {
	records int64
	share   float64       // of the offsets that are to be read
	left    time.Duration // until all are read; 0 if that is not known
}

func (t *table) readSoFar(now time.Time) (r readSoFar) {
	var done, total, begun int64
	for _, partition := range t.held.partitions() {
		if t.completePartition(partition) {
			continue
		}
		p := &t.partitions[partition].reading
		first := p.first.Load()
		if records := p.records.Load(); records > 0 {
			r.records += records
			done += min(p.next.Load(), max(p.end.Load(), first)) - first
		}
		total += max(0, p.end.Load()-first)
		if since := p.since.Load(); begun == 0 || since < begun {
			begun = since
		}
	}
	if total > 0 {
		r.share = float64(done) / float64(total)
	}
	if r.share > 0 {
		r.left = time.Duration(float64(now.UnixNano()-begun) * (1 - r.share) / r.share)
	}
	return r
}

func (r readSoFar) String() string {
	text := fmt.Sprintf("%d records, %.0f %%", r.records, 100*r.share)
	switch {
	case r.share >= 1:
		text += ", writing rows and indexes"
	case r.left > 0:
		text += fmt.Sprintf(", about %.0f s left", r.left.Seconds())
	}
	return text
}

const logProgressEvery = 10 * time.Second

// logProgress logs how much was read, until the copy is complete or ctx ends.
func (t *table) logProgress(ctx context.Context) {
	tick := time.NewTicker(logProgressEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if t.complete() {
				continue // further partitions may come
			}
			r := t.readSoFar(now)
			if r.records == 0 {
				continue // nothing is assigned, or the brokers do not answer
			}
			t.log.InfoContext(ctx, "local copy is being read", "topic", t.topic.Name, "records", r.records,
				"share", fmt.Sprintf("%.3f", r.share), "seconds_left", int(r.left.Seconds()))
		case <-ctx.Done():
			return
		}
	}
}

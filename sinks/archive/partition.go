package archive

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/parquetlog"
)

// Partition archives a partition until ctx ends, which is its error then. The open object is dropped: the next owner
// reads its records again. Any other error needs an operator.
func (a *Archive) Partition(ctx context.Context, p Partition) error {
	w := &writer{Archive: a, partition: p, begin: p.Begin()}
	defer func() { w.spool.close() }()
	for {
		records, err := w.next(ctx)
		if err != nil {
			return err
		}
		if records == nil {
			if err := w.close(ctx, w.seen); err != nil {
				return err
			}
		}
		for _, r := range records {
			if err := w.add(ctx, r); err != nil {
				return err
			}
		}
	}
}

// A writer is a partition while it is archived.
type writer struct {
	*Archive
	partition Partition
	begin     int64 // the records before it are in closed objects; negative: the partition is read from its beginning
	seen      int64 // the offset after the last record or control record
	epoch     int32 // of that record

	spool  *spool            // nil: no object is open
	object parquetlog.Object // that is open
	window int64
	idleAt time.Time // when the object is closed if no record comes
}

// next returns the records that follow, or none if the open object is to be closed because the partition is idle.
func (w *writer) next(ctx context.Context) ([]*kgo.Record, error) {
	for w.spool != nil {
		until, cancel := context.WithDeadline(ctx, w.idleAt)
		records, err := w.partition.Next(until)
		cancel()
		if err == nil || ctx.Err() != nil || until.Err() == nil {
			return records, err
		}
		// No record came for so long. Are there none, or has the consumer not got them?
		end, err := w.conf.End(ctx, w.object.Partition)
		if err == nil && end <= w.seen {
			return nil, nil
		}
		if err != nil {
			w.conf.Log.WarnContext(ctx, "an object stays open, because the end of its partition is not known",
				"partition", w.object.Partition, "error", err)
		}
		w.idleAt = time.Now().Add(w.conf.Grace)
	}
	return w.partition.Next(ctx)
}

// add adds a record to the open object. Before that it closes an object that is full or whose window has ended.
func (w *writer) add(ctx context.Context, r *kgo.Record) error {
	control := r.Attrs.IsControl()
	for r.Offset >= w.begin && !control && w.spool != nil && w.full(r) {
		w.epoch = r.LeaderEpoch
		if err := w.close(ctx, r.Offset); err != nil {
			return err
		}
	}
	w.seen, w.epoch = r.Offset+1, r.LeaderEpoch
	if r.Offset < w.begin {
		if r.Offset == w.begin-1 { // the end of an object that was there
			w.partition.Handled(r)
		}
		return nil
	}
	if control {
		return nil
	}
	if w.spool == nil {
		if err := w.open(r); err != nil {
			return err
		}
	}
	w.object.Last = r.Offset
	// What passed since the record came has passed at the broker too. Its clock is not compared with this one.
	left := time.UnixMilli((w.window + 1) * w.conf.Window.Milliseconds()).Sub(r.Timestamp)
	w.idleAt = time.Now().Add(min(left, w.conf.Window) + w.conf.Grace)
	return w.spool.add(r)
}

// full reports whether a record begins the next object. That follows from the log alone.
func (w *writer) full(r *kgo.Record) bool {
	return w.spool.records >= w.conf.MaxRecords || w.spool.bytes+parquetlog.Size(r) > w.conf.MaxBytes ||
		w.windowOf(r) > w.window // a record of an earlier window stays in the object of its offset
}

func (w *writer) windowOf(r *kgo.Record) int64 {
	ms, length := r.Timestamp.UnixMilli(), w.conf.Window.Milliseconds()
	if ms < 0 { // no timestamp
		return -1
	}
	return ms / length
}

func (w *writer) open(r *kgo.Record) (err error) {
	if w.topicID == "" {
		return fmt.Errorf("the archive was not checked")
	}
	w.window = w.windowOf(r)
	w.object = parquetlog.Object{
		Topic: w.conf.Topic, TopicID: w.topicID, Partition: w.partition.Number(), Begin: w.begin, First: r.Offset,
	}
	if w.begin < 0 {
		w.object.Begin = r.Offset
	}
	w.spool, err = newSpool(w.conf.Dir, r.Timestamp)
	return err
}

// close stores the open object, of which end is the offset after it. If the archive has an object of that name, it is
// kept: the records behind its last are added to the next object.
func (w *writer) close(ctx context.Context, end int64) error {
	s := w.spool
	w.spool = nil
	defer s.close()
	w.object.End = end
	kept, err := w.create(ctx, s, w.object)
	if err != nil {
		return err
	}
	w.begin = kept.End
	if kept.End <= end {
		w.partition.Handled(&kgo.Record{
			Topic: w.partition.Topic(), Partition: kept.Partition, Offset: kept.End - 1, LeaderEpoch: w.epoch,
		})
	}
	if kept.Last >= w.object.Last {
		return nil
	}
	seen, epoch := w.seen, w.epoch
	for r, err := range s.all() {
		if err == nil {
			err = w.add(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	w.seen, w.epoch = seen, epoch // control records may have followed
	return nil
}

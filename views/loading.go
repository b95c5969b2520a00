package views

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"tidemark/kafka"
	"tidemark/kafka/localstore"
)

// A partitionStorage is what goka uses as the storage of a partition. While a partition that was empty is read up to
// the end of the changelog, its records go into a load. From then on each record is applied to the store.
type partitionStorage struct {
	*localstore.Partition
	table  *table
	number int32
	ctx    context.Context // of the view

	mu   sync.Mutex       // goka does not wait for MarkRecovered when the view ends
	load *localstore.Load // nil: there is none
}

// newStorage opens a partition for goka, and begins a load if the partition is empty.
func (t *table) newStorage(ctx context.Context, partition int32) (*partitionStorage, error) {
	opened, err := t.openPartition(partition)
	if err != nil {
		return nil, err
	}
	p := &partitionStorage{Partition: opened, table: t, number: partition, ctx: ctx}
	return p, p.beginLoad()
}

func (p *partitionStorage) beginLoad() (err error) {
	p.table.partitions[p.number].reading.begin()
	p.load, err = p.Load(p.table.kind.derive)
	return err
}

// apply is called for each record of the changelog. After an error goka asks for the offset, and reads from there.
func (p *partitionStorage) apply(offset int64, key string, value []byte) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.load == nil {
		err = p.table.update(p.number, offset, key, value)
	} else if err = p.table.addTo(p.load, p.number, offset, key, value); err != nil {
		err = errors.Join(err, p.load.Discard(), p.beginLoad())
	}
	if err != nil {
		p.log().WarnContext(p.ctx, "a record of the table could not be applied, it will be read again",
			"offset", offset, "error", err)
		return err
	}
	p.table.partitions[p.number].reading.noteRead(offset)
	return nil
}

// log is for errors that are returned to goka, which logs them for debugging only and tries again.
func (p *partitionStorage) log() *slog.Logger {
	return p.table.log.With("topic", p.table.topic.Name, "partition", p.number)
}

// addTo adds a record to a load, with the effect that update has.
func (t *table) addTo(load *localstore.Load, partition int32, offset int64, key string, value []byte) error {
	skipped := applied{skipped: skipPartition}
	version := int64(0)
	if kafka.FilePartition([]byte(key), t.topic.Partitions) == partition {
		version, skipped = t.kind.version(key, value)
	}
	if skipped.skipped != "" {
		t.skipped(skipped, partition, offset)
		load.Pass(offset)
		return nil
	}
	return load.Set(offset, version, []byte(key), value)
}

// GetOffset returns the offset of the last record that was read.
func (p *partitionStorage) GetOffset(none int64) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.load == nil:
		return p.Partition.GetOffset(none)
	case p.load.Offset() < 0:
		return none, nil
	}
	return p.load.Offset(), nil
}

// MarkRecovered is called by goka once the changelog is read to its end. It is also called when the view ends before;
// then the load is discarded. And it is called when sarama closes the channel of a partition early: then what was read
// is loaded, and the rest is applied record by record.
func (p *partitionStorage) MarkRecovered() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.load == nil {
		return nil
	}
	load, t := p.load, p.table
	p.load = nil
	finishing := &t.partitions[p.number].reading.finishing
	finishing.Store(true)
	defer finishing.Store(false)
	if err := load.Finish(p.ctx); err != nil {
		if p.ctx.Err() == nil {
			err = errors.Join(err, p.beginLoad())
			p.log().WarnContext(p.ctx, "the load of a partition failed, it starts over", "error", err)
		}
		return fmt.Errorf("load %s/%d: %w", t.topic.Name, p.number, err)
	}
	if load.Offset() >= 0 {
		t.frontiers[p.number].apply(load.Offset()+1, nil)
		t.rows.notifyAll()
		t.changes.notifyAll()
	}
	return nil
}

// Close discards a load that is not finished.
func (p *partitionStorage) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.load == nil {
		return nil
	}
	load := p.load
	p.load = nil
	return load.Discard()
}

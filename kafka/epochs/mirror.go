package epochs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// A Mirror is an output topic that is compacted like the table: the last record of a key must be that of the row's
// newest version. A zombie may append an output of an older row after its successor's, and compaction would keep that
// one. So the successor reads the records that it did not write itself, and sends its row's record again where an older
// one or a null follows it. Transactions fence zombies, but not other writers.
type Mirror struct {
	Topic string // with as many partitions as the table
	// Older reports whether a record of the topic is of an older version than the row. A record that cannot be decoded
	// is not.
	Older func(record, row []byte) bool
	// Record returns the record that the row's last event gave.
	Record func(row []byte) ([]byte, error)
}

// An owner checks the mirror once a second, and a zombie has at most maxUnacked outputs that are not acknowledged. So
// records that a dead owner did not check are among the last few thousand. Records of other writers, appended while no
// owner runs, are checked as far back as that.
const (
	checkInterval = time.Second
	checkTimeout  = 6 * time.Second // of one request
	maxScanBack   = 4 * maxUnacked
)

// A mirrorEnd tracks the end of one partition of a mirror by the acknowledgements of its owner. When offsets are
// missing among these, the records there are foreign: of a zombie or another writer.
type mirrorEnd struct {
	mu            sync.Mutex
	next          int64            // the offset after the newest known record; -1: not known
	foreign       []committed.Span // offsets below next that are not ours and are not checked yet, ascending
	markerPending bool             // the newest record is of our committed transaction, whose marker follows it
}

// acknowledged notes the offset of one of our records. Acknowledgements come in offset order.
func (e *mirrorEnd) acknowledged(offset int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.markerPending && offset == e.next+1 {
		e.next++ // the marker: it is written before the next transaction's records
	}
	e.markerPending = false
	e.addForeign(offset)
	e.next = max(e.next, offset+1)
}

// transactionCommitted notes the commit of a transaction with records in the partition.
func (e *mirrorEnd) transactionCommitted() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.markerPending = true
}

// observed notes the end of the partition as a broker returned it while none of our records is in flight.
func (e *mirrorEnd) observed(end int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.markerPending && end <= e.next+1 {
		return // at most the marker was appended, or a foreign record, which is noticed once the marker is appended too
	}
	e.markerPending = false
	e.addForeign(end)
	e.next = max(e.next, end)
}

// addForeign notes that the unknown offsets below one are not ours; e.mu is locked.
func (e *mirrorEnd) addForeign(below int64) {
	from := e.next
	if from < 0 {
		from = max(0, below-maxScanBack)
	}
	if from < below {
		e.foreign = append(e.foreign, committed.Span{From: from, To: below})
	}
}

// takeForeign returns and drops the offsets to check, and returns the known end.
func (e *mirrorEnd) takeForeign() (foreign []committed.Span, next int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	foreign, e.foreign = e.foreign, nil
	return foreign, e.next
}

// restoreForeign puts back offsets that could not be checked.
func (e *mirrorEnd) restoreForeign(foreign []committed.Span) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.foreign = append(foreign, e.foreign...)
}

// hasForeign reports whether there are offsets to check.
func (e *mirrorEnd) hasForeign() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.foreign) > 0
}

// A mirrorState is what a partition's owner knows of the partition of the mirror. All but end is guarded by the
// partition's mu.
type mirrorState struct {
	end         mirrorEnd
	sent, acked int
	ownOffsets  map[string]int64 // during a scan: the offsets of our records since it began, by key
}

// noteSent notes that a record is sent.
func (r *mirrorState) noteSent(key []byte) {
	r.sent++
	if r.ownOffsets != nil {
		r.ownOffsets[string(key)] = math.MaxInt64 // it will be appended behind the known end
	}
}

// noteAcked notes the offset of a record.
func (r *mirrorState) noteAcked(key []byte, offset int64) {
	r.acked++
	r.end.acknowledged(offset)
	if r.ownOffsets != nil {
		r.ownOffsets[string(key)] = offset
	}
}

// isMirrorRecord reports whether an output is a record of the mirror.
func (p *partitionEpochs) isMirrorRecord(r *kgo.Record) bool {
	return p.conf.Mirror != nil && r.Topic == p.conf.Mirror.Topic
}

// mirrorAcknowledged notes the offset of an output, if it is a record of the mirror.
func (p *partitionEpochs) mirrorAcknowledged(r *kgo.Record, offset int64) {
	if p.isMirrorRecord(r) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mirror.noteAcked(r.Key, offset)
	}
}

// A foreignWriteDetector checks the mirror of the partitions that this instance owns, and repairs it.
type foreignWriteDetector struct {
	open       opener
	explained  func(topic string, err error) error
	mirror     *Mirror
	log        *slog.Logger
	partitions func() []*partitionEpochs
	cancel     context.CancelFunc
	done       chan struct{}
}

func startForeignWriteDetector(conf Config, open opener, partitions func() []*partitionEpochs) (*foreignWriteDetector,
	error,
) {
	client, err := open(kgo.RetryTimeout(checkTimeout))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &foreignWriteDetector{
		open: open, explained: conf.Cluster.Explained, mirror: conf.Mirror, log: conf.Log,
		partitions: partitions, cancel: cancel, done: make(chan struct{}),
	}
	go d.run(ctx, client)
	return d, nil
}

func (d *foreignWriteDetector) close() {
	if d == nil {
		return
	}
	d.cancel()
	<-d.done
}

func (d *foreignWriteDetector) run(ctx context.Context, client *kgo.Client) {
	defer close(d.done)
	defer client.Close()
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := d.check(ctx, kadm.NewClient(client)); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "cannot check the records of other writers, trying again", "topic", d.mirror.Topic,
				"error", err)
		}
	}
}

// check reads the foreign records, and repairs the keys whose last record is older than the row.
func (d *foreignWriteDetector) check(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	owned := map[int32]*partitionEpochs{}
	for _, p := range d.partitions() {
		if p.recovered.Load() {
			owned[p.store.Number()] = p
		}
	}
	if len(owned) == 0 {
		return nil
	}
	ends, err := admin.ListEndOffsets(ctx, d.mirror.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return d.explained(d.mirror.Topic, fmt.Errorf("look up the end of %s: %w", d.mirror.Topic, err))
	}
	var scans []*repairScan
	ends.Each(func(end kadm.ListedOffset) {
		p := owned[end.Partition]
		if p == nil {
			return
		}
		if p.idle() { // else the next acknowledgement shows missing offsets
			p.mirror.end.observed(end.Offset)
		}
		if p.mirror.end.hasForeign() {
			scans = append(scans, p.startScan())
		}
	})
	for _, s := range scans {
		defer s.close()
	}
	return d.scan(ctx, scans)
}

func (d *foreignWriteDetector) scan(ctx context.Context, scans []*repairScan) error {
	spans, byPartition := committed.Spans{}, map[int32]*repairScan{}
	for _, s := range scans {
		if err := s.takeForeign(ctx); err != nil {
			return err
		}
		number := s.partition.store.Number()
		spans[number] = committed.Span{From: s.foreign[0].From, To: s.next}
		byPartition[number] = s
	}
	open := func(more ...kgo.Opt) (*kgo.Client, error) {
		return d.open(append(more, kgo.RetryTimeout(checkTimeout))...)
	}
	err := committed.Read(ctx, open, d.mirror.Topic, spans, func(r *kgo.Record) error {
		byPartition[r.Partition].lastRecords[string(r.Key)] = r // compaction keeps the last record of a key
		return nil
	})
	if failed, ok := errors.AsType[*committed.FetchError](err); ok {
		return d.explained(d.mirror.Topic, failed)
	}
	if err != nil {
		return err
	}
	for _, s := range scans {
		if err := s.repair(); err != nil {
			return err
		}
	}
	return nil
}

// idle reports that no output is in flight.
func (p *partitionEpochs) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unacked == 0
}

// A repairScan reads the foreign records of one partition of the mirror once, and repairs it.
type repairScan struct {
	partition   *partitionEpochs
	sent        int              // how many of our records were sent when it began
	foreign     []committed.Span // offsets to check
	next        int64
	lastRecords map[string]*kgo.Record // by key
	done        bool
}

// startScan begins to note the records that are sent to the mirror meanwhile: they are appended behind the scanned
// offsets.
func (p *partitionEpochs) startScan() *repairScan {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mirror.ownOffsets = map[string]int64{}
	return &repairScan{partition: p, sent: p.mirror.sent, lastRecords: map[string]*kgo.Record{}}
}

// takeForeign waits until all records that were sent before are acknowledged, and takes the offsets to check.
func (s *repairScan) takeForeign(ctx context.Context) error {
	for {
		s.partition.mu.Lock()
		acked, err := s.partition.mirror.acked, s.partition.err
		s.partition.mu.Unlock()
		if acked >= s.sent || err != nil { // a partition that has failed is checked by its next owner
			s.foreign, s.next = s.partition.mirror.end.takeForeign()
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isForeign reports whether an offset is of a record that we did not write.
func (s *repairScan) isForeign(offset int64) bool {
	return slices.ContainsFunc(s.foreign,
		func(span committed.Span) bool { return span.From <= offset && offset < span.To })
}

// repair repairs the keys whose last record is foreign.
func (s *repairScan) repair() error {
	for _, key := range slices.Sorted(maps.Keys(s.lastRecords)) {
		if r := s.lastRecords[key]; s.isForeign(r.Offset) {
			if err := s.partition.repair(key, r.Offset, r.Value); err != nil {
				return err
			}
		}
	}
	s.done = true
	return nil
}

// close ends the scan. Offsets that it took and did not check are checked again.
func (s *repairScan) close() {
	s.partition.mu.Lock()
	s.partition.mirror.ownOffsets = nil
	s.partition.mu.Unlock()
	if !s.done {
		s.partition.mirror.end.restoreForeign(s.foreign)
	}
}

// repair sends the mirror's record of a row again when the foreign one at an offset is older or a null, and ours does
// not follow it.
func (p *partitionEpochs) repair(key string, offset int64, value []byte) error {
	if p.enter() != nil {
		return nil // failed or closed: the next owner checks
	}
	defer p.gate.Unlock()
	p.mu.Lock()
	ours, sent := p.mirror.ownOffsets[key]
	p.mu.Unlock()
	if sent && ours > offset {
		return nil
	}
	row, err := p.current(key)
	if err != nil {
		return err
	}
	m := p.conf.Mirror
	if row == nil || value != nil && !m.Older(value, row) {
		return nil
	}
	record, err := m.Record(row)
	if err != nil {
		return err
	}
	p.conf.Metrics.outputRewritten()
	ignore := func(*sarama.ProducerMessage, error) *goka.Promise { return nil } // an error fails the partition
	p.output(&kgo.Record{Topic: m.Topic, Partition: p.store.Number(), Key: []byte(key), Value: record}, ignore)
	return nil
}

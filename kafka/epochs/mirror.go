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

// A Mirror is an output topic that is compacted like the table: the last record of a key, which is a row's, is to tell of the
// row's newest version. An owner that was paused and wakes may append an output of an older row after its successor's, and
// compaction would keep that one. So the successor looks at whatever it did not write itself, and sends its row's record again
// where an older one has come after it. Transactions fence such an owner, but not other writers, whose older records and nulls are
// answered in the same way.
type Mirror struct {
	Topic string // with as many partitions as the table
	// Older says that a record of the topic tells of an older version than the row. What cannot be read is not older.
	Older func(record, row []byte) bool
	// Record makes the record that the row's last event gave.
	Record func(row []byte) ([]byte, error)
}

// How much of the others' records is looked at. An owner looks once a second, and one that sleeps has no more than maxUnacked
// outputs in hand: so what a dead owner has not looked at lies among the last few thousand. What other writers append while no owner
// runs is looked at as far back as that.
const (
	checkInterval = time.Second
	checkTimeout  = 6 * time.Second // of one question
	maxScanBack   = 4 * maxUnacked
)

// An edge is the end of one partition of a mirror, as its owner knows it. Only the owner writes there, unless another was paused
// and has not noticed yet that it lost the partition: then offsets are missing from those that are acknowledged.
type mirrorEnd struct {
	mu            sync.Mutex
	next          int64            // the offset after the newest that is known; -1 at first
	foreign       []committed.Span // offsets below next that are not ours and were not looked at yet, ascending
	markerPending bool             // the newest record is of a transaction of ours, whose marker lands after it
}

// landed notes that a record of ours was acknowledged. Acknowledgements come in the order of their offsets.
func (e *mirrorEnd) acknowledged(offset int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.markerPending && offset == e.next+1 {
		e.next++ // the marker lies in between, since it lands before the next transaction's records
	}
	e.markerPending = false
	e.addForeign(offset)
	e.next = max(e.next, offset+1)
}

// committed notes that a transaction of ours with records in the partition is committed.
func (e *mirrorEnd) transactionCommitted() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.markerPending = true
}

// ended notes where the partition ends while nothing of ours is on its way.
func (e *mirrorEnd) observed(end int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.markerPending && end <= e.next+1 {
		return // only the marker has landed since, or another's record that shows once the marker lands too
	}
	e.markerPending = false
	e.addForeign(end)
	e.next = max(e.next, end)
}

// foreign notes that what is not known below an offset is not ours; e.mu is held.
func (e *mirrorEnd) addForeign(below int64) {
	from := e.next
	if from < 0 {
		from = max(0, below-maxScanBack)
	}
	if from < below {
		e.foreign = append(e.foreign, committed.Span{From: from, To: below})
	}
}

// take returns what is to be looked at and forgets it, and the known end.
func (e *mirrorEnd) takeForeign() (others []committed.Span, next int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	others, e.foreign = e.foreign, nil
	return others, e.next
}

// restore puts back what could not be looked at.
func (e *mirrorEnd) restoreForeign(others []committed.Span) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.foreign = append(others, e.foreign...)
}

// suspicious says whether there is anything to look at.
func (e *mirrorEnd) hasForeign() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.foreign) > 0
}

// reflections are what a partition's owner knows of its own records in the mirror. All but the edge is guarded by the
// partition's mu.
type mirrorState struct {
	end         mirrorEnd
	sent, acked int
	ownOffsets  map[string]int64 // while others' records are looked at: where ours landed meanwhile, by key
}

// send notes a record on its way.
func (r *mirrorState) noteSent(key []byte) {
	r.sent++
	if r.ownOffsets != nil {
		r.ownOffsets[string(key)] = math.MaxInt64 // wherever it lands, it will be behind what is known
	}
}

// land notes where one landed.
func (r *mirrorState) noteAcked(key []byte, offset int64) {
	r.acked++
	r.end.acknowledged(offset)
	if r.ownOffsets != nil {
		r.ownOffsets[string(key)] = offset
	}
}

// mirrors says whether an output is a record of the mirror.
func (p *partitionEpochs) isMirrorRecord(r *kgo.Record) bool {
	return p.conf.Mirror != nil && r.Topic == p.conf.Mirror.Topic
}

// reflect notes where an output landed, if it is a record of the mirror.
func (p *partitionEpochs) mirrorAcknowledged(r *kgo.Record, offset int64) {
	if p.isMirrorRecord(r) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mirror.noteAcked(r.Key, offset)
	}
}

// A lookout keeps the mirror of the partitions that this instance owns.
type foreignWriteDetector struct {
	open       opener
	explained  func(topic string, err error) error
	mirror     *Mirror
	log        *slog.Logger
	partitions func() []*partitionEpochs
	cancel     context.CancelFunc
	done       chan struct{}
}

func startForeignWriteDetector(conf Config, open opener, partitions func() []*partitionEpochs) (*foreignWriteDetector, error) {
	client, err := open(kgo.RetryTimeout(checkTimeout))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &foreignWriteDetector{open: open, explained: conf.Cluster.Explained, mirror: conf.Mirror, log: conf.Log, partitions: partitions, cancel: cancel, done: make(chan struct{})}
	go l.run(ctx, client)
	return l, nil
}

func (l *foreignWriteDetector) close() {
	if l == nil {
		return
	}
	l.cancel()
	<-l.done
}

func (l *foreignWriteDetector) run(ctx context.Context, client *kgo.Client) {
	defer close(l.done)
	defer client.Close()
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := l.check(ctx, kadm.NewClient(client)); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "cannot look at what others wrote, trying again", "topic", l.mirror.Topic, "error", err)
		}
	}
}

// look reads what others wrote, and mends what is older than its row.
func (l *foreignWriteDetector) check(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	owned := map[int32]*partitionEpochs{}
	for _, p := range l.partitions() {
		if p.recovered.Load() {
			owned[p.store.Number()] = p
		}
	}
	if len(owned) == 0 {
		return nil
	}
	ends, err := admin.ListEndOffsets(ctx, l.mirror.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return l.explained(l.mirror.Topic, fmt.Errorf("look up the end of %s: %w", l.mirror.Topic, err))
	}
	var looks []*repairScan
	ends.Each(func(end kadm.ListedOffset) {
		p := owned[end.Partition]
		if p == nil {
			return
		}
		if p.idle() { // else the next acknowledgement tells
			p.mirror.end.observed(end.Offset)
		}
		if p.mirror.end.hasForeign() {
			looks = append(looks, p.startScan())
		}
	})
	for _, look := range looks {
		defer look.close()
	}
	return l.scan(ctx, looks)
}

func (l *foreignWriteDetector) scan(ctx context.Context, looks []*repairScan) error {
	spans, of := committed.Spans{}, map[int32]*repairScan{}
	for _, look := range looks {
		if err := look.takeForeign(ctx); err != nil {
			return err
		}
		spans[look.partition.store.Number()] = committed.Span{From: look.foreign[0].From, To: look.next}
		of[look.partition.store.Number()] = look
	}
	open := func(more ...kgo.Opt) (*kgo.Client, error) {
		return l.open(append(more, kgo.RetryTimeout(checkTimeout))...)
	}
	err := committed.Read(ctx, open, l.mirror.Topic, spans, func(r *kgo.Record) error {
		of[r.Partition].lastRecords[string(r.Key)] = r // only the last record of a key is kept for good
		return nil
	})
	if failed, ok := errors.AsType[*committed.FetchError](err); ok {
		return l.explained(l.mirror.Topic, failed)
	}
	if err != nil {
		return err
	}
	for _, look := range looks {
		if err := look.repair(); err != nil {
			return err
		}
	}
	return nil
}

// idle says that no output is on its way.
func (p *partitionEpochs) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unacked == 0
}

// An inspection is one look at what others wrote to a partition of the mirror.
type repairScan struct {
	partition   *partitionEpochs
	sent        int              // of our records, when it began
	foreign     []committed.Span // what others wrote, none of it looked at yet
	next        int64
	lastRecords map[string]*kgo.Record // by key
	done        bool
}

// inspect begins to note what is sent to the mirror meanwhile: it lands behind what is looked at.
func (p *partitionEpochs) startScan() *repairScan {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mirror.ownOffsets = map[string]int64{}
	return &repairScan{partition: p, sent: p.mirror.sent, lastRecords: map[string]*kgo.Record{}}
}

// begin waits until all that was sent before has landed, and takes what is to be looked at.
func (i *repairScan) takeForeign(ctx context.Context) error {
	for {
		i.partition.mu.Lock()
		landed, err := i.partition.mirror.acked, i.partition.err
		i.partition.mu.Unlock()
		if landed >= i.sent || err != nil { // a partition that is given up is the next owner's to look at
			i.foreign, i.next = i.partition.mirror.end.takeForeign()
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// foreign says whether an offset is of a record that we did not write.
func (i *repairScan) isForeign(offset int64) bool {
	return slices.ContainsFunc(i.foreign, func(s committed.Span) bool { return s.From <= offset && offset < s.To })
}

// mend sends the mirror's record of a row again where an older one of another owner, or a null, has come after it.
func (i *repairScan) repair() error {
	for _, key := range slices.Sorted(maps.Keys(i.lastRecords)) {
		if r := i.lastRecords[key]; i.isForeign(r.Offset) {
			if err := i.partition.repair(key, r.Offset, r.Value); err != nil {
				return err
			}
		}
	}
	i.done = true
	return nil
}

// end stops noting. What was taken and not looked at is to be looked at again.
func (i *repairScan) close() {
	i.partition.mu.Lock()
	i.partition.mirror.ownOffsets = nil
	i.partition.mu.Unlock()
	if !i.done {
		i.partition.mirror.end.restoreForeign(i.foreign)
	}
}

// mend sends the mirror's record of a row again when the one at an offset is older or a null, and ours has not come after it.
func (p *partitionEpochs) repair(key string, offset int64, value []byte) error {
	if p.enter() != nil {
		return nil // given up, or about to be: the next owner looks
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
	nobody := func(*sarama.ProducerMessage, error) *goka.Promise { return nil } // when it fails, so does the partition
	p.output(&kgo.Record{Topic: m.Topic, Partition: p.store.Number(), Key: []byte(key), Value: record}, nobody)
	return nil
}

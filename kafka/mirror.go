package kafka

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Mirror is an output topic that is compacted like the table: the last record of a key, which is a row's, is to tell of the
// row's newest version. An owner that was paused and wakes may append an output of an older row after its successor's, and
// compaction would keep that one. So the successor looks at whatever it did not write itself, and sends its row's record again
// where an older one has come after it. Transactions fence such an owner, so with ExactlyOnce nobody looks.
type Mirror struct {
	Topic string // with as many partitions as the table
	// Older says that a record of the topic tells of an older version than the row. What cannot be read is not older.
	Older func(record, row []byte) bool
	// Record makes the record that the row's last event gave.
	Record func(row []byte) ([]byte, error)
}

// How much of the others' records is looked at. An owner looks once a second, and one that sleeps has no more than maxUnacked
// outputs in hand: so what a dead owner has not looked at lies among the last few thousand.
const (
	lookEvery = time.Second
	lookBack  = 4 * maxUnacked
)

// An edge is the end of one partition of a mirror, as its owner knows it. Only the owner writes there, unless another was paused
// and has not noticed yet that it lost the partition: then offsets are missing from those that are acknowledged.
type edge struct {
	mu   sync.Mutex
	next int64 // the offset after the newest that is known; -1 until the end was asked for
	gap  int64 // the first offset that another may have written, to be looked at; -1 when there is none
}

func unknownEdge() edge { return edge{next: -1, gap: -1} }

// landed notes that a record of ours was acknowledged.
func (e *edge) landed(offset int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next < 0 || offset < e.next {
		return
	}
	if offset > e.next {
		e.suspect(e.next)
	}
	e.next = offset + 1
}

// ended notes where the partition ends while nothing of ours is on its way.
func (e *edge) ended(end int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next < 0 {
		e.next = max(0, end-lookBack)
	}
	if end > e.next {
		e.suspect(e.next)
		e.next = end
	}
}

func (e *edge) suspect(from int64) {
	if e.gap < 0 || from < e.gap {
		e.gap = from
	}
}

// take returns what is to be looked at, up to the end: what is ours there tells which of the others' records are passed.
func (e *edge) take() Span {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gap < 0 {
		return Span{}
	}
	span := Span{e.gap, e.next}
	e.gap = -1
	return span
}

// restore puts back what could not be read.
func (e *edge) restore(span Span) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.suspect(span.From)
}

// A lookout keeps the mirror of the partitions that this instance owns.
type lookout struct {
	conf       Config
	mirror     *Mirror
	log        *slog.Logger
	partitions func() []*partitionEpochs
	cancel     context.CancelFunc
	done       chan struct{}
}

func startLookout(c Config, mirror *Mirror, log *slog.Logger, partitions func() []*partitionEpochs) (*lookout, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &lookout{conf: c, mirror: mirror, log: log, partitions: partitions, cancel: cancel, done: make(chan struct{})}
	go l.run(ctx, a)
	return l, nil
}

func (l *lookout) close() {
	if l == nil {
		return
	}
	l.cancel()
	<-l.done
}

func (l *lookout) run(ctx context.Context, a *admin) {
	defer close(l.done)
	defer a.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := l.look(ctx, a); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "cannot look at what others wrote, trying again", "topic", l.mirror.Topic, "error", err)
		}
	}
}

// look reads what lies in the gaps, and mends what is older than its row.
func (l *lookout) look(ctx context.Context, a *admin) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	owned := map[int32]*partitionEpochs{}
	for _, p := range l.partitions() {
		if p.recovered.Load() {
			owned[p.shelf.partition] = p
		}
	}
	if len(owned) == 0 {
		return nil
	}
	ends, err := a.ListEndOffsets(ctx, l.mirror.Topic)
	if err = a.lookedUp(l.mirror.Topic, ends, err); err != nil {
		return err
	}
	gaps := Spans{}
	ends.Each(func(end kadm.ListedOffset) {
		if p := owned[end.Partition]; p != nil {
			if p.idle() { // else the next acknowledgement tells
				p.edge.ended(end.Offset)
			}
			if gap := p.edge.take(); gap.From < gap.To {
				gaps[end.Partition] = gap
			}
		}
	})
	type place struct {
		partition int32
		key       string
	}
	last := map[place][]byte{} // only the last record of a key is kept for good
	err = Read(ctx, l.conf, l.mirror.Topic, gaps, func(r *kgo.Record) error {
		last[place{r.Partition, string(r.Key)}] = r.Value
		return nil
	})
	if err != nil {
		for partition, gap := range gaps {
			owned[partition].edge.restore(gap)
		}
		return err
	}
	for at, value := range last {
		if err := owned[at.partition].mend(at.key, value); err != nil {
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

// mend sends the mirror's record of a row again when an older one has come after it. A null is left as it is: somebody's hand
// has deleted there.
func (p *partitionEpochs) mend(key string, value []byte) error {
	if value == nil {
		return nil
	}
	if p.enter() != nil {
		return nil // given up, or about to be: the next owner looks
	}
	defer p.gate.Unlock()
	row, err := p.current(key)
	if err != nil {
		return err
	}
	m := p.conf.Mirror
	if row == nil || !m.Older(value, row) {
		return nil
	}
	record, err := m.Record(row)
	if err != nil {
		return err
	}
	p.conf.Metrics.mended()
	nobody := func(*sarama.ProducerMessage, error) *goka.Promise { return nil } // when it fails, so does the partition
	p.output(&kgo.Record{Topic: m.Topic, Partition: p.shelf.partition, Key: []byte(key), Value: record}, nobody)
	return nil
}

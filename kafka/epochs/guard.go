package epochs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// A Mirror is an output topic that is compacted like the table: the last record of a key must be that of the row's
// newest version. Transactions fence zombies, but not other writers.
type Mirror struct {
	Topic string // with as many partitions as the table
	// Older reports whether a record of the topic is of an older version than the row. A record that cannot be decoded
	// is not.
	Older func(record, row []byte) bool
	// Record returns the record that the row's last event gave.
	Record func(row []byte) ([]byte, error)
}

// A guard looks for foreign records in the table and its mirror, in the partitions that this instance owns, and repairs
// what they spoil. Compaction keeps the record of a key with the highest offset. That may be of an older row, because a
// zombie may append after its successor: every table that is recovered later would get the old row. So the successor
// reads the records that it did not write itself, and writes its own again where an older one or a null follows it.
// Another writer's null would delete the row from every table that is recovered later, but consumers of the outputs
// would still have what they made of it.
type guard struct {
	open       opener
	explained  func(topic string, err error) error
	topics     []guardedTopic
	log        *slog.Logger
	partitions func() []*partitionEpochs
	cancel     context.CancelFunc
	done       chan struct{}
}

// A guardedTopic is the table or its mirror.
type guardedTopic struct {
	name string
	log  func(p *partitionEpochs) *ownLog
	// repair appends our record of a key again, if a foreign value, or a null, is older than the row. The gate is
	// locked.
	repair func(p *partitionEpochs, key string, row, foreign []byte) error
}

const (
	checkInterval = time.Second
	checkTimeout  = 6 * time.Second // of one request
)

func startGuard(conf Config, open opener, partitions func() []*partitionEpochs) (*guard, error) {
	client, err := open(kgo.RetryTimeout(checkTimeout))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &guard{
		open: open, explained: conf.Cluster.Explained, topics: guardedTopics(conf), log: conf.Log,
		partitions: partitions, cancel: cancel, done: make(chan struct{}),
	}
	go g.run(ctx, client)
	return g, nil
}

func guardedTopics(conf Config) []guardedTopic {
	topics := []guardedTopic{{
		conf.Table, func(p *partitionEpochs) *ownLog { return &p.table }, (*partitionEpochs).repairTable,
	}}
	if conf.Mirror != nil {
		topics = append(topics, guardedTopic{
			conf.Mirror.Topic, func(p *partitionEpochs) *ownLog { return &p.mirror }, (*partitionEpochs).repairMirror,
		})
	}
	return topics
}

func (g *guard) close() {
	g.cancel()
	<-g.done
}

func (g *guard) run(ctx context.Context, client *kgo.Client) {
	defer close(g.done)
	defer client.Close()
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, topic := range g.topics {
			if err := g.check(ctx, kadm.NewClient(client), topic); err != nil && ctx.Err() == nil {
				g.log.WarnContext(ctx, "cannot check the records of other writers, trying again", "topic", topic.name,
					"error", err)
			}
		}
	}
}

// check reads the foreign records of a topic, and repairs the keys whose last record is older than the row.
func (g *guard) check(ctx context.Context, admin *kadm.Client, topic guardedTopic) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	owned := map[int32]*partitionEpochs{}
	for _, p := range g.partitions() {
		if p.recovered.Load() {
			owned[p.store.Number()] = p
		}
	}
	if len(owned) == 0 {
		return nil
	}
	ends, err := admin.ListEndOffsets(ctx, topic.name)
	if err != nil {
		return g.explained(topic.name, fmt.Errorf("look up the end of %s: %w", topic.name, err))
	}
	var scans []*foreignScan
	ends.Each(func(end kadm.ListedOffset) {
		if p := owned[end.Partition]; p != nil && end.Err == nil { // a partition with an error is checked later
			if s := startScan(p, topic, end.Offset); s != nil {
				scans = append(scans, s)
			}
		}
	})
	for _, s := range scans {
		defer s.close()
	}
	if err := g.scan(ctx, topic.name, scans); err != nil {
		return err
	}
	if err := ends.Error(); err != nil {
		return g.explained(topic.name, fmt.Errorf("look up the end of %s: %w", topic.name, err))
	}
	return nil
}

func (g *guard) scan(ctx context.Context, topic string, scans []*foreignScan) error {
	spans, byPartition := committed.Spans{}, map[int32]*foreignScan{}
	for _, s := range scans {
		if err := s.takeForeign(ctx); err != nil {
			return err
		}
		number := s.partition.store.Number()
		spans[number] = committed.Span{From: s.foreign[0].From, To: s.next}
		byPartition[number] = s
	}
	open := func(more ...kgo.Opt) (*kgo.Client, error) {
		return g.open(append(more, kgo.RetryTimeout(checkTimeout))...)
	}
	err := committed.Read(ctx, open, topic, spans, func(r *kgo.Record) error {
		byPartition[r.Partition].lastRecords[string(r.Key)] = r // compaction keeps the last record of a key
		return nil
	})
	if failed, ok := errors.AsType[*committed.FetchError](err); ok {
		return g.explained(topic, failed)
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

// A foreignScan reads the foreign records of one partition once, and repairs it.
type foreignScan struct {
	partition   *partitionEpochs
	topic       guardedTopic
	log         *ownLog
	sent        int              // how many of our records were sent when it began
	foreign     []committed.Span // offsets to check
	next        int64
	lastRecords map[string]*kgo.Record // by key
	checked     bool
}

// startScan returns nil when there is nothing to check, given the end of the partition.
func startScan(p *partitionEpochs, topic guardedTopic, end int64) *foreignScan {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := topic.log(p)
	if log.observed(end); len(log.foreign) == 0 {
		return nil
	}
	log.startScan()
	return &foreignScan{
		partition: p, topic: topic, log: log, sent: log.sent, lastRecords: map[string]*kgo.Record{},
	}
}

// takeForeign waits until all records that were sent before are acknowledged, and takes the offsets to check.
func (s *foreignScan) takeForeign(ctx context.Context) error {
	for {
		if s.taken() {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *foreignScan) taken() bool {
	s.partition.mu.Lock()
	defer s.partition.mu.Unlock()
	if s.log.acked < s.sent && s.partition.err == nil { // a partition that has failed is checked by its next owner
		return false
	}
	s.foreign, s.next = s.log.takeForeign()
	return true
}

// isForeign reports whether an offset is of a record that we did not write.
func (s *foreignScan) isForeign(offset int64) bool {
	return slices.ContainsFunc(s.foreign,
		func(span committed.Span) bool { return span.From <= offset && offset < span.To })
}

// repair repairs the keys whose last record is foreign.
func (s *foreignScan) repair() error {
	for _, key := range slices.Sorted(maps.Keys(s.lastRecords)) {
		if r := s.lastRecords[key]; s.isForeign(r.Offset) {
			if err := s.repairKey(key, r); err != nil {
				return err
			}
		}
	}
	s.checked = true
	return nil
}

// repairKey repairs one key, unless a record of ours follows the foreign one.
func (s *foreignScan) repairKey(key string, foreign *kgo.Record) error {
	p := s.partition
	if p.enter() != nil {
		return nil // failed or closed: the next owner checks
	}
	defer p.gate.Unlock()
	p.mu.Lock()
	followed := s.log.followed(key, foreign.Offset)
	p.mu.Unlock()
	if followed {
		return nil
	}
	row, err := p.current(key)
	if err != nil || row.value == nil {
		return err
	}
	return s.topic.repair(p, key, row.value, foreign.Value)
}

// close ends the scan.
func (s *foreignScan) close() {
	s.partition.mu.Lock()
	defer s.partition.mu.Unlock()
	s.log.endScan(s.checked)
}

func (p *partitionEpochs) repairTable(key string, row, foreign []byte) error {
	if foreign != nil && !p.conf.Older(foreign, row) {
		return nil
	}
	return p.rewrite(key, row)
}

// rewrite appends a row to the changelog again. The gate is locked.
func (p *partitionEpochs) rewrite(key string, row []byte) error {
	p.conf.Metrics.tableRewritten()
	err := p.set(key, row, nil)
	p.publisher.wake()
	return err
}

func (p *partitionEpochs) repairMirror(key string, row, foreign []byte) error {
	m := p.conf.Mirror
	if foreign != nil && !m.Older(foreign, row) {
		return nil
	}
	record, err := m.Record(row)
	if err != nil {
		return err
	}
	p.conf.Metrics.outputRewritten()
	p.output(&kgo.Record{Topic: m.Topic, Partition: p.store.Number(), Key: []byte(key), Value: record})
	p.publisher.wake()
	return nil
}

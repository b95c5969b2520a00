package epochs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/localstore"
)

// ownerHeader identifies the processor that wrote a table record. A null without it deletes nothing: see
// hasOwnerHeader.
const ownerHeader = "epochs-owner"

func newOwner() []byte {
	owner := make([]byte, 8)
	_, _ = rand.Read(owner) // never fails: see crypto/rand
	return owner
}

// A readback consumes the changelog partitions that this instance owns. Compaction keeps the record of a key with the
// highest offset, whose row may be older: a zombie may append an old row after its successor's new one. Every table
// that is recovered later would get the old row. So the successor looks for records that it did not write, and writes
// its row again when an older one follows it. It does the same after a null. Another writer's null would delete the row
// from every table that is recovered later, but consumers of the outputs would still have what they made of it.
type readback struct {
	client    *kgo.Client
	owner     []byte
	table     string
	log       *slog.Logger
	partition func(partition int32) *partitionEpochs
	cancel    context.CancelFunc
	done      chan struct{}
}

func startReadback(open opener, table string, owner []byte, log *slog.Logger,
	of func(int32) *partitionEpochs,
) (*readback, error) {
	client, err := open(kgo.FetchMaxWait(time.Second), kgo.FetchMaxBytes(8<<20),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &readback{
		client: client, owner: owner, table: table, log: log, partition: of, cancel: cancel,
		done: make(chan struct{}),
	}
	go r.run(ctx)
	return r, nil
}

// follow starts to read a partition at an offset; the records before it are recovered.
func (r *readback) follow(partition int32, from int64) {
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.table: {partition: kgo.NewOffset().At(from)}})
}

func (r *readback) unfollow(partition int32) {
	r.client.RemoveConsumePartitions(map[string][]int32{r.table: {partition}})
}

func (r *readback) close() {
	r.cancel()
	<-r.done
	r.client.Close()
}

func (r *readback) run(ctx context.Context) {
	defer close(r.done)
	for ctx.Err() == nil {
		fetches := r.client.PollFetches(ctx)
		fetches.EachError(func(topic string, partition int32, err error) {
			if ctx.Err() == nil {
				r.log.WarnContext(ctx, "cannot read the changelog back, trying again", "topic", topic, "partition",
					partition, "error", err)
			}
		})
		fetches.EachRecord(r.handle)
	}
}

// handle checks a record of the changelog, unless this owner wrote it, and notes how far the changelog was read back.
func (r *readback) handle(record *kgo.Record) {
	p := r.partition(record.Partition)
	if p == nil || !p.recovered.Load() {
		return
	}
	own := slices.ContainsFunc(record.Headers,
		func(h kgo.RecordHeader) bool { return h.Key == ownerHeader && bytes.Equal(h.Value, r.owner) })
	if !own {
		p.rewriteIfOlder(string(record.Key), record.Value)
	}
	p.readBackTo.Store(record.Offset + 1) // after the rewrite, which is in the open epoch now
}

// rewriteIfOlder writes the row of a key to the changelog again if the value, which another writer has appended, is a
// null or older than the row. It writes nothing if there is no row.
func (p *partitionEpochs) rewriteIfOlder(key string, value []byte) {
	p.gate.Lock()
	defer p.gate.Unlock()
	row, err := p.current(key)
	if err != nil {
		p.fail(err)
		return
	}
	if row == nil || value != nil && !p.conf.Older(value, row) {
		return
	}
	p.conf.Metrics.tableRewritten()
	if err := p.set(key, row); err == nil {
		p.wake()
	}
}

// hasOwnerHeader reports whether an owner, present or former, wrote a table record. Then a null is a callback's delete,
// which only ExactlyOnce allows.
func hasOwnerHeader(headers goka.Headers) bool {
	_, found := headers[ownerHeader]
	return found
}

// noteRecovered notes that a record of a key was recovered. If it is older than the row, or another writer's null, the
// row must be written again. A later record of the key that is neither makes that unnecessary.
func (p *partitionEpochs) noteRecovered(key string, older bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if older {
		p.pendingRewrites[key] = true
	} else if len(p.pendingRewrites) > 0 {
		delete(p.pendingRewrites, key)
	}
}

// pendingRewriteSpace has the keys whose rows must be written to the changelog again.
const pendingRewriteSpace localstore.Space = 0xfd

// loadPendingRewrites reads the keys that the last processor on this disk noted and did not rewrite. The stored offset
// is past the records that made it necessary, so they are not recovered again.
func (p *partitionEpochs) loadPendingRewrites() error {
	scan := p.store.Scan(pendingRewriteSpace, nil, nil)
	for scan.Next() {
		p.pendingRewrites[string(scan.Key())] = true
	}
	return errors.Join(scan.Err(), scan.Close())
}

// storePendingRewrite stores whether the row of a key must be written again, in the batch that writes the row.
func (p *partitionEpochs) storePendingRewrite(w *localstore.Writer, key string, older bool) {
	p.mu.Lock()
	noted := p.pendingRewrites[key]
	p.mu.Unlock()
	if older && !noted {
		w.Set(pendingRewriteSpace, []byte(key), nil)
	} else if noted && !older {
		w.Delete(pendingRewriteSpace, []byte(key))
	}
}

// writePendingRewrites writes the rows again that an earlier processor did not.
func (p *partitionEpochs) writePendingRewrites() error {
	p.mu.Lock()
	keys := slices.Sorted(maps.Keys(p.pendingRewrites))
	p.mu.Unlock()
	p.gate.Lock()
	defer p.gate.Unlock()
	for _, key := range keys {
		row, err := p.current(key)
		if err != nil {
			return err
		}
		p.conf.Metrics.tableRewritten()
		if err := p.set(key, row); err != nil {
			return err
		}
		p.wake()
	}
	return nil
}

package epochs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"tidemark/kafka/localstore"
)

// A recovery batch is written to the disk at this size.
const (
	recoveryRecords = 1000
	recoveryBytes   = 1 << 20
)

// applyRecovered takes a changelog record that goka recovers.
func (e *Epochs) applyRecovered(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
	p := e.partition(ctx.Partition())
	if p == nil {
		return fmt.Errorf("partition %d: %w", ctx.Partition(), errClosed)
	}
	return p.recover(key, value, ctx.Offset(), hasOwnerHeader(ctx.Headers()))
}

// recover sets a row that is published already, in an epoch that goes to the disk alone. A row that another writer's
// null follows is kept, and written to the changelog again once the table is recovered.
func (p *partitionEpochs) recover(key string, value []byte, offset int64, byOwner bool) error {
	before, err := p.current(key)
	if err != nil {
		return err
	}
	older := before.value != nil
	if value != nil {
		older = older && p.conf.Older(value, before.value)
	} else if byOwner {
		older = false
	}
	if changes := value != nil || byOwner; changes && !older {
		if p.conf.Index != nil {
			p.removedEntries, p.addedEntries = p.indexOf(key, before.value), p.indexOf(key, value)
		}
		if err := p.set(key, bytes.Clone(value), nil); err != nil { // a clone: the value is part of a fetched batch
			return err
		}
	}
	p.noteRecovered(key, older)
	p.mu.Lock()
	p.recoveredTo = offset
	p.recoveredRecords++
	p.progress.note(offset)
	full := p.recoveredRecords >= recoveryRecords || p.bufferedBytes >= recoveryBytes
	p.mu.Unlock()
	if full {
		return p.storeRecovered()
	}
	return nil
}

func (p *partitionEpochs) indexOf(key string, row []byte) []string {
	if row == nil {
		return nil
	}
	return p.conf.Index(key, row)
}

// storeRecovered writes what is recovered so far to the disk.
func (p *partitionEpochs) storeRecovered() error {
	p.mu.Lock()
	e, offset, records := p.open, p.recoveredTo, p.recoveredRecords
	if records == 0 {
		p.mu.Unlock()
		return nil
	}
	p.recoveredRecords = 0
	p.open, p.publishingRows = newEpoch(), e.rows
	p.open.recovery = true
	p.mu.Unlock()
	return p.storeRows(e, offset)
}

// startPartition is called once, before the first record of a partition from any input. Its rows are recovered up to
// the end of the changelog. goka's MarkRecovered is not used: it is also called when the session ended meanwhile.
func (e *Epochs) startPartition(p *partitionEpochs) {
	if err := p.start(); err != nil {
		p.fail(err)
	}
}

func (p *partitionEpochs) start() error {
	if err := p.storeRecovered(); err != nil {
		return err
	}
	offset, err := p.store.GetOffset(-1)
	if err != nil {
		return err
	}
	p.raiseChangelogEnd(offset + 1)
	p.mu.Lock()
	p.open.recovery = false
	p.table.next = offset + 1
	p.mu.Unlock()
	p.recovered.Store(true)
	return p.writePendingRewrites()
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
	p.setPending(key, older)
}

// setPending sets whether the row of a key must be written again; p.mu is locked.
func (p *partitionEpochs) setPending(key string, pending bool) {
	if p.pendingRewrites[key] == pending {
		return
	}
	if pending {
		p.pendingRewrites[key] = true
	} else {
		delete(p.pendingRewrites, key)
	}
	p.pendingChanged[key] = pending
}

// takePendingChanged returns the changes of pendingRewrites that go to the disk with an epoch. The rows of an epoch
// that is published are not pending any more.
func (p *partitionEpochs) takePendingChanged(e *epoch) map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.recovery && len(p.pendingRewrites) > 0 {
		for _, r := range e.rows {
			p.setPending(r.key, false)
		}
	}
	changed := p.pendingChanged
	if len(changed) > 0 {
		p.pendingChanged = map[string]bool{}
	}
	return changed
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

// storePendingRewrites stores which keys must be written again, in the batch that writes the rows.
func storePendingRewrites(w *localstore.Writer, changed map[string]bool) {
	for key, pending := range changed {
		if pending {
			w.Set(pendingRewriteSpace, []byte(key), nil)
		} else {
			w.Delete(pendingRewriteSpace, []byte(key))
		}
	}
}

// writePendingRewrites writes the rows again that an earlier processor did not.
func (p *partitionEpochs) writePendingRewrites() error {
	p.mu.Lock()
	keys := slices.Sorted(maps.Keys(p.pendingRewrites))
	p.mu.Unlock()
	for _, key := range keys {
		if err := p.writePendingRewrite(key); err != nil {
			return err
		}
	}
	return nil
}

func (p *partitionEpochs) writePendingRewrite(key string) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.gate.Unlock()
	row, err := p.current(key)
	if err != nil {
		return err
	}
	return p.rewrite(key, row.value)
}

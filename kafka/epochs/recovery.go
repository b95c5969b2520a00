package epochs

import (
	"errors"
	"maps"
	"slices"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"tidemark/kafka/localstore"
)

// applyRecovered writes a changelog record that goka recovers to the disk: it is published already. A row that another
// writer's null follows is kept, and written to the changelog again once the table is recovered.
func (e *Epochs) applyRecovered(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
	older, p := false, e.partition(ctx.Partition())
	err := e.store.Update(ctx.Partition(), ctx.Offset(), func(w *localstore.Writer) error {
		stored, err := w.Get(localstore.Rows, []byte(key))
		if err != nil {
			return err
		}
		switch {
		case value == nil && hasOwnerHeader(ctx.Headers()):
			w.Delete(localstore.Rows, []byte(key))
			e.conf.recoverIndex(w, key, stored, nil)
		case value == nil:
			older = stored != nil
		default:
			if older = stored != nil && e.conf.Older(value, stored); !older {
				w.Set(localstore.Rows, []byte(key), value)
				e.conf.recoverIndex(w, key, stored, value)
			}
		}
		if p != nil {
			p.storePendingRewrite(w, key, older)
		}
		return nil
	})
	if p != nil && err == nil {
		p.noteRecovered(key, older)
	}
	return err
}

// startPartition is called once, before the first record of a partition from any input. Its rows are recovered up to
// the end of the changelog. goka's MarkRecovered is not used: it is also called when the session ended meanwhile.
func (e *Epochs) startPartition(p *partitionEpochs) {
	offset, err := p.store.GetOffset(-1)
	if err == nil {
		p.raiseChangelogEnd(offset + 1)
		p.mu.Lock()
		p.table.next = offset + 1
		p.mu.Unlock()
		p.recovered.Store(true)
		err = p.writePendingRewrites()
	}
	if err != nil {
		p.fail(err)
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
		if err := p.rewrite(key, row.value); err != nil {
			return err
		}
	}
	return nil
}

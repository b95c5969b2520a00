package epochs

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/lovoo/goka"

	"tidemark/kafka/localstore"
)

// Rows gives a callback the other rows of its partition, as they are after all callbacks before it. They may hold more than that
// after a restart: rows of inputs that are processed again. So what is read here must not go into a row, whose repeated fold has
// to give the same bytes; it may decide what is emitted to an input.
type Rows struct{ of *partitionEpochs }

// RowsOf returns the rows of the partition that a callback runs in; it must have been given to Epochs.Callback.
func RowsOf(ctx goka.Context) Rows { return Rows{ctx.(*gatedContext).epochs} }

// Get returns a row, nil when there is none. After an error nothing of the callback is published.
func (r Rows) Get(key string) ([]byte, error) {
	row, err := r.of.current(key)
	if err != nil {
		r.of.fail(err)
	}
	return row, err
}

// Find returns the entries of Config.Index that begin with prefix and come after another entry, in their order, at most limit of
// them; more says that there may be more. After an error nothing of the callback is published.
func (r Rows) Find(prefix, after string, limit int) (found []string, more bool, err error) {
	if found, more, err = r.of.find(prefix, after, limit); err != nil {
		r.of.fail(err)
	}
	return found, more, err
}

// indexed is the space of the entries of Config.Index. They have no value.
const indexSpace localstore.Space = 0xfc

// indexLayout is part of what a store is pinned to when there is an index: a store without one is rebuilt.
const indexLayout = "/index-1"

// Reindex says how the entries change with the row that the callback sets next.
func (r Rows) Reindex(gone, added []string) { r.of.removedEntries, r.of.addedEntries = gone, added }

// reindex notes how the entries change with a row that is held; p.mu and the gate are held. Until it is on the disk, so are those of
// the rows of its key that were held before it.
func (p *partitionEpochs) reindex(r, before *row) {
	if before != nil {
		r.indexChanges = before.indexChanges
	}
	if len(p.removedEntries)+len(p.addedEntries) == 0 {
		return
	}
	if r.indexChanges = maps.Clone(r.indexChanges); r.indexChanges == nil { // those of the other may be on their way to the disk
		r.indexChanges = map[string]bool{}
	}
	for _, entry := range p.removedEntries {
		r.indexChanges[entry] = false
	}
	for _, entry := range p.addedEntries {
		r.indexChanges[entry] = true
	}
	p.removedEntries, p.addedEntries = nil, nil
}

// storeIndex writes the entries that change with a row.
func storeIndex(w *localstore.Writer, entries map[string]bool) {
	for entry, there := range entries {
		if there {
			w.Set(indexSpace, []byte(entry), nil)
		} else {
			w.Delete(indexSpace, []byte(entry))
		}
	}
}

// recoverIndex writes the entries of a row that was read from the changelog and takes the place of the one before.
func (c Config) recoverIndex(w *localstore.Writer, key string, before, row []byte) {
	if c.Index == nil {
		return
	}
	entries := map[string]bool{}
	if before != nil {
		for _, entry := range c.Index(key, before) {
			entries[entry] = false
		}
	}
	if row != nil {
		for _, entry := range c.Index(key, row) {
			entries[entry] = true
		}
	}
	storeIndex(w, entries)
}

// find merges what is on the disk with what is held.
func (p *partitionEpochs) find(prefix, after string, limit int) (found []string, more bool, err error) {
	from := []byte(prefix)
	if after >= prefix {
		from = append([]byte(after), 0)
	}
	held := p.bufferedEntries(prefix, after)
	scan := p.store.Scan(indexSpace, from, localstore.PrefixEnd([]byte(prefix)))
	for len(found) < limit && scan.Next() {
		entry := string(scan.Key())
		if there, changed := held[entry]; !changed || there {
			found = append(found, entry)
		}
	}
	more = len(found) == limit
	if err := errors.Join(scan.Err(), scan.Close()); err != nil {
		return nil, false, err
	}
	last := ""
	if more {
		last = found[limit-1]
	}
	for entry, there := range held {
		if there && (!more || entry < last) {
			found = append(found, entry)
		}
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) > limit {
		found, more = found[:limit], true
	}
	return found, more, nil
}

// heldEntries returns the changes of the index that are not on the disk yet.
func (p *partitionEpochs) bufferedEntries(prefix, after string) map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := map[string]bool{}
	for _, r := range p.overlay {
		for entry, there := range r.indexChanges {
			if strings.HasPrefix(entry, prefix) && entry > after {
				held[entry] = there
			}
		}
	}
	return held
}

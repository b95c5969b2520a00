package epochs

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/lovoo/goka"

	"tidemark/kafka/localstore"
)

// Rows reads the other rows of a callback's partition, as they are after all callbacks before it. After a restart they
// may be newer than that, because inputs are processed again whose rows are published already. So what is read must not
// go into a row, which has to get the same bytes again. It may decide what is emitted to an input of the group.
type Rows struct{ of *partitionEpochs }

// RowsOf returns the rows of the partition that a callback runs in; it must have been given to Epochs.Callback.
func RowsOf(ctx goka.Context) Rows { return Rows{ctx.(*gatedContext).epochs} }

// Get returns a row; nil when there is none. After an error nothing of the callback is published.
func (r Rows) Get(key string) ([]byte, error) {
	row, err := r.of.current(key)
	if err != nil {
		r.of.fail(err)
	}
	return row.value, err
}

// Find returns the index entries that begin with prefix and sort after another entry, in order, at most limit of them;
// more reports that there may be more. After an error nothing of the callback is published.
func (r Rows) Find(prefix, after string, limit int) (found []string, more bool, err error) {
	if found, more, err = r.of.find(prefix, after, limit); err != nil {
		r.of.fail(err)
	}
	return found, more, err
}

// indexSpace has the entries of Config.Index, without values.
const indexSpace localstore.Space = 0xfc

// indexLayout is part of a store's pin when there is an index, so that a store without the index is rebuilt.
const indexLayout = "/index-1"

// Reindex sets how the index entries change with the row that the callback sets next.
func (r Rows) Reindex(gone, added []string) { r.of.removedEntries, r.of.addedEntries = gone, added }

// reindex sets the index changes of a row that is buffered, on top of those of the buffered row before it. p.mu and the
// gate are locked.
func (p *partitionEpochs) reindex(r *row) {
	if len(p.removedEntries)+len(p.addedEntries) == 0 {
		return
	}
	// A copy: storeRows may be reading the map of the row before.
	if r.indexChanges = maps.Clone(r.indexChanges); r.indexChanges == nil {
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

// storeIndex writes the index changes of a row.
func storeIndex(w *localstore.Writer, entries map[string]bool) {
	for entry, there := range entries {
		if there {
			w.Set(indexSpace, []byte(entry), nil)
		} else {
			w.Delete(indexSpace, []byte(entry))
		}
	}
}

// find merges the index on the disk with its buffered changes.
func (p *partitionEpochs) find(prefix, after string, limit int) (found []string, more bool, err error) {
	from := []byte(prefix)
	if after >= prefix {
		from = append([]byte(after), 0)
	}
	buffered := p.bufferedEntries(prefix, after)
	scan := p.store.Scan(indexSpace, from, localstore.PrefixEnd([]byte(prefix)))
	for len(found) < limit && scan.Next() {
		entry := string(scan.Key())
		if there, changed := buffered[entry]; !changed || there {
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
	for entry, there := range buffered {
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

// bufferedEntries returns the index changes that are not on the disk yet.
func (p *partitionEpochs) bufferedEntries(prefix, after string) map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	buffered := map[string]bool{}
	for _, rows := range [][]*row{p.publishingRows, p.open.rows} { // a newer row has all changes of the one before
		for _, r := range rows {
			for entry, there := range r.indexChanges {
				if strings.HasPrefix(entry, prefix) && entry > after {
					buffered[entry] = there
				}
			}
		}
	}
	return buffered
}

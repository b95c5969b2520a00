package views

import (
	"context"
	"encoding/binary"
	"sync"

	"google.golang.org/protobuf/proto"

	rules "tidemark/file"
	"tidemark/history"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const (
	maxUsageKeys   = 1000    // of a dimension in an answer
	maxCountedKeys = 100_000 // that are counted for it
	cachedUsages   = 64      // workspaces whose totals are kept
)

// fileTotals are the active files of a workspace, in all dimensions.
type fileTotals struct {
	all fileTotal
	by  map[history.Dimension]ranked[fileTotal]
}

// A usageCache keeps the totals of some workspaces, until a row of theirs is applied.
type usageCache struct {
	mu    sync.Mutex
	known map[string]cachedUsage // by workspace
	order []string               // of the workspaces, the oldest first
}

type cachedUsage struct {
	generation, offset int64 // of the store, and of the last row of the workspace
	totals             fileTotals
}

func (u *usageCache) get(workspace string, generation, offset int64) (fileTotals, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.known[workspace]
	return c.totals, ok && c.generation == generation && c.offset == offset
}

func (u *usageCache) put(workspace string, c cachedUsage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known == nil {
		u.known = map[string]cachedUsage{}
	}
	if _, known := u.known[workspace]; !known {
		u.order = append(u.order, workspace)
		if len(u.order) > cachedUsages {
			delete(u.known, u.order[0])
			u.order = u.order[1:]
		}
	}
	u.known[workspace] = c
}

// usageOf returns the totals of a workspace, as of now.
func (s *Server) usageOf(ctx context.Context, workspace string) (totals fileTotals, err error) {
	partition, generation := s.partition(workspace), s.files.generation.Load()
	err = s.files.read(func(store *localstore.Store) error {
		prefix := append([]byte(tidemarkv1.EscapePart(workspace)), '/')
		last := store.Scan(partition, byChange, prefix, localstore.PrefixEnd(prefix))
		defer last.Close() //nolint:errcheck // Err returns its errors
		if !last.Previous() {
			totals.by = newFileTally().ranked()
			return last.Err() // it has no files
		}
		offset := int64(binary.BigEndian.Uint64(last.Key()[len(prefix):]))
		var cached bool
		if totals, cached = s.usages.get(workspace, generation, offset); cached {
			return nil
		}
		release, err := s.takeScan()
		if err != nil {
			return err
		}
		defer release()
		tally := newFileTally()
		scan := last.SameSnapshot(partition, localstore.Rows, prefix, localstore.PrefixEnd(prefix))
		defer scan.Close() //nolint:errcheck // Err returns its errors
		for n := 0; scan.Next(); n++ {
			if n%1000 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if err := tally.add(scan.Value()); err != nil {
				return err
			}
		}
		totals = fileTotals{tally.all, tally.ranked()}
		s.usages.put(workspace, cachedUsage{generation, offset, totals})
		return scan.Err()
	})
	return totals, err
}

// A fileTally adds up the active files of a workspace.
type fileTally struct {
	all                 fileTotal
	types, folders, who tally[fileTotal]
}

func newFileTally() *fileTally {
	counted := tally[fileTotal]{limit: maxCountedKeys}
	return &fileTally{types: counted, folders: counted, who: counted}
}

func (t *fileTally) add(value []byte) error {
	var row tidemarkv1.FileState
	if err := proto.Unmarshal(value, &row); err != nil {
		return err
	}
	typ := rules.TypeOf(&row)
	if typ == "" {
		return nil
	}
	n := fileTotal{1, row.GetSize()}
	t.all = t.all.plus(n)
	t.types.add(typ, n)
	t.folders.add(history.FolderOf(&row), n)
	t.who.add(row.GetActorId(), n)
	return nil
}

func (t *fileTally) ranked() map[history.Dimension]ranked[fileTotal] {
	return map[history.Dimension]ranked[fileTotal]{
		history.Type: t.types.ranked(maxUsageKeys), history.Folder: t.folders.ranked(maxUsageKeys),
		history.Actor: t.who.ranked(maxUsageKeys),
	}
}

package views

import (
	"context"
	"encoding/binary"
	"errors"
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
	mu     sync.Mutex
	known  map[string]cachedUsage   // by workspace
	order  []string                 // of the workspaces, the oldest first
	counts map[string]chan struct{} // of the workspaces that are being counted; closed at the end
}

type cachedUsage struct {
	generation, offset int64 // of the store, and of the last row of the workspace
	totals             fileTotals
}

// get returns totals that are not older than a row. If there are none, the caller counts, and then calls done; or
// another caller counts, and this one waits until counting is closed.
func (u *usageCache) get(workspace string, generation, offset int64) (
	totals fileTotals, found bool, counting <-chan struct{}, done func(),
) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c, ok := u.known[workspace]; ok && c.generation == generation && c.offset >= offset {
		return c.totals, true, nil, nil
	}
	if counting := u.counts[workspace]; counting != nil {
		return totals, false, counting, nil
	}
	if u.counts == nil {
		u.counts = map[string]chan struct{}{}
	}
	ended := make(chan struct{})
	u.counts[workspace] = ended
	return totals, false, nil, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.counts, workspace)
		close(ended)
	}
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

// usageOf returns the totals of a workspace, not older than now.
func (s *Server) usageOf(ctx context.Context, workspace string) (fileTotals, error) {
	partition := s.partition(workspace)
	generation, last := s.files.generationOf(partition), int64(-1)
	err := s.files.read(func(store *localstore.Store) (err error) {
		scan := changesOfWorkspace(store, partition, workspace)
		last, err = lastRow(scan, workspace)
		return errors.Join(err, scan.Close())
	})
	for err == nil {
		totals, found, counting, done := s.usages.get(workspace, generation, last)
		switch {
		case found:
			return totals, nil
		case counting == nil:
			return s.countFiles(ctx, workspace, generation, done)
		}
		select {
		case <-counting:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return fileTotals{}, err
}

func changesOfWorkspace(store *localstore.Store, partition int32, workspace string) *localstore.Scan {
	prefix := rowPrefix(workspace)
	return store.Scan(partition, byChange, prefix, localstore.PrefixEnd(prefix))
}

func rowPrefix(workspace string) []byte { return []byte(tidemarkv1.JoinKey(workspace, "") + "/") }

// lastRow returns the changelog offset of the last row of a workspace, -1 if it has none.
func lastRow(changes *localstore.Scan, workspace string) (int64, error) {
	if !changes.Previous() {
		return -1, changes.Err()
	}
	return int64(binary.BigEndian.Uint64(changes.Key()[len(rowPrefix(workspace)):])), nil
}

// countFiles reads all rows of a workspace, and caches the result.
func (s *Server) countFiles(ctx context.Context, workspace string, generation int64, done func()) (
	totals fileTotals, err error,
) {
	defer done()
	release, err := s.takeScan()
	if err != nil {
		return totals, err
	}
	defer release()
	offset := int64(-1)
	if err := s.files.read(func(store *localstore.Store) (err error) {
		partition := s.partition(workspace)
		changes := changesOfWorkspace(store, partition, workspace)
		defer changes.Close() //nolint:errcheck // its reads return the errors
		if offset, err = lastRow(changes, workspace); err != nil {
			return err
		}
		totals, err = readTotals(ctx, changes, partition, workspace)
		return err
	}); err != nil {
		return fileTotals{}, err
	}
	s.usages.put(workspace, cachedUsage{generation, offset, totals})
	return totals, nil
}

// readTotals counts the rows of a workspace in a snapshot.
func readTotals(ctx context.Context, snapshot *localstore.Scan, partition int32, workspace string) (
	totals fileTotals, err error,
) {
	prefix := rowPrefix(workspace)
	scan := snapshot.SameSnapshot(partition, localstore.Rows, prefix, localstore.PrefixEnd(prefix))
	defer scan.Close() //nolint:errcheck // Err returns its errors
	tally := newFileTally()
	for n := 0; scan.Next(); n++ {
		if n%1000 == 0 && ctx.Err() != nil {
			return totals, ctx.Err()
		}
		if err := tally.add(scan.Value()); err != nil {
			return totals, err
		}
	}
	return fileTotals{tally.all, tally.ranked()}, scan.Err()
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
	ranked := map[history.Dimension]ranked[fileTotal]{}
	for of, t := range map[history.Dimension]*tally[fileTotal]{
		history.Type: &t.types, history.Folder: &t.folders, history.Actor: &t.who,
	} {
		room := maxPageBytes / 3
		ranked[of] = t.ranked(maxUsageKeys, &room)
	}
	return ranked
}

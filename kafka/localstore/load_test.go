package localstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A change is a record of a changelog; its value has the version.
type change struct {
	key     string
	value   []byte
	version int64
}

// randomChanges returns a changelog with repeated keys, versions out of order and empty values.
func randomChanges(random *rand.Rand, n int) []change {
	changes := make([]change, n)
	for i := range changes {
		c := change{key: fmt.Sprintf("ws%d/f%d", random.IntN(3), random.IntN(1+n/4)), version: int64(random.IntN(8))}
		c.value = fmt.Appendf(nil, "v%d-%d-%0*d", c.version, i, random.IntN(200), i)
		if random.IntN(12) == 0 {
			c.value = []byte{}
		}
		changes[i] = c
	}
	return changes
}

// The indexes of the test: by value in reverse order of the keys, and by offset.
const (
	byValue  Space = 1
	byOffset Space = 3
)

func testIndex(row Row, put Put) error {
	return errors.Join(
		put(byOffset, binary.BigEndian.AppendUint64(nil, uint64(row.Offset)), row.Key),
		put(byValue, append([]byte(fmt.Sprintf("%03d", 255-len(row.Value))), row.Key...),
			binary.BigEndian.AppendUint64(nil, uint64(row.Offset))),
	)
}

// applyEach is what the load must equal: it applies one record after the other, with what the store has before it.
func applyEach(t *testing.T, s *Store, partition int32, changes []change) {
	t.Helper()
	rows := map[string]Row{}
	versions := map[string]int64{}
	for i, c := range changes {
		if before, exists := versions[c.key]; exists && c.version < before {
			continue
		}
		rows[c.key] = Row{Key: []byte(c.key), Value: c.value, Offset: int64(i)}
		versions[c.key] = c.version
	}
	if err := s.Update(partition, int64(len(changes)-1), func(w *Writer) error {
		for key, row := range rows {
			w.Set(Rows, []byte(key), row.Value)
			if err := testIndex(row, func(space Space, key, value []byte) error {
				w.Set(space, key, value)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func addAll(l *Load, changes []change) (err error) {
	for i, c := range changes {
		err = errors.Join(err, l.Set(int64(i), c.version, []byte(c.key), c.value))
	}
	return err
}

// dump returns all of a partition but the time at which it was up to date.
func dump(t *testing.T, s *Store, partition int32) (all []string) {
	t.Helper()
	for space := Rows; space <= spaceOffset; space++ {
		scan := s.Scan(partition, space, nil, nil)
		for scan.Next() {
			all = append(all, fmt.Sprintf("%d %q=%q", space, scan.Key(), scan.Value()))
		}
		if err := errors.Join(scan.Err(), scan.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func openForLoad(t *testing.T, dir string, memory int) *Store {
	t.Helper()
	s, err := Open(dir, "pin", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.use.MemTable = uint64(memory)
	return s
}

func beginLoad(t *testing.T, s *Store, partition int32) *Load {
	t.Helper()
	p, err := s.Partition(partition)
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Load(testIndex)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	return l
}

// TestLoadEqualsUpdates compares a loaded partition with one to which the same records were applied one by one.
func TestLoadEqualsUpdates(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i, c := range []struct{ records, memory int }{
		{1, 1 << 20}, {500, 1 << 20}, {3000, 64 << 10}, {100, 1}, {1100, 1}, {600, 600},
	} {
		t.Run(fmt.Sprintf("%d records, %d bytes", c.records, c.memory), func(t *testing.T) {
			s := openForLoad(t, t.TempDir(), c.memory)
			defer s.Close()
			changes := randomChanges(random, c.records)
			applyEach(t, s, 7, changes)
			l := beginLoad(t, s, int32(i))
			if err := addAll(l, changes); err != nil {
				t.Fatal(err)
			}
			if found := dump(t, s, int32(i)); len(found) > 0 {
				t.Errorf("before Finish there is %v", found[0])
			}
			if err := l.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(dump(t, s, 7), dump(t, s, int32(i))); diff != "" {
				t.Error(diff)
			}
			if left, err := os.ReadDir(filepath.Join(s.dir, loadDir)); len(left) > 0 || err != nil {
				t.Error(left, err)
			}
		})
	}
}

// TestInterruptedLoad interrupts a load in each phase. The partition is empty afterwards, in the same process and after
// a restart, and a second load is complete.
func TestInterruptedLoad(t *testing.T) {
	changes := randomChanges(rand.New(rand.NewPCG(1, 2)), 3000)
	failing := errors.New("interrupted")
	for name, interrupt := range map[string]func(t *testing.T, l *Load){
		"while records are added": func(*testing.T, *Load) {},
		"while rows are merged": func(t *testing.T, l *Load) {
			t.Helper()
			n := 0
			l.derive = func(Row, Put) error {
				if n++; n > 100 {
					return failing
				}
				return nil
			}
			if err := l.finish(t.Context()); !errors.Is(err, failing) {
				t.Error(err)
			}
		},
		"while index entries are merged": func(t *testing.T, l *Load) {
			t.Helper()
			out := &tableWriter{store: l.store, dir: l.dir}
			if err := errors.Join(l.write(t.Context(), out), out.close()); err != nil {
				t.Error(err) // the tables are complete, and not in the database
			}
		},
		"by its context": func(t *testing.T, l *Load) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := l.Finish(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openForLoad(t, dir, 20_000)
			applyEach(t, s, 7, changes)
			l := beginLoad(t, s, 1)
			if err := addAll(l, changes[:2000]); err != nil {
				t.Fatal(err)
			}
			interrupt(t, l)
			if found := dump(t, s, 1); len(found) > 0 {
				t.Errorf("after the interruption there is %v", found[0])
			}
			killed := t.TempDir() // what a kill leaves: the cache of the pages survives it
			if err := errors.Join(os.CopyFS(killed, os.DirFS(dir)), s.Close()); err != nil {
				t.Fatal(err)
			}
			dir = killed
			s = openForLoad(t, dir, 20_000)
			applyEach(t, s, 7, changes)
			defer s.Close()
			if _, err := os.Stat(filepath.Join(dir, loadDir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the files of the load are still there: %v", err)
			}
			if found := dump(t, s, 1); len(found) > 0 {
				t.Errorf("after the restart there is %v", found[0])
			}
			l = beginLoad(t, s, 1)
			if err := errors.Join(addAll(l, changes), l.Finish(t.Context())); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(dump(t, s, 7), dump(t, s, 1)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadOnlyOfAnEmptyPartition(t *testing.T) {
	s := openForLoad(t, t.TempDir(), 1<<20)
	defer s.Close()
	l := beginLoad(t, s, 1)
	l.Pass(41) // a marker, or a record without a key
	if err := l.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if offset, ok, err := s.Offset(1); offset != 41 || !ok || err != nil {
		t.Error(offset, ok, err)
	}
	p, err := s.Partition(1)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := p.Load(testIndex); l != nil || err != nil {
		t.Error(l, err)
	}
}

// TestLoadSurvivesAKill opens a copy of the files as they are when Finish has returned.
func TestLoadSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	s := openForLoad(t, dir, 1<<20)
	defer s.Close()
	l := beginLoad(t, s, 1)
	changes := randomChanges(rand.New(rand.NewPCG(5, 6)), 500)
	if err := errors.Join(addAll(l, changes), l.Finish(t.Context())); err != nil {
		t.Fatal(err)
	}
	if n := s.db.Metrics().Levels[lastLevel].TablesCount; n == 0 { // else compactions rewrite all that was loaded
		t.Error("the rows are not in the last level")
	}
	open := func() *Store {
		killed := t.TempDir()
		for try := 0; os.CopyFS(killed, os.DirFS(dir)) != nil; try++ { // a compaction has removed a file
			if try == 100 {
				t.Fatal("the folder cannot be copied")
			}
			killed = t.TempDir()
		}
		copied := openForLoad(t, killed, 1<<20)
		if _, err := copied.Partition(1); err != nil {
			t.Fatal(err)
		}
		return copied
	}
	copied := open()
	for try := 0; try < 3 && len(dump(t, copied, 1)) == 0; try++ { // a compaction may have run during the copy
		if err := copied.Close(); err != nil {
			t.Fatal(err)
		}
		copied = open()
	}
	defer copied.Close()
	if diff := cmp.Diff(dump(t, s, 1), dump(t, copied, 1)); diff != "" {
		t.Error(diff)
	}
	if found := dump(t, copied, 1); len(found) < 100 {
		t.Errorf("there are %d keys", len(found))
	}
	copied.now = func() time.Time { return wallClock().Add(copied.maxIdle) } // the time of the load is known as well
	if _, err := copied.Partition(1); err != nil || len(dump(t, copied, 1)) > 0 {
		t.Errorf("a partition that was not up to date for a day is kept (%v)", err)
	}
}

func TestDamagedRunIsNotLoaded(t *testing.T) {
	s := openForLoad(t, t.TempDir(), 1)
	defer s.Close()
	l := beginLoad(t, s, 1)
	if err := addAll(l, randomChanges(rand.New(rand.NewPCG(3, 4)), 100)); err != nil {
		t.Fatal(err)
	}
	name := l.rows.runs[len(l.rows.runs)/2]
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.Finish(t.Context()); err == nil {
		t.Error("Finish read a damaged run")
	}
	if found := dump(t, s, 1); len(found) > 0 {
		t.Errorf("there is %v", found[0])
	}
}

package localstore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func openTestStore(t *testing.T, dir, pin string) *Store {
	t.Helper()
	s, err := Open(dir, pin, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, partition int32, offset int64, pairs ...string) {
	t.Helper()
	err := s.Update(partition, offset, func(w *Writer) error {
		for i := 0; i < len(pairs); i += 2 {
			w.Set(Rows, []byte(pairs[i]), []byte(pairs[i+1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Store, partition int32, key string) string {
	t.Helper()
	value, err := s.Get(partition, Rows, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

func TestStoreKeepsRowsAndOffsetOverAClose(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir, "c/t")
	put(t, s, 3, 41, "ws/f", "row")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir, "c/t")
	defer s.Close()
	if got := get(t, s, 3, "ws/f"); got != "row" {
		t.Errorf("row is %q", got)
	}
	if offset, ok, err := s.Offset(3); offset != 41 || !ok || err != nil {
		t.Errorf("offset is %d, %t, %v", offset, ok, err)
	}
	if _, ok, _ := s.Offset(4); ok {
		t.Error("another partition has an offset")
	}
}

func TestStoreOfAnotherTopicIsWiped(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir, "cluster/old")
	put(t, s, 0, 1, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir, "cluster/new")
	defer s.Close()
	if got := get(t, s, 0, "k"); got != "" {
		t.Errorf("a row of the old log is still there: %q", got)
	}
}

// A folder with other content is not wiped, nor a store that another process has open.
func TestForeignFoldersAreNotWiped(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	foreign := t.TempDir()
	letter := filepath.Join(foreign, "letter.txt")
	if err := os.WriteFile(letter, []byte("dear"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(foreign, "c/t", log); err == nil || !strings.Contains(err.Error(), "letter.txt") {
		t.Errorf("a folder with a letter in it: %v", err)
	}
	if _, err := os.Stat(letter); err != nil {
		t.Error(err)
	}

	dir := t.TempDir()
	s := openTestStore(t, dir, "c/t")
	defer s.Close()
	put(t, s, 0, 1, "k", "v")
	if _, err := Open(dir, "c/another", log); !errors.Is(err, errInUse) {
		t.Errorf("a store that is open: %v", err)
	}
	if got := get(t, s, 0, "k"); got != "v" {
		t.Errorf("its row is %q", got)
	}
}

// A store whose process was killed before it wrote the pin is wiped, as is one of a release that kept it elsewhere.
func TestStoreWithoutAPinIsWiped(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir, "c/t")
	put(t, s, 0, 1, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, pinFile)); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir, "c/t")
	defer s.Close()
	if got := get(t, s, 0, "k"); got != "" {
		t.Errorf("read %q", got)
	}
}

func TestUnreadableStoreIsWiped(t *testing.T) {
	for _, c := range []struct {
		name, files string
		hurt        func(name string) error
	}{
		{"manifest overwritten", "MANIFEST-*", func(name string) error { return os.WriteFile(name, []byte("not a manifest at all"), 0o644) }},
		{"table cut short", "*.sst", func(name string) error { return os.Truncate(name, 100) }},
		{"table empty", "*.sst", func(name string) error { return os.Truncate(name, 0) }},
		{"table gone", "*.sst", os.Remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTestStore(t, dir, "c/t")
			put(t, s, 0, 1, "k", "v")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			found, err := filepath.Glob(filepath.Join(dir, c.files))
			if err != nil || len(found) == 0 {
				t.Fatalf("nothing to damage: %v", err)
			}
			for _, name := range found {
				if err := c.hurt(name); err != nil {
					t.Fatal(err)
				}
			}
			s = openTestStore(t, dir, "c/t")
			defer s.Close()
			if got := get(t, s, 0, "k"); got != "" {
				t.Errorf("read %q from a damaged store", got)
			}
		})
	}
}

// A damaged table file is noticed when it is read: the read fails, and the next start wipes the store.
func TestDamagedRowsAreFoundAndWiped(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir, "c/t")
	for i := range 1000 {
		put(t, s, 0, int64(i), fmt.Sprintf("key%04d", i), fmt.Sprintf("%0512d", i*i*i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, dir)
	s = openTestStore(t, dir, "c/t")
	var failed error
	for i := range 1000 {
		if _, err := s.Get(0, Rows, fmt.Appendf(nil, "key%04d", i)); err != nil {
			failed = err
		}
	}
	if err := s.Close(); err != nil {
		t.Log("closing a damaged store:", err)
	}
	if failed == nil || !s.Corrupt() {
		t.Fatalf("the damage was not noticed: %v", failed)
	}
	s = openTestStore(t, dir, "c/t")
	defer s.Close()
	if _, ok, err := s.Offset(0); ok || err != nil {
		t.Errorf("the store was not wiped: %t, %v", ok, err)
	}
}

func damage(t *testing.T, dir string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no table to damage: %v", err)
	}
	for _, name := range tables {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(b) / 2 {
			b[i] ^= 0x55
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoreIsNotShared(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir, "c/t")
	defer s.Close()
	if second, err := Open(dir, "c/t", slog.New(slog.DiscardHandler)); err == nil {
		second.Close()
		t.Fatal("a second process could open the same folder")
	}
	put(t, s, 0, 1, "still", "here")
	if got := get(t, s, 0, "still"); got != "here" {
		t.Errorf("the first owner lost its rows: %q", got)
	}
}

func TestIdlePartitionIsWiped(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	for _, partition := range []int32{0, 1} {
		if _, err := s.Partition(partition); err != nil {
			t.Fatal(err)
		}
		put(t, s, partition, 7, "k", "v")
		if err := s.Touch(partition); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(deleteRetention - time.Second)
	if _, err := s.Partition(0); err != nil || get(t, s, 0, "k") != "v" {
		t.Errorf("a partition was wiped too early (%v)", err)
	}
	now = now.Add(2 * time.Second)
	if _, err := s.Partition(1); err != nil || get(t, s, 1, "k") != "" {
		t.Errorf("a partition idle past delete.retention.ms was kept (%v)", err)
	}
	if get(t, s, 0, "k") != "v" {
		t.Error("the wipe reached another partition")
	}
}

// A recovery that did not reach the end does not make the partition up to date.
func TestInterruptedRecoveryIsNotUpToDate(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	read := func(offset int64) *Partition {
		t.Helper()
		p, err := s.Partition(0)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, 0, offset, "k", "v")
		return p
	}
	read(1)
	now = now.Add(20 * time.Hour)
	read(2) // cut short: what was deleted behind it may be forgotten before the next one
	now = now.Add(20 * time.Hour)
	if _, err := s.Partition(0); err != nil || get(t, s, 0, "k") != "" {
		t.Errorf("rows of 40 hours ago were kept (%v)", err)
	}
	p := read(3)
	now = now.Add(20 * time.Hour)
	if err := p.Touch(); err != nil { // it is recovered
		t.Fatal(err)
	}
	now = now.Add(20 * time.Hour)
	if _, err := s.Partition(0); err != nil || get(t, s, 0, "k") != "v" {
		t.Errorf("rows of 20 hours ago were wiped (%v)", err)
	}
}

// A partition that was not touched for a day while the store was open is not up to date until it is recovered again.
func TestOpenPartitionCanBeIdleForTooLong(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	if _, err := s.Partition(0); err != nil {
		t.Fatal(err)
	}
	put(t, s, 0, 1, "k", "v")
	now = now.Add(deleteRetention + time.Minute)
	if err := s.Touch(0); !errors.Is(err, ErrIdle) {
		t.Errorf("touched: %v", err)
	}
	if _, err := s.Partition(0); err != nil || get(t, s, 0, "k") != "" {
		t.Errorf("kept (%v)", err)
	}
	if err := s.Touch(0); err != nil {
		t.Errorf("read anew: %v", err)
	}
}

// A kill after days of uptime loses the last hour, not everything.
func TestKillDoesNotWipeAnUpToDateStore(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir, "c/t")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	if _, err := s.Partition(0); err != nil {
		t.Fatal(err)
	}
	put(t, s, 0, 1, "k", "v")
	for range 3 * 24 * 60 {
		now = now.Add(time.Minute)
		if err := s.Touch(0); err != nil {
			t.Fatal(err)
		}
	}
	<-s.flushing
	killed := t.TempDir() // what a kill leaves: the files as they are
	err := os.CopyFS(killed, os.DirFS(dir))
	for errors.Is(err, fs.ErrNotExist) { // a compaction took one away meanwhile
		killed = t.TempDir()
		err = os.CopyFS(killed, os.DirFS(dir))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, killed, "c/t")
	defer s.Close()
	s.now = func() time.Time { return now }
	if _, err := s.Partition(0); err != nil || get(t, s, 0, "k") != "v" {
		t.Errorf("wiped (%v)", err)
	}
}

func TestScanStaysInItsSpaceAndRange(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	put(t, s, 1, 1, "ws1/a", "1", "ws1/b", "2", "ws10/a", "3", "ws2/a", "4")
	put(t, s, 2, 1, "ws1/z", "5")
	scan := s.Scan(1, Rows, []byte("ws1/"), PrefixEnd([]byte("ws1/")))
	defer scan.Close()
	var keys []string
	for scan.Next() {
		keys = append(keys, string(scan.Key()))
	}
	if err := scan.Err(); err != nil || !slices.Equal(keys, []string{"ws1/a", "ws1/b"}) {
		t.Errorf("keys %q, %v", keys, err)
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	put(t, s, 0, 1, "k", "v")
	bad := errors.New("changed my mind")
	if err := s.Update(0, 2, func(w *Writer) error { w.Delete(Rows, []byte("k")); return bad }); !errors.Is(err, bad) {
		t.Errorf("error is %v", err)
	}
	if offset, _, _ := s.Offset(0); get(t, s, 0, "k") != "v" || offset != 1 {
		t.Errorf("row %q, offset %d", get(t, s, 0, "k"), offset)
	}
}

// A scan reads keys of all spaces, and the offset, as they were when it began.
func TestScanReadsItsSnapshot(t *testing.T) {
	s, err := Open(t.TempDir(), "c/t", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	set := func(offset int64, value string) {
		t.Helper()
		if err := s.Update(3, offset, func(w *Writer) error {
			w.Set(Rows, []byte("k"), []byte(value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	empty := s.Scan(3, 7, nil, nil)
	defer empty.Close()
	set(5, "old")
	scan := s.Scan(3, 7, []byte("x"), nil) // the key is not in its bounds
	defer scan.Close()
	set(6, "new")
	if value, err := scan.Get(3, Rows, []byte("k")); err != nil || string(value) != "old" {
		t.Errorf("value %q, %v", value, err)
	}
	if offset, ok, err := scan.Offset(3); err != nil || !ok || offset != 5 {
		t.Errorf("offset %d, %v, %v", offset, ok, err)
	}
	if value, err := scan.Get(3, Rows, []byte("j")); err != nil || value != nil {
		t.Errorf("a key that there is not: %q, %v", value, err)
	}
	if _, ok, err := empty.Offset(3); err != nil || ok {
		t.Errorf("before the first record: %v, %v", ok, err)
	}
	if scan.Next() || scan.Err() != nil {
		t.Errorf("the space is not empty: %v", scan.Err())
	}
}

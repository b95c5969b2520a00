package views

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A tableRecord is a record of a table topic.
type tableRecord struct {
	key   string
	value []byte
}

// randomRecords returns a changelog: rows out of order, of all statuses and kinds, moved ones, nulls, and records that
// another program wrote.
func randomRecords(tb testing.TB, random *rand.Rand, n int) []tableRecord {
	tb.Helper()
	records := make([]tableRecord, n)
	for i := range records {
		workspace, file := fmt.Sprintf("w%d/", random.IntN(3)), fmt.Sprintf("f%d", random.IntN(1+n/5))
		path := []string{"", "/a\x00b", "/" + file, "/other/" + file}[random.IntN(4)]
		row := fileRow(workspace, file, path, tidemarkv1.Status(random.IntN(4)), int64(random.IntN(6)))
		row.Silent, row.Kind = int64(random.IntN(3)), tidemarkv1.Kind(random.IntN(2))
		row.Position = &tidemarkv1.Position{Offset: int64(i)}
		value, err := proto.Marshal(row)
		if err != nil {
			tb.Fatal(err)
		}
		r := tableRecord{tidemarkv1.JoinKey(workspace, file), value}
		switch random.IntN(20) {
		case 0:
			r.value = nil
		case 1:
			r.value = []byte("no row")
		case 2:
			r.key = "no key"
		case 3:
			r.key = tidemarkv1.JoinKey(workspace, file+"x") // of another file than the row
		}
		records[i] = r
	}
	return records
}

// dumpPartition returns all keys and values of a partition but the time at which it was up to date.
func dumpPartition(tb testing.TB, t *table, partition int32) (all []string) {
	tb.Helper()
	for space := range localstore.Space(0xff) {
		scan := t.store.Scan(partition, space, nil, nil)
		for scan.Next() {
			all = append(all, fmt.Sprintf("%d %q=%q", space, scan.Key(), scan.Value()))
		}
		if err := errors.Join(scan.Err(), scan.Close()); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

// TestLoadedCopyEqualsAnAppliedOne compares all rows and index entries of a copy that was loaded with those of a copy
// to which the same records were applied one by one, at the end of the load and after further records.
func TestLoadedCopyEqualsAnAppliedOne(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{1, 20, 2000} {
		records := randomRecords(t, random, n)
		later := randomRecords(t, random, n)
		loaded, one := newFixture(t).Server.files, newFixture(t).Server.files
		for partition := range int32(4) {
			p, err := loaded.newStorage(t.Context(), partition)
			if err != nil || p.load == nil {
				t.Fatal(p, err)
			}
			apply := func(from int, records []tableRecord) {
				for i, r := range records {
					if of := kafka.FilePartition([]byte(r.key), 4); of != partition && i%3 > 0 {
						continue // some are in the wrong partition
					}
					if err := errors.Join(p.apply(int64(from+i), r.key, r.value),
						one.update(partition, int64(from+i), r.key, r.value)); err != nil {
						t.Fatal(err)
					}
				}
			}
			apply(0, records)
			if rows := dumpPartition(t, loaded, partition); len(rows) > 0 {
				t.Errorf("rows are visible before the load is finished: %v", rows[0])
			}
			if err := p.MarkRecovered(); err != nil {
				t.Fatal(err)
			}
			compareCopies(t, one, loaded, partition)
			apply(n, later)
			compareCopies(t, one, loaded, partition)
		}
	}
}

func compareCopies(t *testing.T, one, loaded *table, partition int32) {
	t.Helper()
	if diff := cmp.Diff(dumpPartition(t, one, partition), dumpPartition(t, loaded, partition)); diff != "" {
		t.Errorf("partition %d: %s", partition, diff)
	}
	oneNext, _ := one.frontiers[partition].offsets()
	loadedNext, _ := loaded.frontiers[partition].offsets()
	if oneNext != loadedNext {
		t.Errorf("partition %d was read up to %d and %d", partition, oneNext, loadedNext)
	}
}

// TestLoadedWorkspacesEqualAppliedOnes is the same of the workspaces table.
func TestLoadedWorkspacesEqualAppliedOnes(t *testing.T) {
	loaded, one := newFixture(t).workspaces, newFixture(t).workspaces
	p, err := loaded.newStorage(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 6))
	for i := range int64(300) {
		row := &tidemarkv1.WorkspaceState{
			WorkspaceId: fmt.Sprintf("w%d", random.IntN(50)), Version: int64(random.IntN(9)), Files: i, LogId: testLog,
		}
		value, err := proto.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		if random.IntN(9) == 0 {
			value = nil
		}
		if err := errors.Join(p.apply(i, row.GetWorkspaceId(), value),
			one.update(1, i, row.GetWorkspaceId(), value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.MarkRecovered(); err != nil {
		t.Fatal(err)
	}
	compareCopies(t, one, loaded, 1)
	if len(dumpPartition(t, one, 1)) < 5 {
		t.Error("there are too few rows for a comparison")
	}
}

// TestInterruptedLoadIsNotAnsweredFrom ends a view while it reads, as goka does: MarkRecovered is called even then.
func TestInterruptedLoadIsNotAnsweredFrom(t *testing.T) {
	f := newFixture(t)
	files := f.Server.files
	of := kafka.FilePartition([]byte("ws/a"), 4)
	value, err := proto.Marshal(fileRow("ws", "a", "/a", isActive, 1))
	if err != nil {
		t.Fatal(err)
	}
	f.now.filesEnd[of] = 4
	ctx, cancel := context.WithCancel(t.Context())
	p, err := files.newStorage(ctx, of)
	if err != nil {
		t.Fatal(err)
	}
	files.generation.Add(1) // a new copy
	for offset := range int64(2) {
		if err := p.apply(offset, "ws/a", value); err != nil {
			t.Fatal(err)
		}
	}
	if offset, err := p.GetOffset(-3); offset != 1 || err != nil {
		t.Errorf("goka would go on after offset %d: %v", offset, err)
	}
	f.poll()
	next, _ := files.frontiers[of].offsets()
	files.observe(of, 4, time.Now()) // reading resets the time after which a view is replaced
	if err := p.apply(1, "ws/a", value); err != nil || next != 0 {
		t.Fatal(next, err)
	}
	files.observe(of, 4, time.Now().Add(stallAfter))
	files.partitions[of].reading.finishing.Store(true)
	files.observe(of, 4, time.Now().Add(2*stallAfter))
	files.partitions[of].reading.finishing.Store(false)
	select {
	case reason := <-files.restart:
		t.Errorf("a view that loads is replaced: %s", reason)
	default:
	}
	if err := f.Ready(); err == nil || !strings.Contains(err.Error(), "3 records, 50 %") {
		t.Errorf("it does not say how far it is: %v", err)
	}
	cancel()
	if err := p.MarkRecovered(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	f.poll()
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != 503 || len(dumpPartition(t, files, of)) > 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if p, err = files.newStorage(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	for offset := range int64(4) {
		if err := p.apply(offset, "ws/a", value); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.MarkRecovered(); err != nil {
		t.Fatal(err)
	}
	f.poll()
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != 200 || f.Ready() != nil {
		t.Errorf("%d %s, ready %v", w.Code, w.Body, f.Ready())
	}
}

// A failing is a view of one partition whose storage fails.
type failing struct {
	*partitionStorage
	fixture *fixture
	logged  *bytes.Buffer
	fail    error // of a load that is finished
}

func newFailing(t *testing.T) *failing {
	t.Helper()
	f := newFixture(t)
	f.now.filesEnd[0] = 2
	f.Server.files.generation.Add(1) // a new copy
	f.poll()
	logged := &bytes.Buffer{}
	f.Server.files.log = slog.New(slog.NewTextHandler(logged, nil))
	f.Server.files.kind.version = func(string, []byte) (int64, applied) { return 0, applied{} }
	failing := &failing{fixture: f, logged: logged}
	f.Server.files.kind.derive = func(localstore.Row, localstore.Put) error { return failing.fail }
	var err error
	if failing.partitionStorage, err = f.Server.files.newStorage(t.Context(), 0); err != nil || failing.load == nil {
		t.Fatal(failing.load, err)
	}
	return failing
}

// key is in partition 0.
func (f *failing) key() string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("ws", i, "/f"); kafka.FilePartition([]byte(key), 4) == 0 {
			return key
		}
	}
}

// readsFromTheBeginning checks what goka and a client see after a load was discarded.
func (f *failing) readsFromTheBeginning(t *testing.T) {
	t.Helper()
	if offset, err := f.GetOffset(-3); f.load == nil || offset != -3 || err != nil {
		t.Errorf("load %v: goka would go on after offset %d: %v", f.load, offset, err)
	}
	if err := f.fixture.Ready(); err == nil || !strings.Contains(err.Error(), "0 records, 0 %") {
		t.Errorf("/readyz says %v", err)
	}
	if !strings.Contains(f.logged.String(), "level=WARN") {
		t.Errorf("the log has %q", f.logged)
	}
}

// TestRecordThatCannotBeApplied has a view replaced: goka tries the same record again and again.
func TestRecordThatCannotBeApplied(t *testing.T) {
	f := newFailing(t)
	if err := f.MarkRecovered(); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left")
	table := f.fixture.Server.files
	table.kind.apply = func(*localstore.Writer, int64, string, []byte) (applied, error) { return applied{}, full }
	now := time.Now()
	for wait := time.Duration(0); wait <= stallAfter; wait += time.Second {
		if err := f.apply(0, f.key(), nil); !errors.Is(err, full) {
			t.Fatal(err)
		}
		table.observe(0, 2, now.Add(wait))
	}
	if len(table.restart) == 0 {
		t.Error("the view is not replaced")
	}
	if !strings.Contains(f.logged.String(), "level=WARN") || !strings.Contains(f.logged.String(), full.Error()) {
		t.Errorf("the log has %q", f.logged)
	}
}

// TestRecordThatCannotBeLoaded removes the folder of the load before it needs it.
func TestRecordThatCannotBeLoaded(t *testing.T) {
	f := newFailing(t)
	if err := os.RemoveAll(filepath.Join(f.fixture.conf.Dir, f.table.name, "load")); err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 40<<20) // two do not fit into memory
	if err := f.apply(0, f.key(), large); err != nil {
		t.Fatal(err)
	}
	if err := f.apply(1, f.key(), large); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	f.readsFromTheBeginning(t)
}

func TestLoadThatCannotBeFinished(t *testing.T) {
	f := newFailing(t)
	full := errors.New("no space left")
	f.fail = full
	read := func() error {
		return errors.Join(f.apply(0, f.key(), nil), f.apply(1, f.key(), nil), f.MarkRecovered())
	}
	if err := read(); !errors.Is(err, full) {
		t.Fatal(err)
	}
	f.readsFromTheBeginning(t)
	f.fail = nil
	if err := read(); err != nil {
		t.Error(err)
	}
	f.fixture.poll()
	if next, _ := f.table.frontiers[0].offsets(); next != 2 || !f.table.completePartition(0) {
		t.Errorf("read up to %d", next)
	}
}

// TestProgressIsLogged has no line before the first record.
func TestProgressIsLogged(t *testing.T) {
	f := newFailing(t)
	synctest.Test(t, func(t *testing.T) {
		go f.table.logProgress(t.Context())
		time.Sleep(logProgressEvery + time.Second)
		synctest.Wait()
		if f.logged.Len() > 0 {
			t.Errorf("nothing is read, and the log has %s", f.logged)
		}
		if err := f.apply(0, f.key(), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(logProgressEvery)
		synctest.Wait()
		if !strings.Contains(f.logged.String(), "records=1 share=0.500") {
			t.Errorf("the log has %q", f.logged)
		}
	})
}

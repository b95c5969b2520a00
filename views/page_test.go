package views

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func TestListing(t *testing.T) {
	f := newFixture(t)
	for _, row := range []*tidemarkv1.FileState{
		fileRow("ws1", "c", "/b/1", isActive, 1),
		fileRow("ws1", "a", "/b/2", isActive, 1),
		fileRow("ws1", "b", "/a", isTrashed, 1),
		fileRow("ws1", "d", "/b\x00x", isActive, 1), // between "/b" and "/b/", and no end of a path
		fileRow("ws1", "e", "", isActive, 1),
		fileRow("ws1", "f", "/b", isActive, 1),
		fileRow("ws1", "gone", "/b/0", isErased, 3),
		fileRow("ws10", "z", "/b/z", isActive, 1),
		fileRow("ws1a", "z", "/b/z", isActive, 1),
		fileRow("ws", "y", "/b/y", isActive, 1),
		fileRow("a/b", "_x%", "/p", isActive, 1),
	} {
		f.put(row)
	}
	for _, c := range []struct{ query, want string }{
		{"ws1/files?limit=2", "a c d e f"},
		{"ws1/files?limit=1&status=trashed", "b"},
		{"ws1/files?limit=2&status=all", "a b c d e f"},
		{"ws1/files?limit=2&path_prefix=/", "f d c a"},
		{"ws1/files?limit=2&path_prefix=/&status=all", "b f d c a"},
		{"ws1/files?limit=2&path_prefix=/b/", "c a"},
		{"ws1/files?limit=2&path_prefix=/b/1", "c"},
		{"ws1/files?limit=2&path_prefix=/a", ""},
		{"ws1/files?limit=2&path_prefix=/b%00", "d"},
		{"ws1/files?limit=2&path_prefix=", "a c d e f"},
		{"ws10/files?limit=2", "z"},
		{"ws/files?limit=2&path_prefix=/", "y"},
		{"a%2Fb/files?limit=2", "_x%"},
	} {
		if got := f.pages("/v1/workspaces/" + c.query); got != c.want {
			t.Errorf("%s lists %q, want %q", c.query, got, c.want)
		}
	}
}

func TestOlderRecordsAndNullsChangeNothing(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/new", isTrashed, 7))
	f.put(fileRow("ws", "a", "/old", isActive, 5)) // from a former owner
	if got := f.pages("/v1/workspaces/ws/files?status=all&path_prefix=/"); got != "a" {
		t.Errorf("lists %q", got)
	}
	if got := f.pages("/v1/workspaces/ws/files?limit=9"); got != "" {
		t.Errorf("the older row came back as active: %q", got)
	}
	f.put(fileRow("ws", "a", "/moved", isActive, 8))
	if got := f.pages("/v1/workspaces/ws/files?path_prefix=/new&status=all"); got != "" {
		t.Errorf("the old path is still listed: %q", got)
	}
	f.record(f.Server.files, f.files, "ws/a", nil) // another writer's, which the owner answers with the row
	f.record(f.Server.files, f.files, "ws/never seen", nil)
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != 200 || w.Header().Get("ETag") != `"8"` {
		t.Errorf("after a null: %d %s", w.Code, w.Body)
	}
	if got := f.pages("/v1/workspaces/ws/files?path_prefix=/moved"); got != "a" {
		t.Errorf("after a null it lists %q", got)
	}
	if got := f.skips("files", skipNull); got != 2 {
		t.Errorf("%g nulls are counted, want 2", got)
	}
	p := kafka.Partition("ws", 4)
	for space, want := range map[localstore.Space]int{
		localstore.Rows: 1, byID: 1, byPath: 1, byChange: 1,
	} {
		scan, found := f.Server.files.store.Scan(p, space, nil, nil), 0
		for scan.Next() {
			found++
		}
		if found != want || scan.Err() != nil {
			t.Errorf("space %d has %d entries (%v), want %d", space, found, scan.Err(), want)
		}
		scan.Close()
	}
}

// A workspace's row outlasts a null too, and a copy that is read from the beginning meets row, null and row again.
func TestANullInTheWorkspacesTableChangesNothing(t *testing.T) {
	f := newFixture(t)
	row, err := proto.Marshal(&tidemarkv1.WorkspaceState{WorkspaceId: "ws", Files: 3, Version: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range [][]byte{nil, row, nil, row, nil} {
		f.record(f.workspaces, f.works, "ws", value)
	}
	if w := f.get("/v1/workspaces/ws"); w.Code != 200 || !strings.Contains(w.Body.String(), `"files":3`) {
		t.Errorf("after nulls: %d %s", w.Code, w.Body)
	}
	if got := f.skips("workspaces", skipNull); got != 3 {
		t.Errorf("%g nulls are counted, want 3", got)
	}
}

func TestForeignRecordsAreSkipped(t *testing.T) {
	f := newFixture(t)
	for _, r := range []struct{ key, value string }{
		{"ws/a", "not protobuf"}, {"ws/a", ""}, {"ws", "x"}, {"ws/%zz", "x"}, {"", "x"},
	} {
		f.record(f.Server.files, f.files, r.key, []byte(r.value))
	}
	f.record(f.workspaces, f.works, "ws/a", []byte("x"))
	f.record(f.workspaces, f.works, "ws", []byte("x"))
	wrong := (kafka.Partition("ws", 4) + 1) % 4
	if err := f.Server.files.update(wrong, f.files[wrong], "ws/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for reason, want := range map[string]float64{skipBadKey: 3, skipBadValue: 2, skipPartition: 1} {
		if got := f.skips("files", reason); got != want {
			t.Errorf("%g records of the files table counted as %s, want %g", got, reason, want)
		}
	}
	if key, value := f.skips("workspaces", skipBadKey), f.skips("workspaces", skipBadValue); key != 1 || value != 1 {
		t.Errorf("of the workspaces table %g keys and %g values counted", key, value)
	}
	f.put(fileRow("ws", "b", "/b", isActive, 1)) // what follows is read
	if got := f.pages("/v1/workspaces/ws/files?limit=9"); got != "b" {
		t.Errorf("lists %q", got)
	}
}

// Pages read while files are moved, trashed and restored still list every untouched file exactly once, in order.
func TestCursorsAreStableUnderWrites(t *testing.T) {
	for _, order := range []string{"", "&path_prefix=/d/"} {
		for _, status := range []string{"active", "all"} {
			f := newFixture(t)
			random := rand.New(rand.NewPCG(1, 2))
			var still []string
			for i := range 300 {
				id := fmt.Sprintf("f%03d", i)
				f.put(fileRow("ws", id, "/d/"+id, isActive, 1))
				if i%3 == 0 {
					still = append(still, id)
				}
			}
			version := int64(1)
			disturb := func() {
				for range 20 {
					i := random.IntN(300)
					if i%3 == 0 {
						continue
					}
					version++
					state := []tidemarkv1.Status{isActive, isTrashed, isErased}[random.IntN(3)]
					f.put(fileRow("ws", fmt.Sprintf("f%03d", i), fmt.Sprintf("/d/f%03d", random.IntN(300)), state,
						version))
				}
			}
			var seen []string
			cursor := ""
			for {
				page, next := ids(t, f.get("/v1/workspaces/ws/files?limit=7&status="+status+order+"&cursor="+cursor))
				for id := range strings.FieldsSeq(page) {
					if slices.Contains(still, id) {
						seen = append(seen, id)
					}
				}
				if cursor = next; cursor == "" {
					break
				}
				disturb()
			}
			if !slices.Equal(seen, still) {
				t.Errorf("%s%s: of %d untouched files %d were listed, or not in order", status, order, len(still),
					len(seen))
			}
		}
	}
}

// A page costs what it returns: whatever the table holds, and whatever share of it the filter leaves out.
func TestPageCost(t *testing.T) {
	for _, size := range []int{1_000, 20_000} {
		f := newFixture(t)
		for i := range size {
			state := isTrashed
			if i%100 == 0 {
				state = isActive
			}
			f.put(fileRow("ws", fmt.Sprintf("f%07d", i), fmt.Sprintf("/d%d/f%07d", i%7, i), state, 1))
		}
		for _, q := range []query{
			{workspace: "ws", status: statusActive, kind: kindFile},
			{workspace: "ws", status: statusAll, kind: kindFile},
			{workspace: "ws", status: statusActive, kind: kindFile, prefix: "/d3/"},
			{workspace: "ws", status: statusAll, kind: kindFile, prefix: "/d3/"},
		} {
			first, err := list(f.Server.files.store, kafka.Partition("ws", 4), q, nil, 1)
			if err != nil {
				t.Fatal(err)
			}
			p, err := list(f.Server.files.store, kafka.Partition("ws", 4), q, first.next, 5)
			if err != nil {
				t.Fatal(err)
			}
			if read := entries(t, f.Server.files.store, q, first.next, p.next); p.count == 0 || read != p.count {
				t.Errorf("of %d rows, %+v: %d index entries for %d files", size, q, read, p.count)
			}
		}
	}
}

// entries counts the index entries that the scans of a page yield, up to the page's last file; nil is the end of the
// listing.
func entries(t *testing.T, store *localstore.Store, q query, from, last []byte) (n int) {
	t.Helper()
	scans, err := openScans(store, kafka.Partition("ws", 4), q, from)
	defer func() { scans.close() }()
	for err == nil {
		scan := scans.smallest()
		if scan == nil && last == nil {
			return n
		}
		if scan == nil {
			break
		}
		n++
		if last != nil && bytes.Equal(scan.tail, last) {
			return n
		}
		err = scan.move()
	}
	t.Fatalf("the scans do not reach %q: %v", last, err)
	return 0
}

// A file trashed while the two scans of a page are opened is in both, and listed once.
func TestPageListsAFileOnce(t *testing.T) {
	f := newFixture(t)
	p := kafka.Partition("ws", 4)
	q := query{workspace: "ws", status: statusAll, kind: kindFile}
	store := f.Server.files.store
	open := func(status tidemarkv1.Status, version int64) partScans {
		f.put(fileRow("ws", "a", "/a", status, version))
		scans, err := openScans(store, p, q, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(scans.close)
		return scans
	}
	earlier, later := open(isActive, 1), open(isTrashed, 2)
	var page page
	for _, scan := range []*partScan{earlier[0], later[1]} {
		if moved, err := page.add(store, p, q, scan); moved || err != nil {
			t.Errorf("moved %v, %v", moved, err)
		}
	}
	if page.count != 1 {
		t.Errorf("listed %d times", page.count)
	}
}

// A row that leaves its place in the order between the index and the row being read is not shown where it no longer is.
func TestPageSeesMovedRows(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	f.put(fileRow("ws", "b", "/b", isActive, 1))
	p := kafka.Partition("ws", 4)
	q := query{workspace: "ws", status: statusActive, kind: kindFile, prefix: "/"}
	scans, err := openScans(f.Server.files.store, p, q, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer scans.close()
	f.put(fileRow("ws", "a", "/c", isActive, 2))
	var page page
	if moved, err := page.add(f.Server.files.store, p, q, scans.smallest()); err != nil || !moved || page.count != 0 {
		t.Errorf("a file that moved away: moved %v, %d files, %v", moved, page.count, err)
	}
}

// Folders are listed where they are requested, in one order with the files.
func TestListingByKind(t *testing.T) {
	f := newFixture(t)
	folder := func(id, path string, status tidemarkv1.Status) *tidemarkv1.FileState {
		row := fileRow("ws", id, path, status, 1)
		row.Kind = tidemarkv1.Kind_KIND_FOLDER
		return row
	}
	f.put(fileRow("ws", "a", "/d/a", isActive, 1))
	f.put(folder("d", "/d", isActive))
	f.put(folder("e", "/e", isTrashed))
	f.put(fileRow("ws", "z", "/z", isTrashed, 1))
	for query, want := range map[string]string{
		"": "a", "kind=file&status=all": "a z", "kind=folder": "d", "kind=folder&status=all": "d e", "kind=all": "a d",
		"kind=all&status=all": "a d e z", "kind=all&status=trashed": "e z", "kind=all&path_prefix=/d": "d a",
	} {
		if got, _ := ids(t, f.get("/v1/workspaces/ws/files?"+query)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if r := f.get("/v1/workspaces/ws/files/d"); !strings.Contains(r.Body.String(), `"kind":"folder"`) {
		t.Errorf("a folder: %s", r.Body)
	}
	if r := f.get("/v1/workspaces/ws/files?kind=link"); r.Code != 400 ||
		!strings.Contains(r.Body.String(), "file, folder or all") {
		t.Errorf("a kind that there is not: %d %s", r.Code, r.Body)
	}
}

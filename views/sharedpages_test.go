package views

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Streams that begin and wait at other places share pages, and each has the files of the table in the end.
func TestStreamsThatSharePages(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "f0", "/f0", isActive, 1))
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	want := map[string]int64{}
	var readers sync.WaitGroup
	got := make([]map[string]int64, 30)
	read := func(i int) {
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		r := openStream(t, fmt.Sprintf("%s%s?limit=%d", server.URL, changesOfWs, 5+i%2*95))
		for got[i] = map[string]int64{}; got[i]["end"] == 0; {
			e := r.next()
			var c struct {
				Op      string
				FileID  string `json:"file_id"`
				Version int64
				File    struct {
					FileID string `json:"file_id"`
				}
			}
			if err := json.Unmarshal([]byte(e.data), &c); err != nil {
				t.Errorf("stream %d has %+v", i, e)
				return
			}
			if delete(got[i], c.FileID); c.Op == "upsert" {
				got[i][c.File.FileID] = c.Version
			}
		}
	}
	for i := range got {
		readers.Go(func() { read(i) })
	}
	random := rand.New(rand.NewPCG(1, 2))
	for version := int64(2); version < 400; version++ {
		id := fmt.Sprint("f", random.IntN(20))
		if delete(want, id); random.IntN(3) == 0 {
			f.put(fileRow("ws", id, "", isTrashed, version))
		} else {
			f.put(fileRow("ws", id, "", isActive, version))
			want[id] = version
		}
		if version%8 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	f.put(fileRow("ws", "end", "", isActive, 1))
	want["end"] = 1
	readers.Wait()
	f.Stop()
	for i := range got {
		if !maps.Equal(got[i], want) {
			t.Errorf("stream %d has %v, and the table %v", i, got[i], want)
		}
	}
}

// The checksum of a cursor has no key. A forged one changes nothing for the other clients of the workspace.
func TestAForgedCursorIsNotShared(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	q, p := query{workspace: "ws", status: statusActive, kind: kindFile}, f.partition("ws")
	f.now.eventsEnd[p], f.now.filesCommit[p], f.now.filesEnd[p] = 7, 7, 1
	f.poll()
	_, a := changes(t, f.get(changesOfWs+"?cursor=latest"))
	honest, err := q.decodeChangesCursor(a.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	f.put(fileRow("ws", "a", "/a", isTrashed, 2))
	forged := honest
	forged.nextEvent = 1 << 60
	if _, err := f.readSharedPage(p, q, forged, 10); err != nil {
		t.Fatal(err)
	}
	page, err := f.readSharedPage(p, q, honest, 10)
	if err != nil || len(page.changes) != 1 || page.at.nextEvent != 7 {
		t.Errorf("%d changes, next event %d, %v", len(page.changes), page.at.nextEvent, err)
	}
	honest.nextEvent = 9 // of an instance that knew more
	if page, err = f.readSharedPage(p, q, honest, 10); err != nil || page.at.nextEvent != 9 {
		t.Errorf("complete_to goes back to %d, %v", page.at.nextEvent, err)
	}
	forged.deletes = 1 << 60
	if w := f.get(changesOfWs + "?cursor=" + q.encodeChangesCursor(forged)); code(t, w) != codeBadCursor {
		t.Errorf("forged deletes: %d %s", w.Code, w.Body)
	}
}

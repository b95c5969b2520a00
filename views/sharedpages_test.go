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

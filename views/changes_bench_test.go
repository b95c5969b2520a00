package views

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// BenchmarkChangesReaders is a change every 20 ms for 1,000 readers of one workspace. The readers are in the same
// process, and their share of the memory and the time is in the figures.
func BenchmarkChangesReaders(b *testing.B) {
	const readers = 1000
	f := newFixture(b)
	f.put(fileRow("ws", "f", "/f", isActive, 1))
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	before := heap()
	lags := make(chan time.Duration, readers*16)
	var conns []net.Conn
	var ready, ended sync.WaitGroup
	for range readers {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, conn)
		fmt.Fprintf(conn, "GET %s?cursor=latest HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n", changesOfWs)
		ready.Add(1)
		ended.Go(func() {
			lines := bufio.NewScanner(conn)
			first := sync.OnceFunc(ready.Done)
			for lines.Scan() {
				if bytes.Contains(lines.Bytes(), []byte("event: heartbeat")) {
					first()
				}
				if _, rest, ok := bytes.Cut(lines.Bytes(), []byte(`"name":"`)); ok {
					sent, _, _ := bytes.Cut(rest, []byte(`"`))
					at, err := strconv.ParseInt(string(sent), 10, 64)
					if err != nil {
						panic(err)
					}
					lags <- time.Since(time.Unix(0, at))
				}
			}
		})
	}
	ready.Wait()
	perReader := float64(heap()-before) / readers
	var all []time.Duration
	version := int64(1)
	next := time.NewTicker(20 * time.Millisecond)
	defer next.Stop()
	go func() {
		for range b.N {
			version++
			row := fileRow("ws", fmt.Sprint("f", version), "/f", isActive, version)
			row.Name = strconv.FormatInt(time.Now().UnixNano(), 10)
			f.put(row)
			<-next.C
		}
	}()
	b.ResetTimer()
	for range b.N * readers {
		all = append(all, <-lags)
	}
	b.StopTimer()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(perReader, "bytes/reader")
	f.Stop()
	for _, conn := range conns {
		conn.Close()
	}
	ended.Wait()
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkResync is a resync of 100,000 files of which 1,000 have changed, as a listing and as a diff.
func BenchmarkResync(b *testing.B) {
	const files = 100_000
	f := newFixture(b)
	request := []byte(`{"files":[`)
	for i := range files {
		row := fileRow("ws", fmt.Sprintf("2q%016d", i), fmt.Sprintf("/reports/%d/q%07d.pdf", i%100, i), isActive, 2)
		row.Name, row.Size, row.Mime = fmt.Sprintf("q%07d.pdf", i), new(int64(i)), "application/pdf"
		row.Hash, row.ActorId = fmt.Sprintf("sha256:%064d", i), "usr_1234567890"
		row.LastEvent, row.LastEventId = "workspace_storage_file_updated", fmt.Sprintf("evt_%020d", i)
		row.CreatedAt, row.UpdatedAt = new(int64(1790000000000000)), new(int64(1790000000000000))
		row.Seen = make([]byte, 24*5)
		f.put(row)
		version := 2
		if i%100 == 0 {
			version = 1
		}
		request = fmt.Appendf(request, `{"id":"%s","version":%d},`, row.GetFileId(), version)
	}
	request = append(request[:len(request)-1], "]}"...)
	b.Run("listing", func(b *testing.B) {
		for b.Loop() {
			bytes, cursor := 0, ""
			for {
				w := f.get("/v1/workspaces/ws/files?limit=1000&cursor=" + cursor)
				bytes += w.Body.Len()
				if _, cursor = ids(b, w); cursor == "" {
					break
				}
			}
			b.ReportMetric(float64(bytes), "bytes-down")
		}
	})
	b.Run("diff", func(b *testing.B) {
		for b.Loop() {
			w := f.post("/v1/workspaces/ws/changes/diff", string(request))
			if w.Code != 200 {
				b.Fatal(w.Code)
			}
			b.ReportMetric(float64(w.Body.Len()), "bytes-down")
			b.ReportMetric(float64(len(request)), "bytes-up")
		}
	})
}

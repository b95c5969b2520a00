package views

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// BenchmarkPage shows that a page does not grow with its table.
func BenchmarkPage(b *testing.B) {
	for _, size := range []int{10_000, 200_000} {
		f := newFixture(b)
		for i := range size {
			state := isTrashed
			if i%10 == 0 {
				state = isActive
			}
			f.put(fileRow("ws", fmt.Sprintf("f%07d", i), fmt.Sprintf("/d%d/f%07d", i%7, i), state, 1))
		}
		for _, prefix := range []string{"", "/d3/"} {
			b.Run(fmt.Sprintf("rows=%d/prefix=%s", size, prefix), func(b *testing.B) {
				q := query{workspace: "ws", status: statusActive, kind: kindFile, prefix: prefix}
				for b.Loop() {
					if p, err := list(f.Server.files.store, kafka.Partition("ws", 4), q, nil, 100); err != nil ||
						p.count != 100 {
						b.Fatal(p.count, err)
					}
				}
			})
		}
	}
}

// changelog returns records of the files table as the processors write them: each of the files is changed some times.
func changelog(tb testing.TB, records, files int) (keys []string, values [][]byte) {
	tb.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	versions := make([]int64, files)
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	for i := range records {
		f := random.IntN(files)
		versions[f]++
		row := fileRow(fmt.Sprintf("ws%016d", f%100), fmt.Sprintf("2abcdefghijk%016d", f),
			fmt.Sprintf("/finance/reports/2026/report-%d.pdf", f), isActive, versions[f])
		at := 1_790_000_000_000_000 + int64(i)
		row.Name, row.Mime, row.Size = fmt.Sprintf("report-%d.pdf", f), "application/pdf", &at
		row.Hash, row.ActorId = fmt.Sprintf("sha256:%x", bytesOf(32)), "usr_123"
		row.LastEvent, row.LastEventId = "workspace_storage_file_updated", fmt.Sprintf("evt_%x", bytesOf(13))
		row.CreatedAt, row.UpdatedAt, row.LastAt = &at, &at, &at
		row.Position = &tidemarkv1.Position{Offset: int64(i)}
		row.FieldTimes = []uint64{1, 1, 1, 1, 1, 1, 1, 1}
		row.Seen = bytesOf(24 * min(int(versions[f]), 256))
		value, err := proto.Marshal(row)
		if err != nil {
			tb.Fatal(err)
		}
		keys, values = append(keys, tidemarkv1.JoinKey(row.GetWorkspaceId(), row.GetFileId())), append(values, value)
	}
	return keys, values
}

// BenchmarkRecovery is the cost of a table record while a copy is read, and how much of it remains without the load: as
// records are applied afterwards.
func BenchmarkRecovery(b *testing.B) {
	const partitions = 4
	keys, values := changelog(b, 300_000, 60_000)
	for name, load := range map[string]bool{"loaded": true, "applied": false} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f := newFixture(b)
				t := f.Server.files
				opened := make([]*partitionStorage, partitions)
				for i := range opened {
					p, err := t.newStorage(b.Context(), int32(i))
					if err != nil {
						b.Fatal(err)
					}
					if !load {
						p.Close()
					}
					opened[i] = p
				}
				for i, key := range keys {
					p := kafka.FilePartition([]byte(key), partitions)
					if err := opened[p].apply(int64(i), key, values[i]); err != nil {
						b.Fatal(err)
					}
				}
				for _, p := range opened {
					if err := p.MarkRecovered(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(keys)), "ns/record")
		})
	}
}

// A discardWriter keeps the status of an answer only.
type discardWriter struct {
	header http.Header
	status int
}

func (w *discardWriter) Header() http.Header            { return w.header }
func (w *discardWriter) Write(b []byte) (int, error)    { return len(b), nil }
func (w *discardWriter) WriteHeader(status int)         { w.status = status }
func (*discardWriter) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkGetFile is the cost of a read of one file, without net/http.
func BenchmarkGetFile(b *testing.B) {
	const files = 50_000
	f := newFixture(b)
	keys, values := changelog(b, 2*files, files)
	for partition := range int32(4) {
		p, err := f.Server.files.newStorage(b.Context(), partition)
		if err != nil {
			b.Fatal(err)
		}
		for i, key := range keys {
			if kafka.FilePartition([]byte(key), 4) == partition {
				if err := p.apply(int64(i), key, values[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
		if err := p.MarkRecovered(); err != nil {
			b.Fatal(err)
		}
	}
	handler := f.Handler()
	requests := make([]*http.Request, 4096)
	for i := range requests {
		workspace, file, _ := strings.Cut(keys[i*7%len(keys)], "/")
		requests[i] = httptest.NewRequest(http.MethodGet, "/v1/workspaces/"+workspace+"/files/"+file, nil)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		w := &discardWriter{header: http.Header{}}
		if handler.ServeHTTP(w, requests[i%len(requests)]); w.status != http.StatusOK {
			b.Fatal(w.status)
		}
		i++
	}
}

package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/parquetlog"
)

const query = `
import duckdb, json, sys
rows = duckdb.connect().execute("""
	SELECT count(*), count(DISTINCT event_id), count(value), count(value_bytes), count(size), min("offset"),
		max("offset"), min(epoch_us(log_time)), count(*) FILTER (json_valid(value) AND value->>'$.future[0]' = '1.0'),
		count(*) FILTER (decode(key) = workspace_id), count(*) FILTER (len(headers) = 1),
		count(*) FILTER (strftime(log_time, '%H') = hour::VARCHAR), min(dt)::VARCHAR
	FROM read_parquet(?, hive_partitioning = true, hive_types = {'hour': VARCHAR})
""", [sys.argv[1]]).fetchall()
print(json.dumps(rows[0]))
`

// DuckDB reads the objects, finds each event once, and the fields that tidemark does not know.
func TestDuckDB(t *testing.T) {
	python, err := exec.Command("../../.ci/python").Output()
	if err != nil {
		t.Skip("no Python with DuckDB: see .ci/python")
	}
	l := newLog()
	for i := range int64(300) {
		l.add(event(i, float64(i)/100))
	}
	broken := event(300, 3)
	broken.Value = []byte("\xff\x00")
	l.add(broken)
	dir, url := folderURL(t)
	g := newGroup()
	newArchive(t, url, l, nil).untilIdle(t, l, g, g.member(l, 100))
	command := exec.Command(strings.TrimSpace(string(python)), "-c", query, dir+"/*/*/*/*.parquet")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	n := float64(300)
	want := []any{n + 1, n, n, 1.0, 0.0, 0.0, n, float64(noon.UnixMicro()), n, n, n + 1, n + 1, "2026-11-29"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A cutter forwards connections, and cuts some of them after some bytes.
func cutter(t *testing.T, target string) (address string, cuts *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	cuts = &atomic.Int64{}
	go func() {
		for n := int64(1); ; n++ {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			dice := rand.IntN(4)
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer out.Close()
				var both sync.WaitGroup
				both.Go(func() { pass(out, in, dice == 0, 100+n*997%20_000, cuts) })
				both.Go(func() { pass(in, out, dice == 1, 0, cuts) }) // the answer is lost, the object is there
				both.Wait()
			}()
		}
	}()
	return listener.Addr().String(), cuts
}

func pass(to, from net.Conn, cut bool, after int64, cuts *atomic.Int64) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 4096)
	for passed := int64(0); ; {
		n, err := from.Read(buffer)
		if passed += int64(n); cut && passed > after {
			cuts.Add(1)
			return
		}
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

// Uploads whose connection is cut, in the middle of the body or before the answer, are tried again. The objects are
// those of a run without cuts.
func TestCutUploads(t *testing.T) {
	server := os.Getenv("S3_ENDPOINT")
	if server == "" {
		t.Skip("no S3 server: see .ci/s3")
	}
	l := newLog()
	for i := range int64(1500) {
		r := event(i, float64(i)/100)
		r.Value = fmt.Appendf(r.Value, "%x", time.Duration(i*7919*7919)) // that does not compress well
		l.add(r)
	}
	s3 := stores(t)[1]
	want, calm := s3.url(t), newGroup()
	newArchive(t, want, l, nil).untilIdle(t, l, calm, calm.member(l, 100))
	address, cuts := cutter(t, strings.TrimPrefix(server, "http://"))
	got, g := s3.url(t), newGroup()
	a := newArchive(t, got, l, nil) // its check is not retried
	var err error
	if a.store, err = (parquetlog.Location{URL: got, Endpoint: "http://" + address}).Open(); err != nil {
		t.Fatal(err)
	}
	a.conf.Retry = func(ctx context.Context, attempt func(context.Context) error) error {
		for {
			one, cancel := context.WithTimeout(ctx, 3*time.Second)
			err := attempt(one)
			cancel()
			if err == nil || ctx.Err() != nil {
				return err
			}
		}
	}
	a.untilIdle(t, l, g, g.member(l, 100))
	if diff := cmp.Diff(s3.objects(t, want), s3.objects(t, got)); diff != "" || cuts.Load() < 10 {
		t.Errorf("%d cuts (-want +got):\n%s", cuts.Load(), diff)
	}
	records, err := read(t, got)
	if diff := same(l.data(), records); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// 32 partitions that close at the same time take less than 128 MB, the S3 server in the process included. 4 upload at a
// time.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	server, place := newS3(t)
	server.pause = 500 * time.Millisecond
	const partitions, records = 32, 4_000
	l := newLog()
	for i := range int64(records) {
		r := event(i, 0)
		pad := make([]byte, 1500)
		for j := range pad {
			pad[j] = 'a' + byte((i*31+int64(j*j))%26)
		}
		r.Value = append(r.Value[:len(r.Value)-1], fmt.Sprintf(`,"pad":"%s%d"}`, pad, i*7919)...)
		l.add(r)
	}
	a := newArchive(t, place.URL, l, func(c *Config) { c.Location, c.MaxRecords, c.MaxBytes = place, 0, 0 })
	base := heap()
	var peak atomic.Uint64
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				peak.Store(max(peak.Load(), heap()))
			}
		}
	}()
	begun := time.Now()
	var all sync.WaitGroup
	for n := range int32(partitions) {
		g := newGroup()
		all.Go(func() { a.untilIdle(t, l, g, &numbered{g.member(l, 100), n}) })
	}
	all.Wait()
	close(done)
	taken := float64(peak.Load()-base) / (1 << 20)
	seconds := time.Since(begun).Seconds()
	t.Logf("%.0f MB, %d uploads, %d records of 1.7 KB in %.1f s", taken, server.most, partitions*records, seconds)
	if taken > 128 || server.most != maxUploads {
		t.Errorf("%.0f MB, want less than 128; %d uploads at a time, want %d", taken, server.most, maxUploads)
	}
}

type numbered struct {
	*member
	number int32
}

func (n *numbered) Number() int32 { return n.number }

// heap returns the memory that the process has from the system, less what it gave back.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}

package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"tidemark/kafka"
	"tidemark/parquetlog"
	"tidemark/sinks"
	"tidemark/topology"
)

// An s3Server is an S3 server in the process, with the bucket `bucket` in a folder. Its faults are those of the test.
type s3Server struct {
	dir     string
	fault   atomic.Pointer[func(w http.ResponseWriter, r *http.Request)] // nil: none
	pause   time.Duration                                                // of each upload
	mu      sync.Mutex
	puts    int // under way
	most    int // of puts
	refused int // requests that met a fault
}

func newS3(t *testing.T) (s *s3Server, place parquetlog.Location) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
	t.Setenv("AWS_REGION", "us-east-1")
	s = &s3Server{dir: t.TempDir()}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, parquetlog.Location{URL: "s3://bucket", Endpoint: server.URL}
}

func (s *s3Server) count(puts, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts, s.refused = s.puts+puts, s.refused+refused
	s.most = max(s.most, s.puts)
}

func (s *s3Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if fault := s.fault.Load(); fault != nil {
		s.count(0, 1)
		(*fault)(w, r)
		return
	}
	name := filepath.Join(s.dir, strings.TrimPrefix(r.URL.Path, "/bucket/"))
	if r.Method == http.MethodPut {
		s.count(1, 0)
		defer s.count(-1, 0)
		s.put(w, r, name)
		return
	}
	file, err := os.Open(name)
	if err != nil {
		http.Error(w, "<Error><Code>NoSuchKey</Code></Error>", http.StatusNotFound)
		return
	}
	defer file.Close()
	w.Header().Set("ETag", `"1"`)
	http.ServeContent(w, r, "", noon, file)
}

// put decodes the chunks that S3 clients sign, "size;signature", and stores a whole body that is new.
func (s *s3Server) put(w http.ResponseWriter, r *http.Request, name string) {
	time.Sleep(s.pause)
	in, part := bufio.NewReader(r.Body), filepath.Join(s.dir, fmt.Sprintf("part-%p", r))
	file, err := os.Create(part)
	defer os.Remove(part)
	for size := int64(-1); err == nil && size != 0; {
		var header string
		if header, err = in.ReadString('\n'); err == nil {
			_, err = fmt.Sscanf(header, "%x;", &size)
		}
		if err == nil {
			_, err = io.CopyN(file, in, size)
		}
		if err == nil {
			_, err = in.ReadString('\n')
		}
	}
	err = errors.Join(err, file.Close(), os.MkdirAll(filepath.Dir(name), 0o750))
	if err == nil {
		err = os.Link(part, name)
	}
	switch {
	case errors.Is(err, fs.ErrExist) && r.Header.Get("If-None-Match") == "*":
		http.Error(w, "<Error><Code>PreconditionFailed</Code></Error>", http.StatusPreconditionFailed)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func answers(status int, code string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
	}
}

// newRetry returns the retries of the loop, as the binary has them.
func newRetry(t *testing.T, attempt time.Duration) *sinks.Loop {
	t.Helper()
	streams, err := topology.New("fastio", topology.Sizing{Partitions: 4, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	loop, err := sinks.NewPartitionLoop(sinks.Config{
		Name: topology.SinkArchive, Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}, Streams: streams,
		Topics: []topology.Topic{streams.Events}, Log: slog.New(slog.DiscardHandler),
		Metrics: sinks.NewMetrics(prometheus.NewRegistry()), Attempt: attempt,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return loop
}

// While the bucket is down, hangs or refuses, from the middle of an archive on, the partitions wait and readiness says
// why. Afterwards the archive is as if nothing had been.
func TestDestinationFails(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
		<-r.Context().Done()
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		if connection, _, err := http.NewResponseController(w).Hijack(); err == nil {
			connection.Close()
		}
	}
	const partitions = 6 // more failures than the breaker tolerates
	l := newLog()
	for i := range int64(200) {
		l.add(event(i, float64(i)/20))
	}
	want, calm := folderURL(t)
	for n := range int32(partitions) {
		g := newGroup()
		newArchive(t, calm, l, nil).untilIdle(t, l, g, &numbered{g.member(l, 20), n})
	}
	for name, test := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request)
		says  string
	}{
		"down":  {cut, "see --s3-endpoint"},
		"hangs": {hang, "no answer within 500ms"},
		"503":   {answers(503, "SlowDown"), "SlowDown"},
		"429":   {answers(429, "TooManyRequests"), "TooManyRequests"},
		"403":   {answers(403, "AccessDenied"), "s3:PutObject"},
		"500":   {answers(500, "InternalError"), "InternalError"},
	} {
		s, place := newS3(t)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			loop := newRetry(t, 500*time.Millisecond)
			a := newArchive(t, place.URL, l, func(c *Config) { c.Location, c.Retry = place, loop.Do })
			var all sync.WaitGroup
			var middle sync.Once
			for n := range int32(partitions) {
				g := newGroup()
				m, left := g.member(l, 20), 5
				m.before = func() {
					if left--; left == 0 {
						middle.Do(func() { s.fault.Store(&test.fault) })
					}
				}
				all.Go(func() { a.untilIdle(t, l, g, &numbered{m, n}) })
			}
			var err error
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if err = loop.Ready(); strings.Contains(err.Error(), "the destination is down") {
					break
				}
			}
			if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "very-secret") {
				t.Errorf("readiness: %v, want %q", err, test.says)
			}
			if got := len(objects(t, s.dir)); got == 0 || got >= len(objects(t, want)) {
				t.Errorf("%d objects: the fault was not in the middle", got)
			}
			s.fault.Store(nil)
			all.Wait()
			if diff := cmp.Diff(objects(t, want), objects(t, s.dir)); diff != "" || s.refused < maxUploads {
				t.Errorf("%d requests met the fault (-want +got):\n%s", s.refused, diff)
			}
		})
	}
}

// A hanging store is a folder on a file server that does not answer: a system call that nothing can cancel.
type hanging struct {
	parquetlog.Store
	calls  chan string
	answer chan struct{}
}

func (h *hanging) Create(ctx context.Context, name string, file *os.File) (bool, error) {
	h.calls <- name
	<-h.answer
	return h.Store.Create(ctx, name, file)
}

// The drain of a partition ends although the store does not answer. Nothing is committed, so the next owner archives
// it all. What the hanging call does later changes nothing.
func TestFileSystemHangs(t *testing.T) {
	t.Parallel()
	l := newLog(event(0, 0), event(1, 0.1), event(2, 5))
	dir, url := folderURL(t)
	a := newArchive(t, url, l, func(c *Config) {
		c.Retry = func(ctx context.Context, attempt func(context.Context) error) error {
			for ctx.Err() == nil {
				one, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				_ = attempt(one) // fails
				cancel()
			}
			return ctx.Err()
		}
	})
	h := &hanging{Store: a.store, calls: make(chan string, 99), answer: make(chan struct{})}
	a.store = h
	ctx, drain := context.WithCancel(t.Context())
	defer drain()
	ended, g := make(chan error, 1), newGroup()
	go func() { ended <- a.Partition(ctx, g.member(l, 10)) }()
	for range maxUploads {
		<-h.calls
	}
	time.Sleep(1500 * time.Millisecond)
	if more := len(h.calls); more > 0 {
		t.Errorf("%d attempts more than may be under way: they would add up", more)
	}
	begin := time.Now()
	drain()
	select {
	case err := <-ended:
		text := fmt.Sprint(err)
		if !strings.Contains(text, "00000.parquet") || !strings.Contains(text, "4 uploads have not ended") {
			t.Error(text)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the drain does not end")
	}
	t.Logf("drained in %v", time.Since(begin))
	if at, _ := g.at(); at >= 0 {
		t.Errorf("committed %d", at)
	}
	newArchive(t, url, l, nil).untilIdle(t, l, g, g.member(l, 10))
	before := objects(t, dir)
	close(h.answer)
	time.Sleep(100 * time.Millisecond)
	if diff := cmp.Diff(before, objects(t, dir)); diff != "" || len(before) != 2 {
		t.Errorf("(-want +got):\n%s", diff)
	}
	records, err := read(t, url)
	if diff := same(l.data(), records); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	a = newArchive(t, url, l, nil)
	a.store = &hanging{Store: a.store, calls: make(chan string, 99), answer: make(chan struct{})}
	one, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := a.Check(one); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("check: %v", err)
	}
}

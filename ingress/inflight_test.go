package ingress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tidemark/kafka"
)

func TestNoAckInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, events := newTestServer(t, nil)
		events.set(true, nil)
		start := time.Now()
		refused(t, serve(s, post(t, minimal)), http.StatusServiceUnavailable, "no_ack", "")
		if took := time.Since(start); took != MaxAckTimeout {
			t.Errorf("answered after %v", took)
		}
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "no acknowledgement within 2.5s") {
			t.Errorf("readiness says %v", err)
		}
		if count, size := s.inFlight.usage(); count != 1 || size != int64(len(events.all()[0].value)) {
			t.Errorf("%d events of %d bytes in flight: the place was given back before the record's fate was known",
				count, size)
		}
		events.release()
		if count, size := s.inFlight.usage(); count != 0 || size != 0 {
			t.Errorf("%d events of %d bytes in flight after the acknowledgement", count, size)
		}
		var late dto.Metric
		if err := s.metrics.late.WithLabelValues(landed).Write(&late); err != nil || late.GetCounter().GetValue() != 1 {
			t.Errorf("%v late acknowledgements counted (%v)", late.GetCounter().GetValue(), err)
		}
		took(t, serve(s, post(t, minimal)), "evt1", "0:1")
	})
}

// An acknowledgement a moment before the time is up is a 200.
func TestLastMomentAck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, events := newTestServer(t, nil)
		events.set(true, nil)
		time.AfterFunc(MaxAckTimeout-time.Nanosecond, events.release)
		took(t, serve(s, post(t, minimal)), "evt1", "0:0")
	})
}

func TestInFlightIsBounded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		tweak func(*Config)
	}{
		{"by count", func(c *Config) { c.MaxInFlight = 3 }},
		{"by bytes", func(c *Config) { c.MaxInFlightBytes = 3*int64(len(minimal)) + 3*80 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, events := newTestServer(t, test.tweak)
				events.set(true, nil)
				answers := make(chan *httptest.ResponseRecorder, 3)
				for range 3 {
					go func() { answers <- serve(s, post(t, minimal)) }()
				}
				synctest.Wait()
				start := time.Now()
				refused(t, serve(s, post(t, minimal)), http.StatusServiceUnavailable, "busy", "")
				if time.Since(start) != 0 {
					t.Error("a full server made the sender wait")
				}
				if n := len(events.all()); n != 3 {
					t.Errorf("%d events were passed on", n)
				}
				events.release()
				for range 3 {
					if w := <-answers; w.Code != 200 {
						t.Errorf("%d %s", w.Code, w.Body)
					}
				}
				if w := serve(s, post(t, minimal)); w.Code != 200 {
					t.Errorf("after release: %d", w.Code)
				}
			})
		})
	}
}

// A partition that acknowledges nothing keeps its own events out, and nobody else's.
func TestAPartitionHasItsShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const partitions = 8
		s, events := newTestServer(t, func(c *Config) { c.MaxInFlight, c.Partitions = 16, partitions })
		of := func(workspace string) *http.Request {
			return post(t, strings.Replace(minimal, "123", workspace, 1))
		}
		events.set(true, nil)
		var answers sync.WaitGroup
		for range 4 { // two sixteenths, twice
			answers.Go(func() { serve(s, of("123")) })
		}
		synctest.Wait()
		refused(t, serve(s, of("123")), http.StatusServiceUnavailable, "busy", "")
		time.Sleep(MaxAckTimeout) // that nobody waits for them any more frees no place
		synctest.Wait()
		refused(t, serve(s, of("123")), http.StatusServiceUnavailable, "busy", "")
		events.set(false, nil)
		for i := range 100 {
			if workspace := fmt.Sprint("w", i); kafka.Partition(workspace, partitions) != kafka.Partition("123",
				partitions) {
				if w := serve(s, of(workspace)); w.Code != http.StatusOK {
					t.Fatalf("a workspace of another partition: %d %s", w.Code, w.Body)
				}
			}
		}
		events.release()
		answers.Wait()
		if w := serve(s, of("123")); w.Code != http.StatusOK {
			t.Errorf("once it acknowledges again: %d %s", w.Code, w.Body)
		}
		if n, bytes := s.inFlight.usage(); n != 0 || bytes != 0 {
			t.Errorf("%d events of %d bytes in flight at the end", n, bytes)
		}
	})
}

// One event over the bound of bytes passes when it is alone: nothing would ever make room for it.
func TestOneOverTheBound(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer(t, func(c *Config) { c.MaxInFlightBytes = 1 })
	took(t, serve(s, post(t, minimal)), "evt1", "0:0")
}

func TestFailingLogAndRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		s, events := newTestServer(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
		if err := s.Ready(); err != nil {
			t.Fatal(err)
		}
		events.set(false, errors.New("leader not available"))
		for range 3 {
			refused(t, serve(s, post(t, minimal)), http.StatusServiceUnavailable, "log_unavailable", "")
		}
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "leader not available") {
			t.Errorf("readiness says %v", err)
		}
		events.set(false, nil)
		took(t, serve(s, post(t, minimal)), "evt1", "0:3")
		if err := s.Ready(); err != nil {
			t.Errorf("readiness after recovery says %v", err)
		}
		if n := strings.Count(logged.String(), "\n"); n != 2 {
			t.Errorf("3 failures and a recovery are %d lines of log, want one each:\n%s", n, &logged)
		}
	})
}

// Without traffic a failure is forgotten after a while: someone has to try.
func TestFailureFades(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, events := newTestServer(t, nil)
		events.set(false, errors.New("gone"))
		serve(s, post(t, minimal))
		if err := s.Ready(); err == nil {
			t.Error("ready right after a failure")
		}
		time.Sleep(failureHolds)
		if err := s.Ready(); err != nil {
			t.Errorf("still not ready: %v", err)
		}
	})
}

func TestReadinessFollowsTheCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		result, calls := errors.New("no broker answers"), 0
		s, _ := newTestServer(t, func(c *Config) {
			c.Check = func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				calls++
				return result
			}
		})
		for range 5 {
			if err := s.Ready(); err == nil || err.Error() != "no broker answers" {
				t.Errorf("readiness says %v", err)
			}
		}
		mu.Lock()
		if calls != 1 {
			t.Errorf("%d checks at once", calls)
		}
		result = nil
		mu.Unlock()
		time.Sleep(checkEvery)
		if err := s.Ready(); err != nil {
			t.Errorf("the broker is back, readiness says %v", err)
		}
	})
}

// A check that hangs must not hang readiness.
func TestReadinessDoesNotHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := newTestServer(t, func(c *Config) {
			c.Check = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		})
		start := time.Now()
		if err := s.Ready(); err == nil || time.Since(start) > checkWait {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		time.Sleep(checkTimeout)
		if err := s.Ready(); err == nil {
			t.Error("ready though no check ever ended well")
		}
		time.Sleep(checkTimeout)
	})
}

func TestCloseDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, events := newTestServer(t, nil)
		events.set(true, nil)
		answer := make(chan *httptest.ResponseRecorder, 1)
		go func() { answer <- serve(s, post(t, minimal)) }()
		synctest.Wait()

		closed := make(chan error, 1)
		go func() { closed <- s.Close(t.Context()) }()
		synctest.Wait()
		w := serve(s, post(t, minimal))
		refused(t, w, http.StatusServiceUnavailable, "draining", "")
		if w.Header().Get("Connection") != "close" {
			t.Error("the connection to a server that leaves stays open")
		}
		if err := s.Ready(); err == nil {
			t.Error("ready while draining")
		}
		select {
		case err := <-closed:
			t.Fatalf("closed with an event in flight: %v", err)
		default:
		}
		if events.closed {
			t.Error("the producer was closed with an event in flight")
		}
		events.release()
		if err := <-closed; err != nil || !events.closed {
			t.Errorf("closed the producer: %v, %v", events.closed, err)
		}
		took(t, <-answer, "evt1", "0:0")
		if err := s.Close(t.Context()); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, events := newTestServer(t, nil)
		events.set(true, nil)
		serve(s, post(t, minimal))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "1 events in flight") {
			t.Errorf("got %v", err)
		}
	})
}

// Run with -race: many senders, some of whose events fail, some late.
func TestConcurrentSenders(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, func(c *Config) {
		c.MaxInFlight, c.AckTimeout = 16, 20*time.Millisecond
		c.Rate, c.Burst = 1e6, 1e6
	})
	stop := make(chan struct{})
	var trouble, senders sync.WaitGroup
	trouble.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				events.release()
				events.set(false, nil)
				return
			case <-time.After(3 * time.Millisecond):
				var err error
				if i%3 == 2 {
					err = errors.New("failing")
				}
				events.release()
				events.set(i%3 == 1, err)
				_ = s.Ready()
			}
		}
	})
	var mu sync.Mutex
	answered := map[string]bool{} // position: acknowledged
	for sender := range 8 {
		senders.Go(func() {
			for i := range 100 {
				body := fmt.Sprintf(`{"event":"e","workspace_id":"w%d","event_id":"e%d"}`, sender, i)
				w := serve(s, post(t, body))
				if w.Code != 200 && w.Code != 503 {
					t.Errorf("%d %s", w.Code, w.Body)
				}
				if w.Code == 200 {
					mu.Lock()
					if answered[w.Body.String()] {
						t.Errorf("answered twice: %s", w.Body)
					}
					answered[fmt.Sprint(sender)+w.Body.String()] = true
					mu.Unlock()
				}
			}
		})
	}
	senders.Wait()
	close(stop)
	trouble.Wait()
	events.release()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if count, size := s.inFlight.usage(); count != 0 || size != 0 {
		t.Errorf("%d events of %d bytes in flight at the end", count, size)
	}
	if len(answered) == 0 {
		t.Error("nothing was accepted")
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s, _ := newTestServer(t, func(c *Config) { c.Metrics = registry })
	serve(s, post(t, minimal))
	serve(s, post(t, "{"))
	serve(s, httptest.NewRequest("GET", "/workspace-77", nil))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += "/" + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"tidemark_ingress_requests_total/accepted": 1, "tidemark_ingress_requests_total/not_found": 1,
		"tidemark_ingress_requests_total/not_json": 1,
		"tidemark_ingress_body_bytes_total":        float64(len(minimal) + 1), "tidemark_ingress_ack_seconds": 1,
		"tidemark_ingress_in_flight": 0, "tidemark_ingress_in_flight_bytes": 0,
		"tidemark_ingress_late_acks_total/landed": 0, "tidemark_ingress_late_acks_total/failed": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	_, err = New(Config{
		Secrets: s.secrets, Topic: "t", Partitions: 1, Producer: &memoryLog{},
		Check:   func(context.Context) error { return nil },
		Metrics: registry,
	})
	if err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("two servers share one registry's names and New said %v", err)
	}
}

func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	good := secretsOf(t, Scheme{}, anyKey)
	for _, test := range []struct {
		config Config
		err    string
	}{
		{Config{}, "no webhook secret"},
		{Config{Secrets: []Secret{{}}}, "webhook secret 1 is of 0 bytes"},
		{Config{Secrets: good, Rate: -1}, "rate -1"},
		{Config{Secrets: good, Rate: 1, Burst: -1}, "burst -1"},
		{Config{Secrets: good, AckTimeout: 3 * time.Second}, "want at most 2.5s"},
		{Config{Secrets: good, MaxInFlight: -1}, "bounds of -1 events"},
	} {
		c := test.config
		c.Topic, c.Partitions, c.Producer = "fastio-events", 1, &memoryLog{}
		c.Check = func(context.Context) error { return nil }
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%+v: %v, want %q", test.config, err, test.err)
		}
	}
	if _, err := New(Config{Secrets: good, Topic: "fastio-events", Partitions: 1}); err == nil ||
		!strings.Contains(err.Error(), "Producer and Check") {
		t.Errorf("without a producer: %v", err)
	}
}

package ingress

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A quickLog acknowledges at once and keeps nothing.
type quickLog struct{}

func (quickLog) TryProduce(_ context.Context, record *kgo.Record, promise func(*kgo.Record, error)) {
	promise(record, nil)
}

func (quickLog) Close() {}

// TestHandlerAllocations bounds what one request allocates between the HTTP server and the producer.
func TestHandlerAllocations(t *testing.T) {
	s, _ := newTestServer(t, func(c *Config) { c.Producer = quickLog{} })
	r, w, body := post(t, minimal), httptest.NewRecorder(), strings.NewReader(minimal)
	n := testing.AllocsPerRun(100, func() {
		body.Reset(minimal)
		w.Body.Reset()
		r.Body = io.NopCloser(body)
		s.Handler().ServeHTTP(w, r)
	})
	if w.Code != http.StatusOK || n > 34 {
		t.Errorf("%d: %v allocations", w.Code, n)
	}
}

// BenchmarkHandler is one whole request without the network and the brokers: what this package itself costs.
func BenchmarkHandler(b *testing.B) {
	const body = `{"event":"workspace_storage_file_updated","workspace_id":"4821930571648203911","event_id":"evt_01J9ZK4Q7V3M5N8P2R6T0W1X4Y",` +
		`"object_id":"2abcdefghijklmnopqrstuvwxyz012","created":"2026-09-25 21:40:11 UTC","name":"q3.pdf","path":"/reports/2026/q3.pdf","parent_id":"2zzzdefghijklmnopqrstuvwxyz012",` +
		`"size":18233,"mime":"application/pdf","hash":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","user_id":"4821930571648203777","extra":{"a":[1,2,3]}}`
	for _, name := range everyScheme {
		b.Run(name, func(b *testing.B) {
			scheme := schemeOf(b, name)
			s, _ := newTestServer(b,
				func(c *Config) {
					c.Scheme, c.Secrets = scheme, secretsOf(b, scheme, keyFor(name, anyKey))
					c.Producer = quickLog{}
				})
			header := Sign(scheme, s.secrets[0], []byte(body), "msg", noon)
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
					r.Header = header
					w := httptest.NewRecorder()
					s.Handler().ServeHTTP(w, r)
					if w.Code != http.StatusOK {
						b.Fatalf("%d %s", w.Code, w.Body)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

package ingress

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/topology"
)

// onBroker returns a server that appends to the events topic of the brokers at addr.
func onBroker(t *testing.T, brokers []string, events topology.Topic) *Server {
	t.Helper()
	config := kafka.Config{Brokers: brokers}
	producer, err := kafka.NewProducer(config, kgo.ProducerLinger(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Secrets: secretsOf(t, Scheme{}, anyKey), Topic: events.Name, Partitions: events.Partitions, Producer: producer,
		Check: func(ctx context.Context) error { return kafka.CheckTopics(ctx, config, []topology.Topic{events}) },
		Now:   func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func eventsTopic(t *testing.T) topology.Topic {
	t.Helper()
	streams, err := topology.New("ingress-"+strings.ToLower(rand.Text()), topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	return streams.Events
}

// What a client reads is what was posted, at the position that was answered.
func TestOnABroker(t *testing.T) {
	t.Parallel()
	brokers, events := devbroker.ForTest(t), eventsTopic(t)
	if _, err := kafka.ApplyTopics(t.Context(), kafka.Config{Brokers: brokers}, []topology.Topic{events}); err != nil {
		t.Fatal(err)
	}
	s := onBroker(t, brokers, events)
	posted := map[string]string{} // event id: position
	for i := range 20 {
		id := fmt.Sprintf("e%d", i)
		w := serve(s, post(t, fmt.Sprintf(`{"event":"e","workspace_id":"wörk/%d","event_id":%q,"mine":1.0}`, i%5, id)))
		answer := w.Body.String()
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, answer)
		}
		posted[id] = strings.TrimSuffix(strings.TrimPrefix(answer, fmt.Sprintf(`{"event_id":%q,"position":"`, id)), "\"}\n")
	}
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(events.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(posted) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d records missing: %v", len(posted), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			headers := map[string]string{}
			for _, h := range r.Headers {
				headers[h.Key] = string(h.Value)
			}
			id, workspace := headers["ce_id"], string(r.Key)
			if got := fmt.Sprintf("%d:%d", r.Partition, r.Offset); posted[id] != got {
				t.Errorf("%s lies at %s, answered was %q", id, got, posted[id])
			}
			if r.Partition != kafka.Partition(workspace, events.Partitions) {
				t.Errorf("%q is in partition %d", workspace, r.Partition)
			}
			if value := string(r.Value); !strings.Contains(value, `"mine":1.0`) || !strings.Contains(value, `"partition_key":"`+workspace) {
				t.Errorf("value %s", value)
			}
			delete(posted, id)
		})
	}
}

// A broker that is away, then there without the topic, then with it: 503 within 5 s and the reason, then 200, on one
// Server.
func TestBrokerComes(t *testing.T) {
	t.Parallel()
	addr, events := freeAddr(t), eventsTopic(t)
	s := onBroker(t, []string{addr}, events)
	patience := func(what string) {
		t.Helper()
		start := time.Now()
		w := serve(s, post(t, minimal))
		if took := time.Since(start); w.Code != http.StatusServiceUnavailable || took > 5*time.Second {
			t.Errorf("%s: %d %s after %v", what, w.Code, w.Body, took)
		}
		if err := s.Ready(); err == nil {
			t.Errorf("%s: ready", what)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
	patience("broker away")
	broker, err := devbroker.Start(context.Background(), devbroker.Config{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	patience("topic missing")
	if _, err := kafka.ApplyTopics(t.Context(), kafka.Config{Brokers: []string{addr}},
		[]topology.Topic{events}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for w := serve(s, post(t, minimal)); w.Code != http.StatusOK; w = serve(s, post(t, minimal)) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("still %d %s", w.Code, w.Body)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("first 200 after %v", time.Since(start))
	time.Sleep(checkEvery)
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

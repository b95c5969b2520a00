package notify

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/sinks"
)

func deliveriesForTest(tb testing.TB) (conf kafka.Config, topic string) {
	tb.Helper()
	conf, topic = kafka.Config{Brokers: devbroker.ForTest(tb)}, fmt.Sprintf("d%d", time.Now().UnixNano())
	devbroker.CreateTopic(tb, conf.Brokers, topic, 2, map[string]string{
		"cleanup.policy": "compact,delete", "message.timestamp.type": "LogAppendTime", "max.message.bytes": "4194304",
	})
	return conf, topic
}

func storeForTest(tb testing.TB, conf kafka.Config, topic string) *Deliveries {
	tb.Helper()
	store, err := NewDeliveries(conf, topic)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	return store
}

// now makes the records of a batch as old as the test.
func now(batch []*sinks.Record) []*sinks.Record {
	for _, r := range batch {
		r.Time = time.Now()
	}
	return batch
}

// A process sees what another one recorded, also when a partition comes back to it; a rule sees only its own.
func TestDeliveriesOfAnotherProcess(t *testing.T) {
	conf, topic := deliveriesForTest(t)
	a, b := storeForTest(t, conf, topic), storeForTest(t, conf, topic)
	batch := now(records(t, "w-1.1", "w-2.1", "w-3.1"))
	at := time.Now().UTC().Truncate(time.Millisecond)
	views := map[*Deliveries]map[string]Delivery{} // of "my rule"
	open := func(store *Deliveries, rule string) string {
		t.Helper()
		known, err := store.Open(t.Context(), rule, batch)
		if err != nil {
			t.Fatal(err)
		}
		if rule == "my rule" {
			views[store] = known
		}
		text := ""
		for _, op := range []string{"w-1.1", "w-2.1", "w-3.1", "w-4.1"} {
			text += fmt.Sprintf("%s %s %d;", op, known[op].State, known[op].Attempts)
		}
		return text
	}
	put := func(store *Deliveries, rule, op string, d Delivery) {
		t.Helper()
		if err := store.Put(t.Context(), rule, op, 0, d); err != nil {
			t.Fatal(err)
		}
		if known := views[store]; known != nil && rule == "my rule" { // as the sink does
			known[op] = d
		}
	}
	step := func(store *Deliveries, want string) {
		t.Helper()
		if diff := gocmp.Diff(want, open(store, "my rule")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	step(a, "w-1.1  0;w-2.1  0;w-3.1  0;w-4.1  0;")
	put(a, "my rule", "w-1.1", Delivery{State: stateIntent, At: at, First: at, Attempts: 2})
	put(a, "my rule", "w-1.1", Delivery{State: stateSent, At: at, First: at, Attempts: 3})
	put(a, "my rule", "w-2.1", Delivery{State: stateIntent, At: at, First: at, Attempts: 1, Offset: 1})
	put(a, "other|rule", "w-3.1", Delivery{State: stateSent, At: at})
	step(b, "w-1.1 sent 3;w-2.1 intent 1;w-3.1  0;w-4.1  0;")
	put(b, "my rule", "w-2.1", Delivery{State: stateSent, At: at, Attempts: 2, Offset: 1})
	put(b, "my rule", "w-3.1", Delivery{State: stateRejected, At: at, Attempts: 1, Offset: 2})
	put(a, "my rule", "w-4.1", Delivery{State: stateFailed, At: at, Attempts: 1, Offset: 3})
	step(a, "w-1.1 sent 3;w-2.1 sent 2;w-3.1 rejected 1;w-4.1 failed 1;")
	if diff := gocmp.Diff("w-1.1  0;w-2.1  0;w-3.1 sent 0;w-4.1  0;", open(a, "other|rule")); diff != "" {
		t.Errorf("other rule (-want +got):\n%s", diff)
	}
	// A replayed dead letter is attempted once more, although it was rejected.
	for _, r := range batch {
		r.Retried, r.Time = true, time.Now()
	}
	step(a, "w-1.1  0;w-2.1  0;w-3.1  0;w-4.1  0;")
	put(b, "my rule", "w-3.1", Delivery{State: stateSent, At: time.Now(), Offset: 2, Retried: true})
	step(a, "w-1.1  0;w-2.1  0;w-3.1 sent 0;w-4.1  0;")
}

// What is behind the batch is forgotten, and not read at a start.
func TestDeliveriesMemoryIsBounded(t *testing.T) {
	conf, topic := deliveriesForTest(t)
	store := storeForTest(t, conf, topic)
	for i := range 600 {
		r := now([]*sinks.Record{record(t, 1, int64(10*i), "w-1.1")})
		known, err := store.Open(t.Context(), "r", r)
		if err != nil {
			t.Fatal(err)
		}
		op := fmt.Sprint("w-1.", i)
		known[op] = Delivery{State: stateSent, Offset: int64(10 * i)}
		if err := store.Put(t.Context(), "r", op, 1, known[op]); err != nil {
			t.Fatal(err)
		}
		if len(known) > repeats/10+2 {
			t.Fatalf("%d op ids are kept after %d", len(known), i)
		}
	}
	later := []*sinks.Record{record(t, 1, 0, "w-1.1")}
	later[0].Time = time.Now().Add(time.Hour)
	if known, err := storeForTest(t, conf, topic).Open(t.Context(), "r", later); err != nil || len(known) > 0 {
		t.Errorf("%d read at a start: %v", len(known), err)
	}
}

// A rule that is disabled stays so after a restart, and for the other partitions, until it is enabled.
func TestEnable(t *testing.T) {
	conf, topic := deliveriesForTest(t)
	to := &receiver{answer: func(string) error { return errGone }}
	start := func() *rig {
		r := newRig(nil, to, asWebhook)
		r.Store, r.now = storeForTest(t, conf, topic), time.Now
		return r
	}
	batch, other := now(records(t, "w-1.1")), now([]*sinks.Record{record(t, 1, 0, "v-1.1")})
	first := start()
	if err := first.Deliver(t.Context(), batch); !errors.Is(err, errDisabled) {
		t.Fatal(err)
	}
	again := start()
	for _, b := range [][]*sinks.Record{batch, other} {
		if err := again.Deliver(t.Context(), b); !errors.Is(err, errDisabled) {
			t.Fatal(err)
		}
	}
	to.answer = nil
	if to.attempts["w-1.1"] != 1 || to.attempts["v-1.1"] != 0 {
		t.Errorf("attempts %v", to.attempts)
	}
	if n, err := storeForTest(t, conf, topic).Enable(t.Context(), "r"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	again.now = func() time.Time { return time.Now().Add(2 * maxWait) }
	for _, b := range [][]*sinks.Record{batch, other} {
		if err := again.Deliver(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
	if diff := gocmp.Diff([]string{"w-1.1", "v-1.1"}, to.accepted); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// BenchmarkOpen opens a partition with 100,000 deliveries of its rule or of another one.
func BenchmarkOpen(b *testing.B) {
	for _, rule := range []string{"other", "mine"} {
		b.Run(rule, func(b *testing.B) {
			conf, topic := deliveriesForTest(b)
			store := storeForTest(b, conf, topic)
			now, err := time.Now(), error(nil)
			for i := range 50_000 {
				for _, state := range []string{stateIntent, stateSent} {
					value, _ := json.Marshal(Delivery{State: state, First: now, At: now, Attempts: 1, Offset: int64(i)})
					key := fmt.Appendf(nil, "%s|4821930571648203911/evt_%d/2abc%d", rule, i, i)
					store.client.Produce(b.Context(), &kgo.Record{Topic: topic, Key: key, Value: value},
						func(_ *kgo.Record, failed error) { err = cmp.Or(err, failed) })
				}
			}
			if err := cmp.Or(store.client.Flush(b.Context()), err); err != nil {
				b.Fatal(err)
			}
			batch := []*sinks.Record{{Topic: "notify", Time: now}}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := storeForTest(b, conf, topic).Open(b.Context(), "mine", batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

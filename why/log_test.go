package why

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/topology"
)

// eventOfValue returns the event of an output of these tests, which is "log:offset".
func eventOfValue(r *kgo.Record) int64 {
	_, number, _ := strings.Cut(string(r.Value), ":")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return unordered
	}
	return n
}

func sought(log string, event int64) output {
	want := fmt.Sprintf("%s:%d", log, event)
	return output{event, func(r *kgo.Record) bool { return string(r.Value) == want }, eventOfValue}
}

// inOrder returns the outputs of events in order.
func inOrder(log string, from, n int64) (written []string) {
	for event := from; event < from+n; event++ {
		written = append(written, fmt.Sprintf("%s:%d", log, event))
	}
	return written
}

// disordered returns outputs as a log has them: most in order, some twice after a failed send, some by a former owner,
// and some that are of another producer.
func disordered(random *rand.Rand, log string, from, n int64) (written []string) {
	for event := from; event < from+n; event++ {
		switch chance := random.IntN(3000); {
		case chance == 0: // a failed send: what was not acknowledged is written again
			event = max(from, event-random.Int64N(disorder))
		case chance < 1000: // a former owner
			written = append(written, fmt.Sprintf("%s:%d", log, max(from, event-random.Int64N(disorder))))
		case chance < 1100:
			written = append(written, "of another producer")
		}
		if event%5 != 0 { // a duplicate has no output
			written = append(written, fmt.Sprintf("%s:%d", log, event))
		}
	}
	return written
}

// A findFixture writes outputs to a partition.
type findFixture struct {
	*testing.T
	client *kgo.Client
	topic  string
}

func newFindFixture(t *testing.T) *findFixture {
	t.Helper()
	brokers := devbroker.ForTest(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	f := &findFixture{t, client, fmt.Sprintf("why%08x", rand.Uint32())}
	devbroker.CreateTopic(t, brokers, f.topic, 1, nil)
	return f
}

func (f *findFixture) write(values ...string) (records []*kgo.Record) {
	f.Helper()
	for _, value := range values {
		records = append(records, &kgo.Record{Topic: f.topic, Value: []byte(value)})
	}
	if err := f.client.ProduceSync(f.Context(), records...).FirstErr(); err != nil {
		f.Fatal(err)
	}
	return records
}

// log opens the partition; it is looked at from an offset on first.
func (f *findFixture) log(since int64) *partitionLog {
	f.Helper()
	missing := f.topic + "-missing"
	logs, err := NewTracer(f.client, topology.Streams{}, "", nil).open(f.Context(), 0, time.Now(), f.topic, missing)
	if err != nil || logs[f.topic].err != nil || logs[missing].err == nil {
		f.Fatalf("logs %v: %v", logs, err)
	}
	logs[f.topic].since = since
	return logs[f.topic]
}

func (f *findFixture) find(log *partitionLog, o output) found {
	f.Helper()
	result, err := log.find(f.Context(), o)
	if err != nil {
		f.Fatal(err)
	}
	return result
}

func TestFind(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	f := newFindFixture(t)
	const first, count = 7000, 30_000
	f.write(disordered(random, "old", 0, 60_000)...) // of an events topic that was recreated
	recent := f.write(disordered(random, "new", first, count)...)
	log := f.log(recent[0].Offset)
	has := map[int64]bool{}
	for _, r := range recent {
		has[eventOfValue(r)] = true
	}
	for range 100 {
		event := first + random.Int64N(count)
		got, err := log.findIn(t.Context(), log.since, log.span.To, sought("new", event))
		if err != nil {
			t.Fatal(err)
		}
		if (got.record != nil) != has[event] || got.cut {
			t.Fatalf("seed %d: of event %d: found %+v", seed, event, got)
		}
		if got.record == nil && got.later < log.span.To && eventOfValue(recent[got.later-log.since]) <= event {
			t.Fatalf("seed %d: of event %d: offset %d is not of a later one", seed, event, got.later)
		}
	}
	if got := f.find(log, sought("old", 50_001)); got.record == nil || got.record.Offset >= log.since {
		t.Errorf("an output from before the time: %+v", got)
	}
	if got := f.find(log, sought("new", 90_001)); got.record != nil || got.later != log.span.To {
		t.Errorf("of an event without outputs: %+v", got)
	}
}

// Outputs of an events topic that was recreated may be behind the time at which the search begins.
func TestFindAfterARecreatedTopic(t *testing.T) {
	for _, test := range []struct{ old, from, recent, event int64 }{
		{500, 900_000, 200, 100}, // higher offsets than the new ones
		{1500, 0, 3000, 1200},    // the same offsets
	} {
		f := newFindFixture(t)
		f.write(inOrder("old", test.from, test.old)...)
		f.write(inOrder("new", 0, test.recent)...)
		if got := f.find(f.log(0), sought("new", test.event)); got.record == nil ||
			string(got.record.Value) != fmt.Sprint("new:", test.event) {
			t.Errorf("%+v: found %+v", test, got)
		}
	}
}

// A search that would read too much says so.
func TestFindGivesUp(t *testing.T) {
	f := newFindFixture(t)
	f.write(slices.Repeat([]string{"of another producer"}, 2*maxScan+5000)...)
	f.write(inOrder("new", 0, 500)...)
	if got := f.find(f.log(0), sought("new", 100)); got.record == nil && !got.cut {
		t.Errorf("an output is missed: %+v", got)
	}
}

package why

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/topology"
)

// numberOf is the sourceOf of values that are offsets.
func numberOf(r *kgo.Record) int64 {
	n, err := strconv.ParseInt(string(r.Value), 10, 64)
	if err != nil {
		return unread
	}
	return n
}

// outputs returns the events of outputs as a log has them: most in order, some twice after a failed send, some by a
// former owner, and some that are of another producer.
func outputs(random *rand.Rand, from, n int64) (written []string) {
	for event := from; event < from+n; event++ {
		switch chance := random.IntN(3000); {
		case chance == 0: // a failed send: what was not acknowledged is written again
			event = max(from, event-random.Int64N(disorder))
		case chance < 1000: // a former owner
			written = append(written, fmt.Sprint(max(from, event-random.Int64N(disorder))))
		case chance < 1100:
			written = append(written, "of another producer")
		}
		if event%5 != 0 { // a duplicate has no output
			written = append(written, fmt.Sprint(event))
		}
	}
	return written
}

func TestFind(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	brokers := devbroker.ForTest(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topic := fmt.Sprintf("why%08x", random.Uint32())
	devbroker.CreateTopic(t, brokers, topic, 1, nil)
	write := func(values []string) (records []*kgo.Record) {
		for _, value := range values {
			records = append(records, kgo.StringRecord(value))
			records[len(records)-1].Topic = topic
		}
		if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return records
	}
	const first, count = 7000, 30_000
	write(outputs(random, 0, 60_000)) // of an events topic that was recreated
	recent := write(outputs(random, first, count))
	logs, err := NewTracer(client, topology.Streams{}, "", nil).open(t.Context(), 0, time.Now(), topic)
	if err != nil {
		t.Fatal(err)
	}
	log := logs[topic]
	if logs, err := NewTracer(client, topology.Streams{}, "", nil).open(t.Context(), 0, time.Now(), topic,
		topic+"-missing"); err != nil || logs[topic].err != nil || logs[topic+"-missing"].err == nil {
		t.Errorf("with a topic that does not exist: %v, %v", logs, err)
	}
	log.since = recent[0].Offset
	has := map[int64]bool{}
	for _, r := range recent {
		has[numberOf(r)] = true
	}
	for range 100 {
		event := first + random.Int64N(count)
		found, later, err := log.findIn(t.Context(), log.since, log.span.To, event, numberOf)
		if err != nil {
			t.Fatal(err)
		}
		if found == nil && has[event] || found != nil && numberOf(found) != event {
			t.Fatalf("seed %d: of event %d: found %v", seed, event, found)
		}
		if found != nil {
			continue
		}
		if later < log.span.To && numberOf(recent[later-log.since]) <= event {
			t.Fatalf("seed %d: of event %d: offset %d is not of a later one", seed, event, later)
		}
	}
	found, _, err := log.find(t.Context(), 50_001, numberOf)
	if err != nil || found == nil || found.Offset >= log.since {
		t.Errorf("an output from before the time: %v, %v", found, err)
	}
	found, later, err := log.find(t.Context(), 90_001, numberOf)
	if err != nil || found != nil || later != log.span.To {
		t.Errorf("of an event without outputs: %v, %d, %v", found, later, err)
	}
}

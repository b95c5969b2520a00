package deadletters_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
)

// The marks that a replay and a drop leave are no dead letters, whether they came before the counting began or after.
func TestCounterCountsWhatIsOpen(t *testing.T) {
	b := newBench(t)
	b.fold(t)
	b.send(t, `{"event":`)
	b.send(t, `not json`)
	b.send(t, `neither`)
	b.put(t, &kgo.Record{
		Key: []byte("w"), Value: []byte(event("e1", "f", 1)),
		Partition: (kafka.Partition("w", partitions) + 1) % partitions,
	})
	records := b.await(t, b.s.DLQ, 4)
	resolved := func(do func(context.Context, deadletters.Filter, deadletters.Options) (*deadletters.Result, error),
		f deadletters.Filter, want int,
	) {
		t.Helper()
		if result, err := do(t.Context(), f, deadletters.Options{Yes: true}); err != nil || result.Done != want {
			t.Fatalf("%+v, %v; want %d", result, err, want)
		}
	}
	resolved(b.queue.Replay, deadletters.Filter{Reasons: []string{"wrong_partition"}}, 1)

	counter := deadletters.NewCounter(b.queue, slog.New(slog.DiscardHandler))
	if n, ok := counter.Open(); ok {
		t.Errorf("before it counts: %d", n)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- counter.Run(ctx) }()
	awaitOpen(t, counter, 3)

	entries, err := b.queue.Entries(t.Context(), deadletters.Filter{})
	if err != nil || len(entries) != 3 {
		t.Fatalf("%v, %v", entries, err)
	}
	resolved(b.queue.Drop, deadletters.Filter{Sources: []deadletters.Source{entries[0].Source}}, 1)
	awaitOpen(t, counter, 2)
	b.put(t, records[0], records[1], records[2], records[3]) // after a crash: the same records once more
	b.send(t, `another`)
	awaitOpen(t, counter, 3)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func awaitOpen(t *testing.T, c *deadletters.Counter, want int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n, ok := c.Open()
		if ok && n == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d open (known: %v), want %d", n, ok, want)
		}
	}
}

package epochs_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka/committed"
	"tidemark/kafka/epochs"
)

// A processor counts the visits of each page and emits each count, in transactions: a read_committed consumer gets no
// count twice, whatever fails.
func ExampleGroup() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	broker, err := devbroker.Start(ctx, devbroker.Config{})
	check(err)
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.ConsumeTopics("counts"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	check(err)
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err = admin.CreateTopics(ctx, 1, 1, nil, "visits", "counts")
	check(err)
	_, err = admin.CreateTopic(ctx, 1, 1, map[string]*string{"cleanup.policy": new("compact")}, "counter-table")
	check(err)
	dir, err := os.MkdirTemp("", "counter")
	check(err)
	defer os.RemoveAll(dir)

	count := func(ctx goka.Context, _ any) {
		n, _ := ctx.Value().(int64)
		ctx.SetValue(n + 1)
		ctx.Emit("counts", ctx.Key(), n+1)
	}
	group := epochs.NewGroup(epochs.Config{
		Cluster: committed.At(broker.Addr()), Name: "counter", Table: "counter-table", Dir: dir,
		Log:       slog.New(slog.DiscardHandler),
		Guarantee: epochs.ExactlyOnce, InstanceID: "one", Interval: 20 * time.Millisecond,
		Graph: func(e *epochs.Epochs) *goka.GroupGraph {
			return goka.DefineGroup("counter",
				goka.Input("visits", new(codec.String), e.Callback(count)),
				goka.Output("counts", new(codec.Int64)),
				goka.Persist(new(codec.Int64)))
		},
		Older: func(record, stored []byte) bool { return number64(record) < number64(stored) },
	})
	ended := make(chan error)
	go func() { ended <- group.Run(ctx) }()

	for _, page := range []string{"home", "about", "home"} {
		check(client.ProduceSync(ctx, &kgo.Record{Topic: "visits", Key: []byte(page)}).FirstErr())
	}
	for told := 0; told < 3; {
		for _, r := range client.PollFetches(ctx).Records() {
			fmt.Printf("%s: %s\n", r.Key, r.Value)
			told++
		}
	}
	stop()
	check(<-ended)
	// Output:
	// home: 1
	// about: 1
	// home: 2
}

func number64(b []byte) int64 {
	n, err := new(codec.Int64).Decode(b)
	check(err)
	return n.(int64)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Command goka is a peer of the benchmark: goka with its defaults, LevelDB and encoding/json. Only what the work needs
// is set: acks=all, the start of the log, a version that the broker speaks, and the hash of keys.
//
//	goka -brokers B -input T -index T -notify T -group G -data DIR
//
// The input is keyed by workspace and the table by file. Stock goka would read the events from a second topic that has
// the table's keys. An interceptor of sarama sets the key as a record is read instead, which costs less.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"tidemark/bench/peers/work"
	"tidemark/kafka"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "goka:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	brokers := flag.String("brokers", "", "the cluster")
	input := flag.String("input", "", "topic of events")
	index := flag.String("index", "", "topic of index records")
	notify := flag.String("notify", "", "topic of notices")
	group := flag.String("group", "", "the table is this name and -table")
	data := flag.String("data", "", "folder of the local store")
	flag.Parse()

	config := goka.DefaultConfig()
	config.Version = sarama.V3_6_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Interceptors = []sarama.ConsumerInterceptor{fileKey{*input}}
	config.Producer.RequiredAcks = sarama.WaitForAll
	goka.ReplaceGlobalConfig(config)

	topics := goka.NewTopicManagerConfig()
	topics.Table.Replication = 1
	f := &fold{goka.Stream(*index), goka.Stream(*notify)}
	graph := goka.DefineGroup(
		goka.Group(*group),
		goka.Input(goka.Stream(*input), jsonOf[work.Event]{}, f.apply),
		goka.Output(f.index, jsonOf[work.Index]{}),
		goka.Output(f.notify, jsonOf[work.Notice]{}),
		goka.Persist(jsonOf[work.State]{}))
	processor, err := goka.NewProcessor(strings.Split(*brokers, ","), graph,
		goka.WithHasher(kafka.FileHasher),
		goka.WithStorageBuilder(storage.DefaultBuilder(*data)),
		goka.WithTopicManagerBuilder(goka.TopicManagerBuilderWithTopicManagerConfig(topics)))
	if err != nil {
		return err
	}
	return processor.Run(ctx)
}

// fold has the topics of the outputs.
type fold struct{ index, notify goka.Stream }

func (f *fold) apply(ctx goka.Context, message any) {
	e, ok := message.(*work.Event)
	if !ok {
		ctx.Fail(fmt.Errorf("no event: %T", message))
	}
	state, ok := ctx.Value().(*work.State)
	if !ok { // a file never seen
		state = &work.State{}
	}
	before, ok := state.Fold(e, ctx.Partition(), ctx.Offset())
	if !ok {
		return
	}
	ctx.Emit(f.index, ctx.Key(), work.IndexOf(&state.File))
	ctx.Emit(f.notify, ctx.Key(), work.NoticeOf(e, before, &state.File))
	ctx.SetValue(state)
}

// fileKey sets the keys of a topic's records to those of the rows.
type fileKey struct{ topic string }

func (k fileKey) OnConsume(m *sarama.ConsumerMessage) {
	if m.Topic != k.topic {
		return
	}
	if e, err := work.Parse(m.Value); err == nil { // of a record that is no event the fold fails
		m.Key = []byte(e.Key())
	}
}

// jsonOf encodes a T with encoding/json.
type jsonOf[T any] struct{}

func (jsonOf[T]) Encode(value any) ([]byte, error) { return json.Marshal(value) }

func (jsonOf[T]) Decode(data []byte) (any, error) {
	value := new(T)
	if err := json.Unmarshal(data, value); err != nil {
		return nil, err
	}
	if e, ok := any(value).(*work.Event); ok {
		e.Payload = data
	}
	return value, nil
}

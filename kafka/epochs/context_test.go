package epochs

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/localstore"
)

// A stoppingContext is goka's while it stops: Fail returns.
type stoppingContext struct{ gokaContext }

func (*stoppingContext) Fail(error)               {}
func (*stoppingContext) Key() string              { return "k" }
func (*stoppingContext) DeferCommit() func(error) { return func(error) {} }

// failing is a codec that does not know the value "bad".
type failing struct{}

var errBad = errors.New("bad")

func (failing) Encode(v any) ([]byte, error) {
	if v == "bad" {
		return nil, errBad
	}
	return []byte(v.(string)), nil
}

func (failing) Decode(b []byte) (any, error) {
	if string(b) == "bad" {
		return nil, errBad
	}
	return string(b), nil
}

func contextOf(p *partitionEpochs) *gatedContext {
	return &gatedContext{
		gokaContext: &stoppingContext{}, epochs: p,
		codecs: &codecs{row: failing{}, outputs: map[string]goka.Codec{"out": failing{}}},
	}
}

// Calls that break the guarantee fail the partition, also when goka lets the callback go on.
func TestCallsThatBreakTheGuaranteeFail(t *testing.T) {
	for _, test := range []struct {
		name        string
		exactlyOnce bool
		do          func(goka.Context)
		fails       bool
	}{
		{"a row that cannot be decoded", false, func(c goka.Context) { c.Value() }, true},
		{"a row that cannot be encoded", false, func(c goka.Context) { c.SetValue("bad") }, true},
		{"no row", false, func(c goka.Context) { c.SetValue(nil) }, true},
		{"a row with options", false, func(c goka.Context) { c.SetValue("v", goka.WithCtxEmitHeaders(nil)) }, true},
		{"an output that cannot be encoded", false, func(c goka.Context) { c.Emit("out", "k", "bad") }, true},
		{"an output with options", false, func(c goka.Context) {
			c.Emit("out", "k", "v", goka.WithCtxEmitHeaders(nil))
		}, true},
		{"an output that the graph does not have", false, func(c goka.Context) { c.Emit("other", "k", "v") }, true},
		{"an output", false, func(c goka.Context) { c.Emit("out", "k", "v") }, false},
		{"a delete that cannot be ordered", false, func(c goka.Context) { c.Delete() }, true},
		{"a delete in a transaction", true, func(c goka.Context) { c.Delete() }, false},
		{"a commit that waits", false, func(c goka.Context) { c.DeferCommit() }, true},
		{"a commit that a transaction would not wait for", true, func(c goka.Context) { c.DeferCommit() }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newEpochTest(t)
			put(t, e.store, 1, "k", "bad")
			p := e.partitionEpochs
			if test.exactlyOnce {
				p = newTransactionTest(t, 1).partitions[0]
			}
			p.gate.Lock()
			test.do(contextOf(p))
			p.gate.Unlock()
			if failed := p.failure() != nil; failed != test.fails {
				t.Errorf("failed: %v", p.failure())
			}
		})
	}
}

// A callback sees the row that the one before it set, as it set it, and a row of the store decoded.
func TestValueIsTheNewestRow(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 1, "k", "v1")
	c := contextOf(e.partitionEpochs)
	e.callback(t, func() {
		if got := c.Value(); got != "v1" {
			t.Errorf("the stored row is %v", got)
		}
		c.SetValue("v2")
		if got := c.Value(); got != "v2" {
			t.Errorf("the row that was set is %v", got)
		}
	})
}

// An output goes to the partition of its input, with its headers.
func TestEmitWithHeaders(t *testing.T) {
	e := newEpochTest(t)
	e.callback(t, func() { Emit(contextOf(e.partitionEpochs), "out", "k", nil, goka.Headers{"h": []byte("x")}) })
	r := e.wire.next(t)
	if r.Value != nil || r.Partition != 0 || len(r.Headers) != 1 || r.Headers[0].Key != "h" {
		t.Errorf("%q in partition %d with %v", r.Value, r.Partition, r.Headers)
	}
	r.done(0, nil)
}

// benchmarkCallback runs a callback that reads and sets its row, and emits two outputs.
func benchmarkCallback(b *testing.B) {
	b.Helper()
	store, err := localstore.Open(b.TempDir(), "c/t", slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	shelf, err := store.Partition(0)
	if err != nil {
		b.Fatal(err)
	}
	p := newPartitionEpochs(testConfig(), shelf)
	close(p.keysKnown)
	acked := int64(-1)
	acks := make(chan func(), 1<<16)
	go func() {
		for ack := range acks {
			ack()
		}
	}()
	defer close(acks)
	startPipeline(p, noBacklog, func(r *kgo.Record, done func(*kgo.Record, error)) {
		acks <- func() {
			acked++
			r.Offset = acked
			done(r, nil)
		}
	}, func(string, int64, string) {})
	defer p.publisher.drain()
	b.ReportAllocs()
	for offset := int64(0); b.Loop(); offset++ {
		if err := p.enter(); err != nil {
			b.Fatal(err)
		}
		c := contextOf(p)
		row, _ := c.Value().(string)
		c.Emit("out", "k", "an output")
		c.Emit("out", "k", "an output")
		c.SetValue(row[:min(len(row), 100)] + "x")
		p.callbackReturned("in", offset)
		p.gate.Unlock()
	}
}

func BenchmarkCallback(b *testing.B) { benchmarkCallback(b) }

// What a callback allocates besides what its codecs do is counted: more of it is a step back.
func TestCallbackAllocations(t *testing.T) {
	if r := testing.Benchmark(benchmarkCallback); r.AllocsPerOp() > 16 || r.AllocedBytesPerOp() > 1400 {
		t.Errorf("%d allocations, %d bytes", r.AllocsPerOp(), r.AllocedBytesPerOp())
	}
}

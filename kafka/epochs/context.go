package epochs

import (
	"errors"
	"fmt"

	"github.com/lovoo/goka"

	"tidemark/kafka/producer"
)

// A gatedContext is the context of a callback. It reads and sets the row, and emits, in place of goka, whose promises
// would have to be kept for each record until it is published. It refuses calls whose effects would not be exactly
// once.
//
// While goka stops, its Fail returns and the callback goes on. So Fail also fails the partition, and what the callback
// does afterwards is not published.
type gatedContext struct {
	gokaContext
	epochs *partitionEpochs
	codecs *codecs
	key    []byte // of the last output
}

// gokaContext is embedded under this name because the interface has a method Context.
type gokaContext = goka.Context

// codecs are those of a group's graph.
type codecs struct {
	row     goka.Codec
	outputs map[string]goka.Codec // by topic
}

func codecsOf(graph *goka.GroupGraph) *codecs {
	c := &codecs{row: graph.GroupTable().Codec(), outputs: map[string]goka.Codec{}}
	for _, output := range graph.OutputStreams() {
		c.outputs[output.Topic()] = output.Codec()
	}
	return c
}

func (c *gatedContext) Fail(err error) {
	c.epochs.fail(err)
	c.gokaContext.Fail(err)
}

// Value returns the row as its codec decodes it, or as SetValue was last called with it; nil when there is none.
func (c *gatedContext) Value() any {
	row, err := c.epochs.current(c.Key())
	if err == nil && row.message == nil && row.value != nil {
		row.message, err = c.codecs.row.Decode(row.value)
	}
	if err != nil {
		c.Fail(fmt.Errorf("read the row of %q: %w", c.Key(), err))
		return nil
	}
	return row.message
}

// SetValue sets the row. The callback must not change the value afterwards: the next callback may get it.
func (c *gatedContext) SetValue(value any, options ...goka.ContextOption) {
	if err := c.set(value, options); err != nil {
		c.Fail(fmt.Errorf("set the row of %q: %w", c.Key(), err))
	}
}

func (c *gatedContext) set(value any, options []goka.ContextOption) error {
	switch {
	case value == nil:
		return errNilRow
	case len(options) > 0:
		return errOptions
	}
	row, err := c.codecs.row.Encode(value)
	if err != nil {
		return err
	}
	if row == nil { // it would delete
		return errNilRow
	}
	return c.epochs.set(c.Key(), row, value)
}

// Emit emits an output without headers; see the function Emit.
func (c *gatedContext) Emit(topic goka.Stream, key string, value any, options ...goka.ContextOption) {
	if len(options) > 0 {
		c.Fail(fmt.Errorf("emit to %s: %w", topic, errOptions))
		return
	}
	Emit(c, topic, key, value, nil)
}

// Emit emits an output with headers, to the partition of the callback's input; nil is a null. The context must be that
// of a callback that was given to Epochs.Callback.
func Emit(ctx goka.Context, topic goka.Stream, key string, value any, headers goka.Headers) {
	c := ctx.(*gatedContext)
	if err := c.emit(string(topic), key, value, headers); err != nil {
		c.Fail(fmt.Errorf("emit to %s: %w", topic, err))
	}
}

func (c *gatedContext) emit(topic, key string, value any, headers goka.Headers) (err error) {
	codec := c.codecs.outputs[topic]
	if codec == nil {
		return errNoOutput
	}
	var encoded []byte
	if value != nil {
		if encoded, err = c.epochs.buffers.encode(codec, value); err != nil {
			return err
		}
	}
	if c.key == nil || string(c.key) != key {
		c.key = []byte(key) // outputs share it
	}
	r := c.epochs.buffers.record()
	r.Topic, r.Partition, r.Headers = topic, c.epochs.store.Number(), producer.Headers(headers)
	r.Key, r.Value = c.key, encoded
	c.epochs.output(r)
	return nil
}

var (
	errNilRow   = errors.New("a nil, or what is encoded as nil, is no row; Delete removes a row")
	errNoOutput = errors.New("the graph has no goka.Output of this topic")
	errOptions  = errors.New("goka's context options are not supported; epochs.Emit takes headers")
	errDelete   = errors.New(
		"with at_least_once a row cannot be deleted: a delete and the row of a paused former owner " +
			"cannot be ordered; keep a row that marks the deletion")
	errDefer = errors.New("a commit cannot be deferred: a record is committed with the effects of its callback")
)

// Delete is refused with AtLeastOnce: a zombie may write the row again afterwards.
func (c *gatedContext) Delete(options ...goka.ContextOption) {
	switch {
	case c.epochs.conf.Guarantee != ExactlyOnce:
		c.Fail(errDelete)
	case len(options) > 0:
		c.Fail(errOptions)
	default:
		if err := c.epochs.set(c.Key(), nil, nil); err != nil {
			c.Fail(err)
		}
	}
}

// DeferCommit is refused: the publication of the callback's effects would not wait for it.
func (c *gatedContext) DeferCommit() func(error) {
	c.Fail(errDefer)
	return c.gokaContext.DeferCommit()
}

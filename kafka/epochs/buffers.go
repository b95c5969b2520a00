package epochs

import (
	"slices"
	"sync"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// An Appender is a codec of outputs that appends to a buffer. With it the outputs of an epoch share buffers, which are
// used again. Without it they are most of the memory that a processor allocates.
type Appender interface {
	Append(b []byte, value any) ([]byte, error)
}

// outputBuffers have the outputs of one partition's open epoch. The partition's gate guards them.
type outputBuffers struct {
	used    []*[]byte    // the last one has room
	records []kgo.Record // for the next outputs
}

const (
	bufferBytes   = 128 << 10
	minRoom       = bufferBytes / 16 // a buffer with less is not used for more outputs: most need up to 2 kB
	bufferRecords = 64
)

// freeBuffers are those that no partition uses.
var freeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, bufferBytes); return &b }}

// encode encodes an output.
func (o *outputBuffers) encode(codec goka.Codec, value any) ([]byte, error) {
	appender, ok := codec.(Appender)
	if !ok {
		return codec.Encode(value)
	}
	if n := len(o.used); n == 0 || cap(*o.used[n-1])-len(*o.used[n-1]) < minRoom {
		o.used = append(o.used, freeBuffers.Get().(*[]byte))
	}
	buffer := o.used[len(o.used)-1]
	room := (*buffer)[len(*buffer):]
	encoded, err := appender.Append(room, value)
	if err == nil && cap(encoded) == cap(room) { // else it did not fit, and is elsewhere
		*buffer = (*buffer)[:len(*buffer)+len(encoded)]
		encoded = slices.Clip(encoded)
	}
	return encoded, err
}

// record returns an empty record.
func (o *outputBuffers) record() *kgo.Record {
	if len(o.records) == 0 {
		o.records = make([]kgo.Record, bufferRecords)
	}
	r := &o.records[0]
	o.records = o.records[1:]
	return r
}

// take returns the buffers of an epoch that is closed.
func (o *outputBuffers) take() []*[]byte {
	used := o.used
	o.used = nil
	return used
}

// release frees the buffers of an epoch whose outputs are acknowledged.
func release(used []*[]byte) {
	for _, b := range used {
		*b = (*b)[:0]
		freeBuffers.Put(b)
	}
}

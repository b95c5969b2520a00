package epochs

import (
	"fmt"
	"strings"
	"testing"
)

// appending is a codec that appends.
type appending struct{ failing }

func (appending) Append(b []byte, v any) ([]byte, error) {
	if v == "bad" {
		return nil, errBad
	}
	return append(b, v.(string)...), nil
}

// Outputs of any size keep their bytes until they are acknowledged, also while later ones use the same buffers.
func TestOutputsKeepTheirBytes(t *testing.T) {
	e := newEpochTest(t)
	for round := range 3 { // buffers are used again
		var want []string
		e.callback(t, func() {
			c := contextOf(e.partitionEpochs)
			c.codecs.outputs["out"] = appending{}
			for i := range 200 {
				want = append(want, strings.Repeat(fmt.Sprint(round, i%10), i*i/10))
				c.Emit("out", strings.Repeat("k", i%3), want[i])
			}
		})
		sent := make([]*flight, len(want))
		for i := range want {
			sent[i] = e.wire.next(t)
		}
		for i, f := range sent {
			if string(f.Value) != want[i] || f.Key == nil || len(f.Key) != i%3 {
				t.Fatalf("output %d has key %q and %d bytes, want %d", i, f.Key, len(f.Value), len(want[i]))
			}
		}
		for _, f := range sent {
			f.done(0, nil)
		}
		e.awaitIdle(t, &e.mirror)
		e.committed(t, int64(round+1))
	}
}

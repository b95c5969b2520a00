package epochs

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// The row cache answers as the store would, whatever is dropped from it.
func TestRowCacheHasTheRowsOfTheStore(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		e := newEpochTest(t)
		size := random.Int64N(4000)
		e.rows.share = func() int64 { return size }
		want := map[string]string{}
		go func() {
			for range e.wire.came {
				e.wire.mu.Lock()
				f := e.wire.sent[0]
				e.wire.sent = e.wire.sent[1:]
				e.wire.mu.Unlock()
				f.done(0, nil)
			}
		}()
		for i := range 300 {
			key := strconv.Itoa(random.IntN(30))
			row, err := e.current(key)
			if string(row.value) != want[key] || err != nil {
				t.Fatalf("seed %d: %q, %v, want %q", seed, row.value, err, want[key])
			}
			var value []byte
			if random.IntN(5) > 0 {
				value = fmt.Appendf(nil, "%0*d", random.IntN(200), i)
			}
			e.callback(t, func() {
				if err := e.set(key, value, nil); err != nil {
					t.Fatal(err)
				}
			})
			want[key] = string(value)
			if random.IntN(20) == 0 {
				time.Sleep(2 * time.Millisecond) // an epoch
			}
			e.mu.Lock()
			if e.rows.cachedBytes > size {
				t.Errorf("seed %d: %d bytes, want up to %d", seed, e.rows.cachedBytes, size)
			}
			e.mu.Unlock()
		}
	}
}

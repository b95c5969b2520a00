package localstore

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
)

// BenchmarkGet reads rows at random from a loaded store.
func BenchmarkGet(b *testing.B) {
	for _, rows := range []int{200_000, 2_000_000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			s, err := Open(b.TempDir(), "pin", slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			p, err := s.Partition(0)
			if err != nil {
				b.Fatal(err)
			}
			l, err := p.Load(func(Row, Put) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			random := rand.New(rand.NewPCG(1, 1)) // the same rows each time
			value := make([]byte, 560)
			key := func(i int) []byte { return fmt.Appendf(nil, "ws%016d/2abcdefghijk%016d", i%1000, i) }
			for i := range rows {
				for j := range value[:280] {
					value[j] = byte(random.Uint32())
				}
				if err := l.Set(int64(i), 1, key(i), value); err != nil {
					b.Fatal(err)
				}
			}
			if err := l.Finish(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if row, err := s.Get(0, Rows, key(random.IntN(rows))); len(row) != len(value) || err != nil {
					b.Fatal(len(row), err)
				}
			}
		})
	}
}

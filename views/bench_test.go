package views

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// BenchmarkPage shows that a page does not grow with its table.
func BenchmarkPage(b *testing.B) {
	for _, size := range []int{10_000, 200_000} {
		f := newFixture(b)
		for i := range size {
			state := isTrashed
			if i%10 == 0 {
				state = isActive
			}
			f.put(fileRow("ws", fmt.Sprintf("f%07d", i), fmt.Sprintf("/d%d/f%07d", i%7, i), state, 1))
		}
		for _, prefix := range []string{"", "/d3/"} {
			b.Run(fmt.Sprintf("rows=%d/prefix=%s", size, prefix), func(b *testing.B) {
				q := query{workspace: "ws", status: statusActive, kind: kindFile, prefix: prefix}
				for b.Loop() {
					if p, err := list(f.Server.files.store, kafka.Partition("ws", 4), q, nil, 100); err != nil ||
						p.count != 100 {
						b.Fatal(p.count, err)
					}
				}
			})
		}
	}
}

// BenchmarkApply is the cost of one table record: what bounds recovery.
func BenchmarkApply(b *testing.B) {
	f := newFixture(b)
	values := make([][]byte, 10_000)
	for i := range values {
		row := fileRow("ws", fmt.Sprintf("f%07d", i), fmt.Sprintf("/d%d/f%07d", i%7, i), isActive, 1)
		row.Position = &tidemarkv1.Position{Offset: int64(i)}
		row.Seen = make([]byte, 24*5)
		value, err := proto.Marshal(row)
		if err != nil {
			b.Fatal(err)
		}
		values[i] = value
	}
	i := 0
	for b.Loop() {
		f.record(f.Server.files, f.files, fmt.Sprintf("ws/f%07d", i%len(values)), values[i%len(values)])
		i++
	}
}

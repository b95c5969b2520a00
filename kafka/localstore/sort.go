package localstore

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// A sorter sorts records by key, and combines those of one key. It holds a part of them in memory, and writes sorted
// runs to files beyond that.
type sorter struct {
	dir   string
	limit func() int // of the bytes in memory
	data  []byte     // keys and values
	heads []recordHead
	order []sortKey
	runs  []string // files, the oldest first
}

// A sortKey has the first bytes of a key after those that all keys have in common: most comparisons need no others.
type sortKey struct {
	prefix uint64
	index  int // of the head
}

// A recordHead is a record in memory, without its key and value. It has no pointers, so the garbage collector does not
// scan the many of them.
type recordHead struct {
	at               int // where key and value begin
	keyLen, valueLen int32
	recordInfo
}

const recordHeadSize = 32 + 16 // with its sortKey

// maxRuns is how many runs are merged at a time: each is an open file with a buffer.
const maxRuns = 32

// add adds a record that is later than all before it.
func (s *sorter) add(key, value []byte, info recordInfo) error {
	if size := len(s.data) + recordHeadSize*len(s.heads); size > 0 && size+len(key)+len(value) > s.limit() {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.heads = append(s.heads, recordHead{len(s.data), int32(len(key)), int32(len(value)), info})
	s.data = append(append(s.data, key...), value...)
	return nil
}

// spill writes the records in memory to a file.
func (s *sorter) spill() error {
	run := s.inMemory()
	if err := s.writeRun(context.Background(), run); err != nil {
		return err
	}
	s.data, s.heads = s.data[:0], s.heads[:0]
	return nil
}

func (s *sorter) writeRun(ctx context.Context, from source) (err error) {
	w, err := createRun(filepath.Join(s.dir, fmt.Sprintf("run-%d", len(s.runs))))
	if err != nil {
		return err
	}
	s.runs = append(s.runs, w.file.Name())
	return errors.Join(each(ctx, from, w.add), w.close())
}

// each calls f with the records of a source.
func each(ctx context.Context, from source, f func(*record) error) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := from.next()
		if err != nil || r == nil {
			return err
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// sorted returns a merger of all records, which must be closed.
func (s *sorter) sorted(ctx context.Context) (*merger, error) {
	for generation := 0; len(s.runs) >= maxRuns; generation++ { // neighbours are merged, so the order in time stays
		var merged []string
		for group := range slices.Chunk(s.runs, maxRuns) {
			deeper := &sorter{dir: filepath.Join(s.dir, fmt.Sprintf("merged-%d-%d", generation, len(merged)))}
			if err := os.Mkdir(deeper.dir, 0o755); err != nil {
				return nil, fmt.Errorf("make a folder: %w", err)
			}
			if err := mergeRuns(ctx, group, deeper.writeRun); err != nil {
				return nil, err
			}
			merged = append(merged, deeper.runs...)
		}
		s.runs = merged
	}
	m, err := openRuns(s.runs)
	if err != nil {
		return nil, err
	}
	if err := m.push(s.inMemory()); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// each calls f with all records in the order of their keys, each key once.
func (s *sorter) each(ctx context.Context, f func(*record) error) error {
	m, err := s.sorted(ctx)
	if err != nil {
		return err
	}
	return errors.Join(each(ctx, m, f), m.close())
}

// mergeRuns passes the records of several runs to write, and removes the runs.
func mergeRuns(ctx context.Context, runs []string, write func(context.Context, source) error) error {
	m, err := openRuns(runs)
	if err != nil {
		return err
	}
	if err := errors.Join(write(ctx, m), m.close()); err != nil {
		return err
	}
	for _, run := range runs {
		err = errors.Join(err, os.Remove(run))
	}
	return err
}

// A source has records in the order of their keys.
type source interface {
	next() (*record, error) // valid until the next call; nil at the end
}

// inMemory sorts the records in memory.
func (s *sorter) inMemory() *memorySource {
	s.order = s.order[:0]
	common := s.commonLength()
	for i, h := range s.heads {
		var first [8]byte
		copy(first[:], s.key(h)[common:])
		s.order = append(s.order, sortKey{binary.BigEndian.Uint64(first[:]), i})
	}
	slices.SortFunc(s.order, func(a, b sortKey) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		if c := bytes.Compare(s.key(s.heads[a.index]), s.key(s.heads[b.index])); c != 0 {
			return c
		}
		return a.index - b.index
	})
	return &memorySource{from: s}
}

// commonLength returns how many bytes all keys begin with.
func (s *sorter) commonLength() int {
	if len(s.heads) == 0 {
		return 0
	}
	first := s.key(s.heads[0])
	common := len(first)
	for _, h := range s.heads[1:] {
		key := s.key(h)
		common = min(common, len(key))
		for i := range common {
			if key[i] != first[i] {
				common = i
				break
			}
		}
	}
	return common
}

func (s *sorter) key(h recordHead) []byte { return s.data[h.at : h.at+int(h.keyLen)] }

// A memorySource is the records in memory after they were sorted.
type memorySource struct {
	from *sorter
	at   int
	now  record
}

func (m *memorySource) next() (*record, error) {
	s := m.from
	if m.at == len(s.heads) {
		return nil, nil
	}
	for first := true; m.at < len(s.heads); m.at++ {
		h := s.heads[s.order[m.at].index]
		key := s.key(h)
		r := record{key, s.data[h.at+len(key) : h.at+len(key)+int(h.valueLen)], h.recordInfo}
		switch {
		case first:
			m.now, first = r, false
		case !bytes.Equal(m.now.key, key):
			return &m.now, nil
		case m.now.then(r.recordInfo):
			m.now.value = r.value
		}
	}
	return &m.now, nil
}

// A merger merges sources, of which each later one has the later records, into one.
type merger struct {
	heads  sourceHeap
	pushed int
	files  []*os.File
	now    record // a copy: its source moves on
}

type sourceHead struct {
	from  source
	order int
	now   *record
}

type sourceHeap []sourceHead

func (h sourceHeap) Len() int { return len(h) }
func (h sourceHeap) Less(i, j int) bool {
	order := bytes.Compare(h[i].now.key, h[j].now.key)
	return order < 0 || order == 0 && h[i].order < h[j].order
}
func (h sourceHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *sourceHeap) Push(x any)   { *h = append(*h, x.(sourceHead)) }
func (h *sourceHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// push adds a source with later records than the sources before it.
func (m *merger) push(from source) error {
	first, err := from.next()
	if err == nil && first != nil {
		heap.Push(&m.heads, sourceHead{from, m.pushed, first})
		m.pushed++
	}
	return err
}

func openRuns(runs []string) (*merger, error) {
	m := &merger{}
	for _, name := range runs {
		r, err := openRun(name)
		if err == nil {
			m.files = append(m.files, r.file)
			err = m.push(r)
		}
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

func (m *merger) next() (*record, error) {
	if len(m.heads) == 0 {
		return nil, nil
	}
	first := m.heads[0].now
	m.now = record{append(m.now.key[:0], first.key...), append(m.now.value[:0], first.value...), first.recordInfo}
	if err := m.advance(); err != nil {
		return nil, err
	}
	for len(m.heads) > 0 && bytes.Equal(m.heads[0].now.key, m.now.key) {
		if later := m.heads[0].now; m.now.then(later.recordInfo) {
			m.now.value = append(m.now.value[:0], later.value...)
		}
		if err := m.advance(); err != nil {
			return nil, err
		}
	}
	return &m.now, nil
}

// advance moves the first source to its next record.
func (m *merger) advance() (err error) {
	first := &m.heads[0]
	if first.now, err = first.from.next(); err != nil {
		return err
	}
	if first.now == nil {
		heap.Pop(&m.heads)
	} else {
		heap.Fix(&m.heads, 0)
	}
	return nil
}

func (m *merger) close() (err error) {
	for _, f := range m.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

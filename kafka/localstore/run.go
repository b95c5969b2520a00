package localstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
)

// A record is what a load keeps of the records of one key.
type record struct {
	key, value []byte
	recordInfo
}

// A recordInfo says what the value of a record is. Of several records of a key, then keeps the one that a store would
// have that applies one after the other, whatever their grouping.
type recordInfo struct {
	version int64
	offset  int64
}

// then applies a later record, and reports whether its value replaces the one before.
func (a *recordInfo) then(b recordInfo) (replaces bool) {
	if b.version < a.version {
		return false
	}
	*a = b
	return true
}

// A run file has records and then their checksum:
//
//	inRun, varints of version, offset, and the lengths of key and value; key; value
//	endOfRun, CRC-32C as 4 bytes, big endian
const (
	inRun    = 1
	endOfRun = 0xff
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const runBuffer = 64 << 10

type runWriter struct {
	file *os.File
	out  *bufio.Writer
	sum  hash.Hash32
	head []byte
}

func createRun(name string) (*runWriter, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create a run of a load: %w", err)
	}
	w := &runWriter{file: f, sum: crc32.New(castagnoli)}
	w.out = bufio.NewWriterSize(io.MultiWriter(w.sum, f), runBuffer)
	return w, nil
}

func (w *runWriter) add(r *record) error {
	w.head = append(w.head[:0], inRun)
	for _, n := range []int64{r.version, r.offset, int64(len(r.key)), int64(len(r.value))} {
		w.head = binary.AppendVarint(w.head, n)
	}
	_, err := w.out.Write(w.head)
	if err == nil {
		_, err = w.out.Write(r.key)
	}
	if err == nil {
		_, err = w.out.Write(r.value)
	}
	return err
}

func (w *runWriter) close() error {
	err := w.out.WriteByte(endOfRun)
	err = errors.Join(err, w.out.Flush())
	_, writeErr := w.file.Write(binary.BigEndian.AppendUint32(nil, w.sum.Sum32()))
	return errors.Join(err, writeErr, w.file.Close())
}

// A runReader reads a run file. It returns an error at the end if the content is not what was written.
type runReader struct {
	file *os.File
	in   *bufio.Reader
	sum  hash.Hash32
	now  record
	done bool
}

func openRun(name string) (*runReader, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open a run of a load: %w", err)
	}
	return &runReader{file: f, in: bufio.NewReaderSize(f, runBuffer), sum: crc32.New(castagnoli)}, nil
}

func (r *runReader) next() (*record, error) {
	if r.done {
		return nil, nil
	}
	next, err := r.read()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.file.Name(), err)
	}
	return next, nil
}

// maxRunHead is the greatest length of a record without key and value.
const maxRunHead = 1 + 4*binary.MaxVarintLen64

var errBadRun = errors.New("the run of a load is damaged")

func (r *runReader) read() (*record, error) {
	head, err := r.in.Peek(maxRunHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case len(head) == 5 && head[0] == endOfRun:
		r.done = true
		r.sum.Write(head[:1])
		if binary.BigEndian.Uint32(head[1:]) != r.sum.Sum32() {
			return nil, errBadRun
		}
		return nil, nil
	case len(head) == 0 || head[0] != inRun:
		return nil, errBadRun
	}
	var numbers [4]int64
	size := 1
	for i := range numbers {
		n, length := binary.Varint(head[size:])
		if length <= 0 {
			return nil, errBadRun
		}
		numbers[i], size = n, size+length
	}
	keyLen, valueLen := numbers[2], numbers[3]
	if keyLen < 0 || valueLen < 0 || keyLen+valueLen > 1<<30 {
		return nil, errBadRun
	}
	r.now.recordInfo = recordInfo{numbers[0], numbers[1]}
	r.sum.Write(head[:size])
	if _, err := r.in.Discard(size); err != nil {
		return nil, err
	}
	if r.now.key, err = r.fill(r.now.key, int(keyLen)); err == nil {
		r.now.value, err = r.fill(r.now.value, int(valueLen))
	}
	return &r.now, err
}

// fill reads n bytes into a buffer.
func (r *runReader) fill(b []byte, n int) ([]byte, error) {
	if cap(b) < n {
		b = make([]byte, n)
	}
	b = b[:n]
	_, err := io.ReadFull(r.in, b)
	r.sum.Write(b)
	return b, err
}

package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/parquetlog"
)

// A spool is a temporary file with the records of an open object. Open objects of all partitions would not fit into
// memory.
type spool struct {
	file    *os.File
	out     *bufio.Writer
	buffer  []byte
	first   time.Time // log time of the first record
	records int
	bytes   int // of keys, values and headers
}

func newSpool(dir string, first time.Time) (*spool, error) {
	file, err := parquetlog.Temporary(dir)
	if err != nil {
		return nil, err
	}
	return &spool{file: file, out: bufio.NewWriterSize(file, 64<<10), first: first}, nil
}

const frameHeader = 8 + 4 + 4 // offset, leader epoch, length

// add appends a record in Kafka's encoding of records.
func (s *spool) add(r *kgo.Record) error {
	k := kmsg.Record{TimestampDelta64: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kmsg.Header(h))
	}
	b := k.AppendTo(append(s.buffer[:0], make([]byte, frameHeader)...))
	binary.BigEndian.PutUint64(b, uint64(r.Offset))
	binary.BigEndian.PutUint32(b[8:], uint32(r.LeaderEpoch))
	binary.BigEndian.PutUint32(b[12:], uint32(len(b)-frameHeader))
	s.buffer = b
	s.records++
	s.bytes += parquetlog.Size(r)
	if _, err := s.out.Write(b); err != nil {
		return fmt.Errorf("write a temporary file of the archive: %w", err)
	}
	return nil
}

// all returns the records, without topic and partition. The bytes of each are overwritten by the next one.
func (s *spool) all() iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		if err := s.out.Flush(); err != nil {
			yield(nil, fmt.Errorf("write a temporary file of the archive: %w", err))
			return
		}
		in := bufio.NewReaderSize(io.NewSectionReader(s.file, 0, 1<<62), 256<<10)
		var head [frameHeader]byte
		var body []byte
		for {
			var k kmsg.Record
			_, err := io.ReadFull(in, head[:])
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				size := int(binary.BigEndian.Uint32(head[12:]))
				body = slices.Grow(body[:0], size)[:size]
				_, err = io.ReadFull(in, body)
			}
			if err == nil {
				err = k.ReadFrom(body)
			}
			if err != nil {
				yield(nil, fmt.Errorf("read a temporary file of the archive: %w", err))
				return
			}
			r := &kgo.Record{
				Offset: int64(binary.BigEndian.Uint64(head[:])), LeaderEpoch: int32(binary.BigEndian.Uint32(head[8:])),
				Timestamp: time.UnixMilli(k.TimestampDelta64).UTC(), Key: k.Key, Value: k.Value,
			}
			for _, h := range k.Headers {
				r.Headers = append(r.Headers, kgo.RecordHeader(h))
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (s *spool) close() {
	if s != nil {
		_ = s.file.Close()
	}
}

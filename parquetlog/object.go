package parquetlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
)

// An Object says which part of the log an object has: all committed records from offset Begin to before End. It is in
// the object's footer, as JSON.
type Object struct {
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"`
	Partition int32  `json:"partition"`
	// Begin is the End of the object before it. The offsets from Begin to First, and from Last to End, have no
	// committed records: transaction markers and aborted records are there.
	Begin int64 `json:"begin"`
	First int64 `json:"first"` // offset of the first record
	Last  int64 `json:"last"`  // offset of the last record
	End   int64 `json:"end"`
}

const footerKey = "tidemark"

// SameStart reports whether two objects begin with the same record.
func (o Object) SameStart(other Object) bool {
	return o.Topic == other.Topic && o.TopicID == other.TopicID && o.Partition == other.Partition &&
		o.First == other.First
}

// Name returns the name of an object whose first record has that log time.
func (o Object) Name(first time.Time) string {
	first = first.UTC()
	return fmt.Sprintf("%s/dt=%s/hour=%s/%s-%d-%020d.parquet", o.Topic, first.Format(time.DateOnly), first.Format("15"),
		o.Topic, o.Partition, o.First)
}

// ParseName returns the partition and first offset in an object's name.
func ParseName(topic, name string) (partition int32, first int64, ok bool) {
	base, parquet := strings.CutSuffix(name[strings.LastIndexByte(name, '/')+1:], ".parquet")
	base, ours := strings.CutPrefix(base, topic+"-")
	number, offset, both := strings.Cut(base, "-")
	n, err := strconv.ParseInt(number, 10, 32)
	first, wrong := strconv.ParseInt(offset, 10, 64)
	return int32(n), first, parquet && ours && both && err == nil && wrong == nil && len(offset) == 20
}

// A row is a record. The columns from workspace_id to received_at are what package codecs reads in the value, and null
// in a record that it cannot read. Absent fields are null.
type row struct {
	Partition   int32  `parquet:"partition,dict"`
	Offset      int64  `parquet:"offset,delta"`
	LogTime     int64  `parquet:"log_time,delta,timestamp(microsecond)"`
	WorkspaceID string `parquet:"workspace_id,optional,dict"`
	EventID     string `parquet:"event_id,optional"`
	Event       string `parquet:"event,optional,dict"`
	FileID      string `parquet:"file_id,optional,dict"`
	Name        string `parquet:"name,optional"`
	Path        string `parquet:"path,optional"`
	ParentID    string `parquet:"parent_id,optional,dict"`
	Size        *int64 `parquet:"size,optional"`
	Mime        string `parquet:"mime,optional,dict"`
	Hash        string `parquet:"hash,optional"`
	ActorID     string `parquet:"actor_id,optional,dict"`
	MemberID    string `parquet:"member_id,optional,dict"`
	EventTime   int64  `parquet:"event_time,optional,timestamp(microsecond)"`
	ReceivedAt  int64  `parquet:"received_at,optional,timestamp(microsecond)"`
	// The record as it was received. Value is null, and ValueBytes is not, if it is not UTF-8: readers refuse a whole
	// file for one text that is not. Keys and headers can be any bytes, so they are no texts.
	Value      *string  `parquet:"value,optional"`
	ValueBytes *[]byte  `parquet:"value_bytes,optional"`
	Key        *[]byte  `parquet:"key,optional"`
	Headers    []header `parquet:"headers,list"`
}

type header struct {
	Key   []byte  `parquet:"key,dict"`
	Value *[]byte `parquet:"value,optional"`
}

func newRow(partition int32, r *kgo.Record) row {
	to := row{Partition: partition, Offset: r.Offset, LogTime: r.Timestamp.UnixMicro()}
	if e, err := codecs.ParseEvent(r.Value); err == nil {
		to.WorkspaceID, to.EventID, to.Event = e.GetWorkspaceId(), e.GetEventId(), e.GetEvent()
		to.FileID, to.Name, to.Path, to.ParentID = e.GetFileId(), e.GetName(), e.GetPath(), e.GetParentId()
		to.Size, to.Mime, to.Hash = e.Size, e.GetMime(), e.GetHash()
		to.ActorID, to.MemberID = e.GetActorId(), e.GetMemberId()
		to.EventTime, to.ReceivedAt = e.GetOccurredAt(), e.GetReceivedAt()
	}
	if r.Key != nil {
		to.Key = &r.Key
	}
	switch {
	case r.Value == nil:
	case utf8.Valid(r.Value):
		to.Value = new(string(r.Value))
	default:
		to.ValueBytes = &r.Value
	}
	for _, h := range r.Headers {
		to.Headers = append(to.Headers, header{Key: []byte(h.Key)})
		if h.Value != nil {
			to.Headers[len(to.Headers)-1].Value = &h.Value
		}
	}
	return to
}

// record returns the record as it was received.
func (r *row) record(topic string) *kgo.Record {
	to := &kgo.Record{
		Topic: topic, Partition: r.Partition, Offset: r.Offset, Timestamp: time.UnixMicro(r.LogTime).UTC(),
	}
	switch {
	case r.Value != nil:
		to.Value = []byte(*r.Value)
	case r.ValueBytes != nil:
		to.Value = *r.ValueBytes
	}
	if r.Key != nil {
		to.Key = *r.Key
	}
	for _, h := range r.Headers {
		to.Headers = append(to.Headers, kgo.RecordHeader{Key: string(h.Key)})
		if h.Value != nil {
			to.Headers[len(to.Headers)-1].Value = *h.Value
		}
	}
	return to
}

// Size returns the size of a record's key, value and headers.
func Size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// Bounds of a row group, which is kept in memory until it is complete.
const (
	groupRows  = 50_000
	groupBytes = 8 << 20
)

var compression = &zstd.Codec{Level: zstd.DefaultLevel} // its encoders are used again

// Write writes records as Parquet. The bytes depend only on the records, the object and the versions of the libraries.
func Write(to io.Writer, records iter.Seq2[*kgo.Record, error], o Object) error {
	footer, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode the footer: %w", err)
	}
	out := parquet.NewGenericWriter[row](to, parquet.CreatedBy("tidemark", "1", "archive"),
		parquet.Compression(compression), parquet.KeyValueMetadata(footerKey, string(footer)),
		parquet.DataPageStatistics(true), parquet.SkipPageBounds("value"), parquet.SkipPageBounds("value_bytes"))
	rows, bytes := 0, 0
	for r, err := range records {
		if err != nil {
			return err
		}
		if rows == groupRows || rows > 0 && bytes+Size(r) > groupBytes {
			if err := out.Flush(); err != nil {
				return err
			}
			rows, bytes = 0, 0
		}
		if _, err := out.Write([]row{newRow(o.Partition, r)}); err != nil {
			return err
		}
		rows++
		bytes += Size(r)
	}
	return out.Close()
}

// Describe reads the footer of a stored object.
func Describe(ctx context.Context, s Store, name string) (Object, error) {
	in, err := s.Open(ctx, name)
	if err != nil {
		return Object{}, err
	}
	defer func() { _ = in.Close() }()
	o, _, err := Read(in)
	if err != nil {
		return o, fmt.Errorf("read the footer of %s: %w", name, err)
	}
	return o, nil
}

// Read reads the footer of an object, and returns its records.
func Read(in Stored) (o Object, records iter.Seq2[*kgo.Record, error], err error) {
	size, err := in.Seek(0, io.SeekEnd)
	if err != nil {
		return o, nil, err
	}
	file, err := parquet.OpenFile(in, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return o, nil, fmt.Errorf("it cannot be read as Parquet: %w", err)
	}
	footer, _ := file.Lookup(footerKey)
	if err := json.Unmarshal([]byte(footer), &o); err != nil {
		return o, nil, fmt.Errorf("it is no object of the archive: its footer %q: %w", footerKey, err)
	}
	return o, func(yield func(*kgo.Record, error) bool) {
		reader := parquet.NewGenericReader[row](file)
		defer func() { _ = reader.Close() }()
		for rows := make([]row, 256); ; clear(rows) {
			n, err := reader.Read(rows)
			for i := range rows[:n] {
				if !yield(rows[i].record(o.Topic), nil) {
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield(nil, err)
				}
				return
			}
		}
	}, nil
}

package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A record is one Kafka record as JSON. Text that is not UTF-8, and a value that is not JSON, are in the fields named
// *_base64.
type record struct {
	Topic       string            `json:"topic"`
	Partition   int32             `json:"partition"`
	Offset      int64             `json:"offset"`
	Timestamp   string            `json:"timestamp"`
	Key         *string           `json:"key"` // null: the record has none
	KeyBase64   string            `json:"key_base64,omitempty"`
	Headers     map[string]string `json:"headers"` // of a repeated one the last
	Value       json.RawMessage   `json:"value,omitempty"`
	ValueBase64 *string           `json:"value_base64,omitempty"`

	HeadersBase64 map[string]string `json:"headers_base64,omitempty"`
}

func newRecord(r *kgo.Record) record {
	out := record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
		Timestamp: r.Timestamp.UTC().Format(time.RFC3339Nano), Headers: map[string]string{},
	}
	if key := string(r.Key); r.Key != nil && utf8.ValidString(key) {
		out.Key = &key
	} else {
		out.KeyBase64 = base64.StdEncoding.EncodeToString(r.Key)
	}
	for _, h := range r.Headers {
		if utf8.Valid(h.Value) {
			out.Headers[h.Key] = string(h.Value)
			continue
		}
		if out.HeadersBase64 == nil {
			out.HeadersBase64 = map[string]string{}
		}
		out.HeadersBase64[h.Key] = base64.StdEncoding.EncodeToString(h.Value)
	}
	switch {
	case r.Value == nil:
		out.Value = json.RawMessage("null")
	case utf8.Valid(r.Value) && json.Valid(r.Value):
		out.Value = r.Value
	default:
		text := base64.StdEncoding.EncodeToString(r.Value)
		out.ValueBase64 = &text
	}
	return out
}

// A recordPrinter prints records as they are read: one JSON object per line, or one YAML document each.
type recordPrinter struct {
	w    *bufio.Writer
	form string
}

func newRecordPrinter(w io.Writer, form string) *recordPrinter {
	return &recordPrinter{w: bufio.NewWriter(w), form: form}
}

// print may buffer the record until flush.
func (p *recordPrinter) print(r *kgo.Record) error {
	out := newRecord(r)
	if p.form != asTable {
		return printOne(p.w, p.form, out)
	}
	value := cell(string(bytes.TrimSpace(out.Value)))
	if out.ValueBase64 != nil {
		value = fmt.Sprintf("(%d bytes) %s", len(r.Value), *out.ValueBase64)
	}
	_, err := fmt.Fprintf(p.w, "%d:%d  %s  %s  %s\n", r.Partition, r.Offset, out.Timestamp, dash(string(r.Key)), value)
	return err
}

func (p *recordPrinter) flush() error { return p.w.Flush() }

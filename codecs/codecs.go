// Package codecs turns messages into record bytes and back.
//
// It parses a webhook strictly: it refuses bytes that are not UTF-8, duplicate names in one object, more than 32
// levels, a lone surrogate in a name or an id, and anything after the object. So two readers cannot take one record for
// different things. When it adds members to a record, every other byte stays as the sender wrote it. It decodes all
// that it encodes.
//
// A codec knows one encoding and no topic: package topology lists what each topic carries. No codec reads the clock.
package codecs

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Proto encodes M as protobuf. It implements goka.Codec without importing goka. Unknown fields survive a round trip.
type Proto[M proto.Message] struct{ New func() M }

// Encode returns the bytes of value, which must be an M. The same message always gives the same bytes.
func (c Proto[M]) Encode(value any) ([]byte, error) {
	m, ok := value.(M)
	if !ok {
		return nil, fmt.Errorf("encode protobuf: got a %T, want a %T", value, c.New())
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", value, err)
	}
	return b, nil
}

// Decode returns an M.
func (c Proto[M]) Decode(data []byte) (any, error) {
	m := c.New()
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("decode %T: %w", m, err)
	}
	return m, nil
}

// FileRow encodes a *tidemarkv1.FileState to the same bytes as Proto, with code that is generated for it: a processor
// does that for every event. It implements goka.Codec. Unknown fields survive a round trip.
type FileRow struct{}

// Encode returns the bytes of value, which must be a *tidemarkv1.FileState.
func (FileRow) Encode(value any) ([]byte, error) {
	s, ok := value.(*tidemarkv1.FileState)
	if !ok {
		return nil, fmt.Errorf("encode protobuf: got a %T, want a %T", value, s)
	}
	b, err := s.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", value, err)
	}
	return b, nil
}

// Decode returns a *tidemarkv1.FileState, whose texts share memory with data: it must not be changed afterwards.
func (FileRow) Decode(data []byte) (any, error) {
	s := new(tidemarkv1.FileState)
	if err := s.UnmarshalVTUnsafe(data); err != nil {
		return nil, fmt.Errorf("decode %T: %w", s, err)
	}
	return s, nil
}

// Bytes encodes a []byte as itself. It implements goka.Codec.
type Bytes struct{}

// Encode returns value, which must be a []byte.
func (Bytes) Encode(value any) ([]byte, error) {
	b, ok := value.([]byte)
	if !ok {
		return nil, fmt.Errorf("encode bytes: got a %T, want a []byte", value)
	}
	return b, nil
}

// Decode returns data.
func (Bytes) Decode(data []byte) (any, error) { return data, nil }

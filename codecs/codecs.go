// Package codecs turns messages into record bytes and back.
//
// It promises that a webhook is read strictly: bytes that are not UTF-8, a name twice in one object, more than 32 levels, a
// lone surrogate in a name or an id, or anything behind the object are refused, so that no two readers can understand one
// record differently.
// What it splices into a record leaves every other byte as the sender wrote it. What it writes, it reads.
//
// A codec knows one encoding and nothing about topics; package topology says what each topic carries. It has no clock.
package codecs

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Proto encodes M as protobuf. It satisfies goka.Codec without importing goka. Fields that this build does not know survive
// a round trip.
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

// Bytes passes bytes on as they are. It satisfies goka.Codec.
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

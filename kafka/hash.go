package kafka

import (
	"bytes"
	"hash"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// WorkspaceHasher hashes a whole key, for the events topic, whose keys are workspace ids. It is Java's murmur2 with the
// sign bit cleared, so a key's partition is the one that Java, kafka-python and librdkafka's murmur2_random choose.
func WorkspaceHasher() hash.Hash32 { return &hasher{} }

// FileHasher hashes the unescaped workspace of a "workspace/file" key, for all other topics: the partition is that of
// the workspace's events.
func FileHasher() hash.Hash32 { return &hasher{prefix: true} }

// Partition returns the partition of a workspace's records, in every topic with n partitions.
func Partition(workspace string, n int) int32 {
	return int32(positive([]byte(workspace)) % uint32(n))
}

// FilePartition returns the partition of a "workspace/file" or "workspace" key in a topic with n partitions.
func FilePartition(key []byte, n int) int32 {
	return int32(positive(workspaceOf(key)) % uint32(n))
}

// A hasher collects the key and hashes it in Sum32: murmur2 needs its length. goka and sarama write a key at once, but
// need not.
type hasher struct {
	prefix bool
	key    []byte
}

func (h *hasher) Write(b []byte) (int, error) {
	h.key = append(h.key, b...)
	return len(b), nil
}

func (h *hasher) Sum32() uint32 {
	if h.prefix {
		return positive(workspaceOf(h.key))
	}
	return positive(h.key)
}

func (h *hasher) Sum(b []byte) []byte {
	s := h.Sum32()
	return append(b, byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
}

func (h *hasher) Reset()         { h.key = h.key[:0] }
func (h *hasher) Size() int      { return 4 }
func (h *hasher) BlockSize() int { return 4 }

// workspaceOf returns the workspace of a key. The key of another program, whose escapes are invalid, is used unchanged:
// any fixed rule will do for it.
func workspaceOf(key []byte) []byte {
	left, _, _ := bytes.Cut(key, []byte("/"))
	if bytes.IndexByte(left, '%') < 0 {
		return left
	}
	workspace, err := tidemarkv1.UnescapePart(string(left))
	if err != nil {
		return left
	}
	return []byte(workspace)
}

// positive is toPositive(murmur2(key)) of Kafka's Java clients (org.apache.kafka.common.utils.Utils). The cleared sign
// bit also keeps goka from negating math.MinInt32, which panics.
func positive(key []byte) uint32 { return murmur2(key) & 0x7fffffff }

func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

package repartition

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// positions maps the old positions of copied events to the new ones. It takes 8 bytes for each, in chunks of
// neighbours.
type positions map[chunk]*[chunkSize]int64

const chunkSize = 1024

type chunk struct {
	partition int32
	number    int64
}

// offsetBits is how many bits of an entry are the new offset. The others are the new partition plus 1, so 0 is no
// entry.
const offsetBits = 44

// add adds an event. It returns false if its old position is there already.
func (p positions) add(oldPartition int32, oldOffset int64, partition int32, offset int64) bool {
	c := chunk{oldPartition, oldOffset / chunkSize}
	if p[c] == nil {
		p[c] = new([chunkSize]int64)
	}
	entry := &p[c][oldOffset%chunkSize]
	if *entry != 0 {
		return false
	}
	*entry = int64(partition+1)<<offsetBits | offset
	return true
}

// find returns the new position of an event, nil if it was not copied.
func (p positions) find(partition int32, offset int64) *tidemarkv1.Position {
	entries := p[chunk{partition, offset / chunkSize}]
	if entries == nil || offset < 0 || entries[offset%chunkSize] == 0 {
		return nil
	}
	entry := entries[offset%chunkSize]
	return &tidemarkv1.Position{Partition: int32(entry>>offsetBits) - 1, Offset: entry & (1<<offsetBits - 1)}
}

// translate replaces every position in a message. A position of an event that was not copied is cleared.
func (p positions) translate(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Kind() != protoreflect.MessageKind || field.IsMap() || !m.Has(field) {
			continue
		}
		if field.IsList() {
			for j := range m.Get(field).List().Len() {
				p.translate(m.Get(field).List().Get(j).Message())
			}
			continue
		}
		at, is := m.Get(field).Message().Interface().(*tidemarkv1.Position)
		switch {
		case !is:
			p.translate(m.Mutable(field).Message())
		case p.find(at.GetPartition(), at.GetOffset()) == nil:
			m.Clear(field)
		default:
			m.Set(field, protoreflect.ValueOfMessage(p.find(at.GetPartition(), at.GetOffset()).ProtoReflect()))
		}
	}
}

// translateRow replaces the positions in a row. Positions in an events topic before the old one are cleared.
func (r *run) translateRow(row proto.Message) {
	known := r.positions
	switch row := row.(type) {
	case *tidemarkv1.FileState:
		if row.GetLogId() != r.fromID {
			known = positions{}
		}
		row.SilentOffset = known.offset(row.GetPosition(), row.GetSilentOffset())
		row.LogId = r.toID
	case *tidemarkv1.WorkspaceState:
		if row.GetLogId() != r.fromID {
			known = positions{}
		}
		var applied []int64
		for _, offset := range file.AppliedOffsets(row) {
			if at := known.find(row.GetPosition().GetPartition(), offset); at != nil {
				applied = append(applied, at.GetOffset())
			}
		}
		for _, member := range row.GetMembers() {
			member.Offset = known.offset(row.GetPosition(), member.GetOffset())
		}
		file.SetApplied(row, append(applied, 0)[0], applied) // without any, the first is 0
		row.LogId = r.toID
	}
	known.translate(row.ProtoReflect())
}

// offset returns the new offset of an event in the partition of a position; 0, which is before all others, if it was
// not copied.
func (p positions) offset(of *tidemarkv1.Position, offset int64) int64 {
	if of == nil {
		return 0
	}
	return p.find(of.GetPartition(), offset).GetOffset()
}

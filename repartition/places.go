package repartition

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// places knows where copied events lie. It takes 8 bytes for each, in chunks of neighbours.
type places map[chunk]*[chunkSize]int64

const chunkSize = 1024

type chunk struct {
	partition int32
	number    int64
}

// offsetBits are those of an entry that hold the new offset; the rest is the new partition plus 1, so 0 is no entry.
const offsetBits = 44

// add notes where an event of the old log lies. It returns false if that was known.
func (p places) add(oldPartition int32, oldOffset int64, partition int32, offset int64) bool {
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

// find returns where an event of the old log lies, nil when it was not copied.
func (p places) find(partition int32, offset int64) *tidemarkv1.Position {
	entries := p[chunk{partition, offset / chunkSize}]
	if entries == nil || offset < 0 || entries[offset%chunkSize] == 0 {
		return nil
	}
	entry := entries[offset%chunkSize]
	return &tidemarkv1.Position{Partition: int32(entry>>offsetBits) - 1, Offset: entry & (1<<offsetBits - 1)}
}

// translate gives every position in a message its new place. One whose event is not in the new log is taken out.
func (p places) translate(m protoreflect.Message) {
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

// move makes a row of the old tables one of the new ones. What it says of a log before the old one is said no more.
func (r *run) move(row proto.Message) {
	known := r.places
	switch row := row.(type) {
	case *tidemarkv1.FileState:
		if row.GetLogId() != r.fromID {
			known = places{}
		}
		row.SilentOffset = known.offset(row.GetPosition(), row.GetSilentOffset())
		row.LogId = r.toID
	case *tidemarkv1.WorkspaceState:
		if row.GetLogId() != r.fromID {
			known = places{}
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
		file.SetApplied(row, append(applied, 0)[0], applied) // of none the first is 0, too
		row.LogId = r.toID
	}
	known.translate(row.ProtoReflect())
}

// offset returns the new offset of an event in the partition of a position; 0, which is before all others, when it has
// none.
func (p places) offset(of *tidemarkv1.Position, offset int64) int64 {
	if of == nil {
		return 0
	}
	return p.find(of.GetPartition(), offset).GetOffset()
}

package file

import (
	"slices"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A field is a field of the row that has a time of its own. Its number is the index in FileState.field_times.
type field int

const (
	fieldName field = iota
	fieldPath
	fieldParent
	fieldSize
	fieldMime
	fieldHash
	fieldStatus
	fieldActor
	fieldCount
)

// times are the sender's times of the events that last wrote each field, in microseconds since 1970 UTC; 0 if no dated
// event did.
type times [fieldCount]int64

// timesOf reads the times of a row. A row of an older build has a time for each group of fields instead.
func timesOf(s *tidemarkv1.FileState) (t times) {
	if len(s.GetFieldTimes()) > 0 {
		for f, behind := range s.GetFieldTimes()[:min(len(s.GetFieldTimes()), int(fieldCount))] {
			if behind > 0 {
				t[f] = s.GetLastAt() - int64(behind-1)
			}
		}
		return t
	}
	if s.GetPlaceAt() == 0 && s.GetContentAt() == 0 && s.GetStatusAt() == 0 {
		return t // no dated event wrote a field
	}
	for _, old := range [...]struct {
		field field
		set   bool
		at    int64
	}{
		{fieldName, s.GetName() != "", s.GetPlaceAt()},
		{fieldPath, s.GetPath() != "", s.GetPlaceAt()},
		{fieldParent, s.GetParentId() != "", s.GetPlaceAt()},
		{fieldSize, s != nil && s.Size != nil, s.GetContentAt()},
		{fieldMime, s.GetMime() != "", s.GetContentAt()},
		{fieldHash, s.GetHash() != "", s.GetContentAt()},
		{fieldStatus, true, s.GetStatusAt()},
		{fieldActor, s.GetActorId() != "", s.GetLastAt()},
	} {
		if old.set {
			t[old.field] = old.at
		}
	}
	return t
}

// store writes the times into a row, and sets its last_at to the newest of them if that is later.
func (t times) store(s *tidemarkv1.FileState) {
	s.PlaceAt, s.ContentAt, s.StatusAt, s.FieldTimes = nil, nil, nil, nil
	newest := slices.Max(t[:])
	if newest == 0 {
		return
	}
	if s.LastAt == nil || s.GetLastAt() < newest {
		s.LastAt = &newest
	}
	n := len(t)
	for t[n-1] == 0 {
		n--
	}
	s.FieldTimes = make([]uint64, n)
	for f, at := range t[:n] {
		if at != 0 {
			s.FieldTimes[f] = uint64(s.GetLastAt()-at) + 1
		}
	}
}

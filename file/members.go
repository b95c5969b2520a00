package file

import (
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// memberOf returns who joined or left by a membership event, nil for any other. A change of a membership shows that there is
// one.
func memberOf(e *tidemarkv1.Event) *tidemarkv1.Member {
	left := strings.HasPrefix(e.GetEvent(), "removed_member_from_")
	if !left && !strings.HasPrefix(e.GetEvent(), "added_member_to_") && e.GetEvent() != "membership_updated" {
		return nil
	}
	id := e.GetMemberId()
	if id == "" {
		id = e.GetFileId() // the object of such an event is a person
	}
	if id == "" {
		return nil
	}
	when, _ := believed(e)
	return &tidemarkv1.Member{Id: id, Left: left, At: when}
}

// keepLeft is how long it is remembered that a member left, in microseconds: longer than a webhook is retried.
const keepLeft = windowSeconds * 1e6

// How many members a row holds, and of how many it remembers that they left. Ids have at most 256 bytes, so that the row stays
// smaller than a record may be.
const (
	maxMembers = 10000
	maxLeft    = 1000
)

// enter returns the members, sorted by id, after one of them joined or left. As with files the member's own time decides, an
// event without one counts as newest, and equal times go by the log. Who joins when maxMembers are in is not entered. It does
// not change the members that it is given.
func enter(members []*tidemarkv1.Member, m *tidemarkv1.Member, offset int64) []*tidemarkv1.Member {
	at, found := slices.BinarySearchFunc(members, m.GetId(), func(m *tidemarkv1.Member, id string) int {
		return strings.Compare(m.GetId(), id)
	})
	now := &tidemarkv1.Member{Id: m.GetId(), Left: m.GetLeft(), At: m.GetAt(), Offset: offset}
	if found {
		held := members[at]
		if m.GetAt() == 0 {
			now.At = held.GetAt()
		}
		if now.GetAt() < held.GetAt() || now.GetAt() == held.GetAt() && offset < held.GetOffset() {
			return members
		}
	}
	inside := found && !members[at].GetLeft()
	if !m.GetLeft() && !inside && countMembers(members, false) >= maxMembers {
		return members
	}
	after := make([]*tidemarkv1.Member, 0, len(members)+1)
	for _, other := range members[:at] {
		after = appendKept(after, other, now)
	}
	after = append(after, now)
	if found {
		at++
	}
	for _, other := range members[at:] {
		after = appendKept(after, other, now)
	}
	if m.GetLeft() && countMembers(after, true) > maxLeft {
		after = forgetFirst(after)
	}
	return after
}

func countMembers(members []*tidemarkv1.Member, left bool) (n int) {
	for _, m := range members {
		if m.GetLeft() == left {
			n++
		}
	}
	return n
}

// forgetFirst takes out of members, which it may change, who left first by the log.
func forgetFirst(members []*tidemarkv1.Member) []*tidemarkv1.Member {
	first := -1
	for i, m := range members {
		if m.GetLeft() && (first < 0 || m.GetOffset() < members[first].GetOffset()) {
			first = i
		}
	}
	return slices.Delete(members, first, first+1)
}

// appendKept forgets who left so long ago that no late event of theirs can come.
func appendKept(members []*tidemarkv1.Member, m, now *tidemarkv1.Member) []*tidemarkv1.Member {
	if m.GetLeft() && m.GetAt() != 0 && m.GetAt() < now.GetAt()-keepLeft {
		return members
	}
	return append(members, m)
}

// forgetOffsets returns the members for another log, whose every offset is newer.
func forgetOffsets(members []*tidemarkv1.Member) []*tidemarkv1.Member {
	after := make([]*tidemarkv1.Member, len(members))
	for i, m := range members {
		after[i] = &tidemarkv1.Member{Id: m.GetId(), Left: m.GetLeft(), At: m.GetAt(), Offset: -1}
	}
	return after
}

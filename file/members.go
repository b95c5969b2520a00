package file

import (
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// memberOf returns the member that joined or left by a membership event, nil for any other event. An updated membership
// counts as joined.
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
	when, _ := orderTime(e)
	return &tidemarkv1.Member{Id: id, Left: left, At: when}
}

// keepLeft is how long a row remembers that a member left, in microseconds: longer than a webhook is retried.
const keepLeft = windowSeconds * 1e6

// The maximum number of members in a row, and of former members. Ids have at most 256 bytes, so the row stays smaller
// than the largest record.
const (
	maxMembers = 10000
	maxLeft    = 1000
)

// putMember returns the members, sorted by id, after one of them joined or left. The latest event by the sender's time
// wins; one without a time counts as the newest, and of equal times the later in the log wins. A member who joins when
// there are maxMembers is not added. It does not change members.
func putMember(members []*tidemarkv1.Member, m *tidemarkv1.Member, offset int64) []*tidemarkv1.Member {
	at, found := slices.BinarySearchFunc(members, m.GetId(), func(m *tidemarkv1.Member, id string) int {
		return strings.Compare(m.GetId(), id)
	})
	now := &tidemarkv1.Member{Id: m.GetId(), Left: m.GetLeft(), At: m.GetAt(), Offset: offset}
	if found {
		old := members[at]
		if m.GetAt() == 0 {
			now.At = old.GetAt()
		}
		if now.GetAt() < old.GetAt() || now.GetAt() == old.GetAt() && offset < old.GetOffset() {
			return members
		}
	}
	joined := found && !members[at].GetLeft()
	if !m.GetLeft() && !joined && countMembers(members, false) >= maxMembers {
		return members
	}
	after := make([]*tidemarkv1.Member, 0, len(members)+1)
	for _, other := range members[:at] {
		after = appendUnexpired(after, other, now)
	}
	after = append(after, now)
	if found {
		at++
	}
	for _, other := range members[at:] {
		after = appendUnexpired(after, other, now)
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

// forgetFirst removes from members, which it may change, the member who left first in the log.
func forgetFirst(members []*tidemarkv1.Member) []*tidemarkv1.Member {
	first := -1
	for i, m := range members {
		if m.GetLeft() && (first < 0 || m.GetOffset() < members[first].GetOffset()) {
			first = i
		}
	}
	return slices.Delete(members, first, first+1)
}

// appendUnexpired appends m unless it left so long ago that no late event of it can arrive.
func appendUnexpired(members []*tidemarkv1.Member, m, now *tidemarkv1.Member) []*tidemarkv1.Member {
	if m.GetLeft() && m.GetAt() != 0 && m.GetAt() < now.GetAt()-keepLeft {
		return members
	}
	return append(members, m)
}

// forgetOffsets returns the members with offsets that are older than all of another topic.
func forgetOffsets(members []*tidemarkv1.Member) []*tidemarkv1.Member {
	after := make([]*tidemarkv1.Member, len(members))
	for i, m := range members {
		after[i] = &tidemarkv1.Member{Id: m.GetId(), Left: m.GetLeft(), At: m.GetAt(), Offset: -1}
	}
	return after
}

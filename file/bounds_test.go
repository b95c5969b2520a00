package file

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// largestRow is how large a record may be, less what a key, headers and a batch add.
const largestRow = 4<<20 - 1<<16

func ofType(mime string) *tidemarkv1.FileState {
	return &tidemarkv1.FileState{Status: tidemarkv1.Status_STATUS_ACTIVE, Mime: mime, Version: 1}
}

// However many types there are, and in whatever order notices come after a failed send, each file is taken out of the
// number that it was put into.
func TestTypesAreBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const files = 3000
	mime := func(i int) string { return fmt.Sprintf("application/x-%d", i) }
	var notices []*tidemarkv1.Notice
	count := func(before, after *tidemarkv1.FileState) {
		n := noticeAt(len(notices))
		n.Before, n.After = before, after
		notices = append(notices, n)
	}
	for i := range files {
		count(nil, ofType(mime(i)))
		count(ofType(mime(i)), ofType(mime((i+700)%files)))
	}
	half := len(notices)
	for i := range files {
		gone := ofType(mime((i + 700) % files))
		gone.Status = tidemarkv1.Status_STATUS_TRASHED
		count(ofType(mime((i+700)%files)), gone)
	}
	for i := 0; i < len(notices); i += 500 {
		part := notices[i:min(i+500, len(notices))]
		r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	var w *tidemarkv1.WorkspaceState
	for i, n := range notices {
		w, _ = Count(w, n, log)
		if i != half-1 && i != len(notices)-1 {
			continue
		}
		sum := int64(0)
		for kind, n := range w.GetByType() {
			if sum += n; n < 0 || n > 1 && kind != otherType {
				t.Errorf("after %d: %d of %s", i, n, kind)
			}
		}
		if sum != w.GetFiles() || len(w.GetByType()) != maxTypes+1 {
			t.Errorf("after %d: %d types of %d files, %d in all", i, len(w.GetByType()), w.GetFiles(), sum)
		}
	}
	if w.GetFiles() != 0 || w.GetByType()[otherType] != 0 || w.GetTrashed() != files {
		t.Errorf("%d files, %d other, %d trashed", w.GetFiles(), w.GetByType()[otherType], w.GetTrashed())
	}
	// Files without a type are always told from those of other types.
	n := noticeAt(len(notices))
	n.After = ofType("")
	if w, _ = Count(w, n, log); w.GetByType()[untyped] != 1 {
		t.Error("a file without a type is counted as another")
	}
}

// A full workspace takes in nobody new, and who leaves makes room. Of those who left the last in the log are
// remembered.
func TestMembersAreBounded(t *testing.T) {
	var members []*tidemarkv1.Member
	offset := int64(0)
	count := func(id string, left bool) {
		offset++
		members = putMember(members, &tidemarkv1.Member{Id: id, Left: left, At: noon + offset}, offset)
	}
	find := func(id string) string {
		for _, m := range members {
			if m.GetId() == id {
				return map[bool]string{true: "left", false: "in"}[m.GetLeft()]
			}
		}
		return "unknown"
	}
	for i := range maxMembers {
		count(fmt.Sprintf("m%05d", i), false)
	}
	count("new", false)
	if find("new") != "unknown" || len(members) != maxMembers {
		t.Errorf("new is %s among %d", find("new"), len(members))
	}
	count("m00007", false) // is in
	count("m00007", true)
	count("new", false)
	count("m00007", false)
	if find("new") != "in" || find("m00007") != "left" {
		t.Errorf("new is %s, m00007 is %s", find("new"), find("m00007"))
	}
	for i := range maxLeft {
		count(fmt.Sprintf("l%05d", i), true)
	}
	if find("m00007") != "unknown" || find("l00000") != "left" || len(members) != maxMembers+maxLeft {
		t.Errorf("m00007 is %s, l00000 is %s among %d", find("m00007"), find("l00000"), len(members))
	}
}

// A row that is full of everything, each as long as a sender may write it, fits into a record.
func TestLargestWorkspaceFits(t *testing.T) {
	w := &tidemarkv1.WorkspaceState{
		WorkspaceId: strings.Repeat("w", 256), LogId: strings.Repeat("l", 36),
		ByType: map[string]int64{},
	}
	count := func(n *tidemarkv1.Notice) {
		n.WorkspaceId = w.GetWorkspaceId()
		after, done := Count(w, n, w.GetLogId())
		if !done {
			t.Fatal("not counted")
		}
		w = after
	}
	long := func(i, length int) string { return fmt.Sprintf("%0*d", length, i) }
	for i := range maxTypes + 500 {
		n := noticeAt(i)
		n.After = ofType(long(i, maxTypeBytes))
		count(n)
	}
	for kind := range w.GetByType() {
		w.ByType[kind] = math.MaxInt64
	}
	for i := range maxMembers + maxLeft { // at once: one by one takes long
		w.Members = append(w.Members,
			&tidemarkv1.Member{Id: long(i, 256), Left: i >= maxMembers, At: math.MinInt64, Offset: math.MaxInt64})
	}
	for i := range 1500 {
		n := noticeAt(1<<40 + i<<34)
		n.Member = &tidemarkv1.Member{Id: long(1<<40+i, 256), Left: i%2 == 0, At: math.MaxInt64}
		count(n)
	}
	size := proto.Size(w)
	t.Logf("%d bytes", size)
	if size > largestRow || len(w.GetMembers()) > maxMembers+maxLeft || len(w.GetByType()) != maxTypes+1 {
		t.Errorf("%d bytes, %d members, %d types", size, len(w.GetMembers()), len(w.GetByType()))
	}
}

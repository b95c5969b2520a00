package file

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func noticeAt(offset int) *tidemarkv1.Notice {
	return &tidemarkv1.Notice{
		WorkspaceId: "ws", Event: "workspace_updated", Position: at(offset),
		At: noon + int64(offset)*1e6,
	}
}

// After a failed send the log may read 10, 12, 11, 12.
func TestCountAfterFailedSend(t *testing.T) {
	var w *tidemarkv1.WorkspaceState
	var done []bool
	for _, offset := range []int{10, 12, 11, 12, 10, 11, 13, 12} {
		after, counted := Count(w, noticeAt(offset), log)
		if !counted && after != w {
			t.Errorf("%d was not counted, but the row is another", offset)
		}
		w, done = after, append(done, counted)
	}
	if want := []bool{true, true, true, false, false, false, true, false}; !slices.Equal(done, want) {
		t.Errorf("counted %v, want %v", done, want)
	}
	if got := AppliedOffsets(w); !slices.Equal(got, []int64{10, 11, 12, 13}) || w.GetEvents() != 4 ||
		w.GetPosition().GetOffset() != 13 {
		t.Errorf("%v remembers %v", w, got)
	}
}

// Whatever comes again, and however the log was shuffled within what may be unacknowledged, the sums are those of one
// delivery in order, and no row that was returned changes.
func TestCountIsExact(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 2))
		notices := randomNotices(r, 3000)
		var want *tidemarkv1.WorkspaceState
		for _, n := range notices {
			want, _ = Count(want, n, log)
		}
		shuffled := slices.Clone(notices)
		// a failed send: some unacknowledged records are sent again in another order
		for i := 0; i < len(shuffled); i += 500 {
			part := shuffled[i:min(i+500, len(shuffled))]
			r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		}
		var got *tidemarkv1.WorkspaceState
		var kept []*tidemarkv1.WorkspaceState
		var was []string
		for i, n := range shuffled {
			got, _ = Count(got, n, log)
			for range r.IntN(3) { // from anywhere before: a consumer may start over
				again := shuffled[r.IntN(i+1)]
				if after, done := Count(got, again, log); done || after != got {
					t.Fatalf("seed %d: %d was counted twice", seed, again.GetPosition().GetOffset())
				}
			}
			if i%100 == 0 {
				kept, was = append(kept, got), append(was, bytesOf(t, got))
			}
		}
		if g, w := bytesOf(t, got), bytesOf(t, want); g != w {
			t.Errorf("seed %d:\n%v\nwant\n%v", seed, got, want)
		}
		for i := range kept {
			if bytesOf(t, kept[i]) != was[i] {
				t.Fatalf("seed %d: a row was changed later", seed)
			}
		}
	}
}

// randomNotices are what a few files and members of one workspace gave rise to, at growing offsets with gaps.
func randomNotices(r *rand.Rand, n int) []*tidemarkv1.Notice {
	rows := map[string]*tidemarkv1.FileState{}
	var notices []*tidemarkv1.Notice
	for offset := 0; len(notices) < n; offset += 1 + r.IntN(300) {
		e := randomEvent(r, len(notices))
		if r.IntN(4) == 0 {
			e.Event = []string{"added_member_to_workspace", "removed_member_from_workspace"}[r.IntN(2)]
			e.MemberId = fmt.Sprintf("u%d", r.IntN(10))
			second := noon + int64(len(notices)/50)*1e6 // many share one
			e.OccurredAt = &second
			notices = append(notices, NoticeOf(nil, nil, e, at(offset), false))
			continue
		}
		e.FileId = fmt.Sprintf("f%d", r.IntN(100))
		before := rows[e.GetFileId()]
		after, late, v := Apply(before, e, at(offset), log)
		if v == Accepted {
			rows[e.GetFileId()] = after
			notices = append(notices, NoticeOf(before, after, e, at(offset), late))
		}
	}
	return notices
}

// An offset that is older than all maxApplied offsets was counted and removed: the files group never has so many
// unacknowledged that one could come for the first time.
func TestCountOlderThanAllRemembered(t *testing.T) {
	var w *tidemarkv1.WorkspaceState
	for i := range maxApplied {
		w, _ = Count(w, noticeAt(100+2*i), log)
	}
	if _, done := Count(w, noticeAt(99), log); done {
		t.Error("an offset older than all of a full memory was counted")
	}
	w, done := Count(w, noticeAt(103), log)
	if offsets := AppliedOffsets(w); !done || len(offsets) != maxApplied || offsets[0] != 102 || offsets[1] != 103 {
		t.Errorf("counted %t; the memory of %d begins %v", done, len(offsets), offsets[:3])
	}
	if _, done := Count(w, noticeAt(100), log); done {
		t.Error("an offset that was removed was counted again")
	}
	w, _ = Count(w, noticeAt(5000), log)
	if offsets := AppliedOffsets(w); len(offsets) != maxApplied || offsets[0] != 103 ||
		offsets[maxApplied-1] != 5000 || w.GetAppliedFrom() != 102 {
		t.Errorf("the memory of %d is %v…", len(offsets), offsets[:3])
	}
	// A memory that is not full has let nothing go.
	w, _ = Count(nil, noticeAt(50), log)
	if w, done = Count(w, noticeAt(3), log); !done || w.GetEvents() != 2 || w.GetPosition().GetOffset() != 50 {
		t.Errorf("an offset never seen was not counted: %v", w)
	}
}

// Types are counted without case and parameters; the file's own is as it was sent.
func TestCountFoldsTypes(t *testing.T) {
	typed := func(offset int, before, after string) *tidemarkv1.Notice {
		n := noticeAt(offset)
		row := func(mime string) *tidemarkv1.FileState {
			return &tidemarkv1.FileState{Status: tidemarkv1.Status_STATUS_ACTIVE, Mime: mime}
		}
		if n.After = row(after); before != "-" {
			n.Before = row(before)
		}
		return n
	}
	notices := []*tidemarkv1.Notice{
		typed(1, "-", "text/plain"), typed(2, "-", "Text/Plain; charset=x"), typed(3, "-", " TEXT/PLAIN ;a=b;c=d"),
		typed(4, "-", "; charset=x"), typed(5, "-", ""),
		typed(6, "Text/Plain", "text/plain;x"), typed(7, "-", "text/html; x="+strings.Repeat("y", maxTypeBytes)),
		typed(8, "text/plain", "IMAGE/png"), typed(9, "-", "a/"+strings.Repeat("b", maxTypeBytes)),
	}
	want := map[string]int64{"text/plain": 2, untyped: 2, "text/html": 1, "image/png": 1, otherType: 1}
	var w *tidemarkv1.WorkspaceState
	for _, n := range notices {
		w, _ = Count(w, n, log)
	}
	if d := cmp.Diff(want, w.GetByType()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// A row from before keeps its sums.
	old := &tidemarkv1.WorkspaceState{
		WorkspaceId: "ws", LogId: log,
		ByType: map[string]int64{"Text/Plain; charset=x": 2, "text/plain": 1, "unknown": 1, "A/B": 0}, Files: 4,
	}
	was := bytesOf(t, old)
	after, _ := Count(old, typed(1, "Text/Plain; charset=x", "a/b"), log)
	if d := cmp.Diff(map[string]int64{"text/plain": 2, untyped: 1, "a/b": 1}, after.GetByType()); d != "" ||
		bytesOf(t, old) != was {
		t.Errorf("of an old row (-want +got):\n%s", d)
	}
}

func TestCountInAnotherTopic(t *testing.T) {
	w, _ := Count(nil, noticeAt(700), log)
	w, done := Count(w, noticeAt(3), "another log")
	if !done || w.GetEvents() != 2 || w.GetPosition().GetOffset() != 3 || w.GetLogId() != "another log" {
		t.Errorf("%v", w)
	}
	if _, done = Count(w, noticeAt(3), "another log"); done {
		t.Error("counted twice")
	}
}

func TestCountNeedsPosition(t *testing.T) {
	n := noticeAt(1)
	n.Position = nil
	if _, done := Count(nil, n, log); done {
		t.Error("a notice without a position was counted")
	}
	n = noticeAt(1)
	n.WorkspaceId = ""
	if _, done := Count(nil, n, log); done {
		t.Error("a notice without a workspace was counted")
	}
}

// Who left long ago is forgotten, so that the row does not grow for ever.
func TestMembersWhoLeftAreForgotten(t *testing.T) {
	var members []*tidemarkv1.Member
	members = putMember(members, &tidemarkv1.Member{Id: "b", Left: true, At: noon}, 1)
	members = putMember(members, &tidemarkv1.Member{Id: "a", At: noon}, 2)
	members = putMember(members, &tidemarkv1.Member{Id: "c", At: noon + keepLeft}, 3)
	if len(members) != 3 {
		t.Fatalf("%v", members)
	}
	members = putMember(members, &tidemarkv1.Member{Id: "c", Left: true, At: noon + keepLeft + 1}, 4)
	if len(members) != 2 || members[0].GetId() != "a" || members[1].GetId() != "c" || !members[1].GetLeft() {
		t.Fatalf("%v", members)
	}
}

func BenchmarkCount(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	notices := randomNotices(r, 3000)
	var w *tidemarkv1.WorkspaceState
	for _, n := range notices[:2999] {
		w, _ = Count(w, n, log)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, done := Count(w, notices[2999], log); !done {
			b.Fatal("not counted")
		}
	}
}

// A thousand files of types as long as a sender may write them leave the row far smaller than the largest record.
func TestLongTypesAreCountedTogether(t *testing.T) {
	var w *tidemarkv1.WorkspaceState
	for i := range 1100 {
		n := noticeAt(i)
		n.After = &tidemarkv1.FileState{
			Status: tidemarkv1.Status_STATUS_ACTIVE,
			Mime:   fmt.Sprintf("type/%d%s", i, strings.Repeat("x", 4000)), Version: 1,
		}
		w, _ = Count(w, n, log)
	}
	if size := proto.Size(w); size > 1<<16 || w.GetByType()[otherType] != 1100 {
		t.Errorf("%d bytes, %d counted as other", size, w.GetByType()[otherType])
	}
}

// A count that this package did not write is not believed: the bytes say how many offsets there are.
func TestCountOfOffsetsIsNotBelieved(t *testing.T) {
	for _, count := range []int32{math.MinInt32, -2, math.MaxInt32 - 1, math.MaxInt32} {
		w, _ := Count(nil, noticeAt(10), log)
		w, _ = Count(w, noticeAt(12), log)
		w.AppliedCount = count
		if got := AppliedOffsets(w); !slices.Equal(got, []int64{10, 12}) || cap(got) > 10 {
			t.Errorf("count %d: %v, with room for %d", count, got, cap(got))
		}
		w, done := Count(w, noticeAt(0), log)
		if got := AppliedOffsets(w); !done || !slices.Equal(got, []int64{0, 10, 12}) || w.GetAppliedCount() != 3 {
			t.Errorf("count %d: counted %t, %v remembers %v", count, done, w, got)
		}
	}
}

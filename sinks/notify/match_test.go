package notify

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/rulefile"
)

const folder = tidemarkv1.Kind_KIND_FOLDER

func fileAt(path string) *tidemarkv1.FileState {
	return &tidemarkv1.FileState{Path: path, Status: tidemarkv1.Status_STATUS_ACTIVE}
}

func folderAt(path string) *tidemarkv1.FileState {
	return &tidemarkv1.FileState{Path: path, Kind: folder}
}

// noticeOf returns the notice of an event of a file of workspace 123 by usr_1.
func noticeOf(event string, before, after *tidemarkv1.FileState) *tidemarkv1.Notice {
	n := &tidemarkv1.Notice{
		OpId: "123/evt_1/2abc", Event: "workspace_storage_" + event, EventId: "evt_1", WorkspaceId: "123",
		FileId:   "2abc",
		Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, ActorId: "usr_1", Before: before, After: after,
		At: time.Date(2026, 9, 25, 21, 40, 11, 0, time.UTC).UnixMicro(),
	}
	if after != nil {
		n.Version = proto.Int64(3)
	}
	return n
}

// outcome is the reasons of one match, as "paths+" if the condition is met, or else "paths-".
func outcome(r *Rule, n *tidemarkv1.Notice) string {
	matches, reasons := r.Match(n)
	var all []string
	met := true
	for _, reason := range reasons {
		sign := "+"
		if !reason.Met {
			sign, met = "-", false
		}
		all = append(all, reason.Setting+sign)
	}
	if matches != met {
		return "the verdict contradicts the reasons"
	}
	return strings.Join(all, " ")
}

func TestMatchConditions(t *testing.T) {
	deleted := noticeOf("file_deleted", fileAt("/reports/q3.pdf"), fileAt("/reports/q3.pdf"))
	late, bare, nobody := proto.CloneOf(deleted), noticeOf("file_deleted", nil, nil), proto.CloneOf(deleted)
	late.Late, nobody.ActorId = true, ""
	bare.Event, bare.FileId = "workspace_created", ""
	derived := proto.CloneOf(deleted)
	derived.Cause = &tidemarkv1.Cause{EventId: "evt_0"}
	repeated := noticeOf("file_deleted", nil, nil) // the provider's own for an entry of a folder: it changed nothing
	comment := noticeOf("file_deleted", nil, nil)
	comment.Event = "comment_created"
	comment.Payload = []byte(`{"event":"comment_created","event_id":"e","workspace_id":"123","object_id":"2abc","path":"/reports/q3.pdf"}`)
	for _, c := range []struct {
		name string
		rule Rule
		n    *tidemarkv1.Notice
		want string
	}{
		{"no condition", Rule{}, deleted, ""},
		{"exact", Rule{Events: []rulefile.Glob{"workspace_storage_file_deleted"}}, deleted, "events+"},
		{"not a prefix", Rule{Events: []rulefile.Glob{"workspace_storage_file"}}, deleted, "events-"},
		{"glob", Rule{Events: []rulefile.Glob{"comment_*", "*_file_*"}}, deleted, "events+"},
		{"excluded, in any order", Rule{Events: []rulefile.Glob{"!*_deleted", "*"}}, deleted, "events-"},
		{"only excludes", Rule{Events: []rulefile.Glob{"!comment_*"}}, deleted, "events+"},
		{"workspace", Rule{Workspaces: []string{"12", "123"}}, deleted, "workspaces+"},
		{"a workspace is no glob", Rule{Workspaces: []string{"12*"}}, deleted, "workspaces-"},
		{"actor", Rule{Actors: []string{"usr_1"}}, deleted, "actors+"},
		{"own changes", Rule{Actors: []string{"!usr_1"}}, deleted, "actors-"},
		{"nobody is not excluded", Rule{Actors: []string{"!usr_1"}}, nobody, "actors+"},
		{"nobody is not wanted", Rule{Actors: []string{"usr_1"}}, nobody, "actors-"},
		{"all must match", Rule{Events: []rulefile.Glob{"*"}, Workspaces: []string{"9"}, Actors: []string{"*"}}, deleted, "events+ workspaces- actors-"},
		{"late or not", Rule{}, late, ""},
		{"late", Rule{Late: new(true)}, late, "late+"},
		{"late is not wanted", Rule{Late: new(false)}, late, "late-"},
		{"not late", Rule{Late: new(false)}, deleted, "late+"},
		{"only late", Rule{Late: new(true)}, deleted, "late-"},
		{"no path", Rule{Paths: []rulefile.Glob{"/**"}}, bare, "paths-"},
		{"no path to exclude", Rule{Paths: []rulefile.Glob{"!/private/**"}}, bare, "paths+"},
		{"the path is in the event only", Rule{Paths: []rulefile.Glob{"/reports/*"}}, comment, "paths+"},
		{"derived", Rule{}, derived, "children-"},
		{"derived, wanted", Rule{Children: true}, derived, "children+"},
		{"the provider's, without a change", Rule{}, repeated, "children-"},
	} {
		if got := outcome(&c.rule, c.n); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMatchPaths(t *testing.T) {
	reports := []rulefile.Glob{"/reports/**", "!/reports/private/**", "!**/*.tmp"}
	for _, c := range []struct {
		paths         []rulefile.Glob
		before, after *tidemarkv1.FileState
		want          bool
	}{
		{reports, nil, fileAt("/reports/q3.pdf"), true},
		{reports, nil, fileAt("reports/2026/q3.pdf"), true}, // senders may leave the slash out
		{reports, nil, fileAt("/reports2/q3.pdf"), false},
		{reports, nil, fileAt("/reports/private/q3.pdf"), false},
		{reports, nil, fileAt("/reports/a/b/x.tmp"), false},
		{reports, nil, fileAt(""), false},
		{[]rulefile.Glob{"/reports/*"}, nil, fileAt("/reports/2026/q3.pdf"), false},
		{[]rulefile.Glob{"/**/q?.{pdf,doc}"}, nil, fileAt("/q3.doc"), true},
		{[]rulefile.Glob{`/a \[1\].pdf`}, nil, fileAt("/a [1].pdf"), true},
		// moved in, out, within, and out of what is excluded
		{reports, fileAt("/new/q3.pdf"), fileAt("/reports/q3.pdf"), true},
		{reports, fileAt("/reports/q3.pdf"), fileAt("/new/q3.pdf"), true},
		{reports, fileAt("/reports/q3.pdf"), fileAt(""), true},
		{reports, fileAt("/new/q3.pdf"), fileAt("/newer/q3.pdf"), false},
		{reports, fileAt("/reports/private/q3.pdf"), fileAt("/reports/q3.pdf"), true},
		{reports, fileAt("/reports/private/q3.pdf"), fileAt("/new/q3.pdf"), false},
		// a folder: itself, above and beside the pattern
		{reports, folderAt("/reports"), folderAt("/reports"), true},
		{[]rulefile.Glob{"/reports/2026/*.pdf"}, folderAt("/reports"), folderAt("/old"), true},
		{[]rulefile.Glob{"/reports/2026/*.pdf"}, folderAt("/reports/2026"), folderAt("/reports/2026"), true},
		{[]rulefile.Glob{"/reports/2026/*.pdf"}, folderAt("/"), folderAt("/"), true},
		{[]rulefile.Glob{"/reports/2026/*.pdf"}, folderAt("/reports/2026/a"), folderAt("/reports/2026/a"), false},
		{[]rulefile.Glob{"/reports/2026/*.pdf"}, folderAt("/reports/2025"), folderAt("/reports/2025"), false},
		{[]rulefile.Glob{"/reports/2026/*.pdf"}, nil, folderAt("/reports"), false}, // new: there is nothing in it
		{[]rulefile.Glob{"/reports/2026/*.pdf"}, fileAt("/reports"), fileAt("/reports"), false},
		{[]rulefile.Glob{"/{a/b,c}/**"}, folderAt("/a"), folderAt("/a"), true},
		{[]rulefile.Glob{"/a/*/c.pdf"}, folderAt("/a/x"), folderAt("a/x"), true},
		{[]rulefile.Glob{"/a/*/c.pdf"}, folderAt("/a/x/y"), folderAt("/a/x/y"), false},
		{[]rulefile.Glob{"/a/b/**/c.pdf"}, folderAt("/a/b/x/y"), folderAt("/a/b/x/y"), true},
		{[]rulefile.Glob{"/a/b/**/c.pdf"}, folderAt("/a/bx/y"), folderAt("/a/bx/y"), false},
		{reports, folderAt("/reports/private"), folderAt("/reports/private"), false},
	} {
		r := &Rule{Paths: c.paths}
		if got, reasons := r.Match(noticeOf("file_moved", c.before, c.after)); got != c.want {
			t.Errorf("%v: %s -> %s: %v %v", c.paths, c.before.GetPath(), c.after.GetPath(), got, reasons)
		}
	}
}

func TestReasons(t *testing.T) {
	r := &Rule{
		Events: []rulefile.Glob{"comment_*", "*_moved"}, Paths: []rulefile.Glob{"/a/**", "!/a/b/**"},
		Actors:     []string{"!usr_1"},
		Workspaces: []string{"9"}, Late: new(false),
	}
	_, reasons := r.Match(noticeOf("file_moved", fileAt("/x/1"), fileAt("/a/b/1")))
	want := []Reason{
		{"events", true, "workspace_storage_file_moved", "*_moved"},
		{"paths", false, "/x/1 → /a/b/1", "!/a/b/**"},
		{"workspaces", false, "123", ""},
		{"actors", false, "usr_1", "!usr_1"},
		{"late", true, "not late", ""},
	}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Error(diff)
	}
}

// TestHostilePath: the time to match a path of 4 KiB must not explode.
func TestHostilePath(t *testing.T) {
	r := &Rule{Paths: []rulefile.Glob{"/**/a*/**/a*a*a*a/**/b"}}
	path := "/" + strings.Repeat("a/", 2000)
	start := time.Now()
	flat := "/" + strings.Repeat("a", 4000)
	for _, state := range []*tidemarkv1.FileState{fileAt(path), folderAt(path), fileAt(flat)} {
		r.Match(noticeOf("file_moved", state, state))
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

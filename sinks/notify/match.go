package notify

import (
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"tidemark/codecs"
	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/rulefile"
)

// A Reason says why one condition of a rule is met or not.
type Reason struct {
	Setting string `json:"setting"` // the condition's name in the rules file
	Met     bool   `json:"met"`
	Value   string `json:"value,omitempty"`   // of the notice
	Pattern string `json:"pattern,omitempty"` // that decided; empty if no pattern matched
}

// Match reports whether a rule selects a notice, with a reason for each condition that the rule has.
//
// A path is met by the path before or after the event: a file that is moved out of a folder concerns those who watch
// that folder. What happens to a folder also concerns those who watch a path below it. A change of a folder is one
// match, not one for each of its entries, unless the rule asks for children.
func (r *Rule) Match(n *tidemarkv1.Notice) (matches bool, reasons []Reason) {
	if len(r.Events) > 0 {
		reasons = append(reasons, match("events", r.Events, n.GetEvent(), rulefile.Glob.Match, nil))
	}
	if len(r.Paths) > 0 {
		reasons = append(reasons, r.matchPaths(n))
	}
	if len(r.Workspaces) > 0 {
		reasons = append(reasons, match("workspaces", r.Workspaces, n.GetWorkspaceId(), equal, nil))
	}
	if len(r.Actors) > 0 {
		reasons = append(reasons, match("actors", r.Actors, n.GetActorId(), equal, nil))
	}
	if r.Late != nil {
		value := map[bool]string{true: "late", false: "not late"}[n.GetLate()]
		reasons = append(reasons, Reason{Setting: "late", Met: n.GetLate() == *r.Late, Value: value})
	}
	if isEffect(n) {
		reasons = append(reasons, Reason{Setting: "children", Met: r.Children})
	}
	return !slices.ContainsFunc(reasons, func(reason Reason) bool { return !reason.Met }), reasons
}

// isEffect reports whether an event only repeats, for an entry, what the event of its folder said: tidemark derived it,
// or it is the provider's own and changed nothing.
func isEffect(n *tidemarkv1.Notice) bool {
	return n.GetCause() != nil ||
		n.Version == nil && file.Touches(&tidemarkv1.Event{Event: n.GetEvent(), FileId: n.GetFileId()})
}

func equal(pattern, value string) bool { return strings.TrimPrefix(pattern, "!") == value }

// match matches a value. A pattern with a ! excludes; or, if there are others, the value must match one. also is a
// second way to match, not to be excluded; it may be nil.
func match[P ~string](setting string, patterns []P, value string, matches, also func(p P, value string) bool) Reason {
	r := Reason{Setting: setting, Met: true, Value: value}
	for _, p := range patterns {
		pattern, excludes := strings.CutPrefix(string(p), "!")
		hit := value != "" && (matches(p, value) || !excludes && also != nil && also(p, value))
		switch {
		case excludes && hit:
			return Reason{setting, false, value, string(p)}
		case hit && r.Pattern == "":
			r.Pattern = pattern
		case !excludes:
			r.Met = false
		}
	}
	r.Met = r.Met || r.Pattern != ""
	return r
}

func (r *Rule) matchPaths(n *tidemarkv1.Notice) Reason {
	before, after := states(n)
	also := containsMatch
	if before == nil || after.GetKind() != tidemarkv1.Kind_KIND_FOLDER { // a new folder has nothing in it
		also = nil
	}
	now := match("paths", r.Paths, after.GetPath(), rulefile.Glob.Match, also)
	if old := before.GetPath(); !now.Met && old != "" && old != after.GetPath() {
		if was := match("paths", r.Paths, old, rulefile.Glob.Match, also); was.Met {
			return was
		}
		now.Value = strings.TrimPrefix(old+" → "+after.GetPath(), " → ")
	}
	return now
}

// containsMatch reports whether a path below the folder may match. Of wildcards it compares only how deep they reach.
func containsMatch(glob rulefile.Glob, folder string) bool {
	pattern, folder := "/"+strings.TrimPrefix(string(glob), "/"), "/"+strings.Trim(folder, "/")+"/"
	base, _ := doublestar.SplitPattern(pattern)
	base = strings.TrimSuffix(base, "/") + "/"
	deep := strings.Contains(pattern, "**") || strings.Count(folder, "/") <= strings.Count(pattern, "/")
	return folder == "//" || strings.HasPrefix(base, folder) || deep && strings.HasPrefix(folder, base)
}

// states returns the file before and after the event. In a notice of an event without a row, after has what the event
// itself says of the file.
func states(n *tidemarkv1.Notice) (before, after *tidemarkv1.FileState) {
	if n.GetAfter() == nil && len(n.GetPayload()) > 0 {
		if e, err := codecs.ParseEvent(n.GetPayload()); err == nil {
			return nil, &tidemarkv1.FileState{Name: e.GetName(), Path: e.GetPath(), Size: e.Size}
		}
	}
	return n.GetBefore(), n.GetAfter()
}

package gen

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

type scopeKind int

const (
	byWorkspace scopeKind = iota
	byProfile             // profile_id and profile_type in place of workspace_id
	byShare               // a share's events: the scope is the share
)

// An event is the content of a body, before its shape is chosen.
type event struct {
	scope   *scope
	name    string
	id      string
	object  string
	created time.Time // zero: undated
	clock   any       // an unreadable value for created; nil for none
	fields  []field   // in the names of the first shape
}

type field struct {
	name  string
	value any
}

type lot struct {
	name   string
	weight int
}

// The events of files: hot, new, and known ones.
var (
	onHot = []lot{
		{"file_updated", 50},
		{"file_moved", 10},
		{"file_deleted", 9},
		{"file_added", 8},
		{"file_restored", 7},
		{"file_version_restored", 4},
		{"file_sync_updated", 6},
		{"file_sync_added", 3},
		{"file_copied", 3},
	}
	onNew = []lot{
		{"file_added", 70},
		{"file_updated", 8},
		{"file_copied", 6},
		{"file_sync_added", 6},
		{"file_deleted", 4},
		{"file_moved", 3},
		{"file_restored", 3},
	}
	onKnown = []lot{
		{"file_updated", 50},
		{"file_deleted", 20},
		{"file_moved", 12},
		{"file_restored", 8},
		{"file_sync_updated", 6},
		{"file_added", 4},
	}
)

func (g *generator) draw(lots []lot) string {
	total := 0
	for _, l := range lots {
		total += l.weight
	}
	n := g.rnd.IntN(total)
	for _, l := range lots {
		if n -= l.weight; n < 0 {
			return l.name
		}
	}
	return lots[0].name
}

// when dates an event: most correctly, some not at all, a few too far in the future.
func (g *generator) when(created time.Time) time.Time {
	switch n := g.rnd.IntN(200); {
	case n < 6:
		return time.Time{}
	case n < 8:
		return created.Add(48 * time.Hour)
	}
	return created
}

// clock is now and then a value that cannot be read as a time.
func (g *generator) clock() any {
	if !g.chance(unreadable) {
		return nil
	}
	return pick(g.rnd, []any{
		"yesterday", "2026-09-25", "2026-02-30T00:00:00Z", true, json.RawMessage("1e300"),
		[]int{1},
	})
}

func (g *generator) file(f *fileSim, created time.Time, lots []lot) event {
	what := g.draw(lots)
	if strings.Contains(what, "version") && f.scope.kind == byShare { // shares have no versions
		what = "file_updated"
	}
	e := event{
		name: "workspace_storage_" + what, id: g.eventID(), object: f.id, created: g.when(created),
		clock: g.clock(),
	}
	if f.scope.kind == byShare || g.chance(0.03) && !strings.Contains(what, "version") {
		e.name = "share_storage_" + what
	}
	add := func(chance float64, name string, value any) {
		if g.chance(chance) {
			e.fields = append(e.fields, field{name, value})
		}
	}
	moved := what == "file_moved"
	if moved || g.chance(0.05) {
		f.dir = pick(g.rnd, dirs)
	}
	if moved && g.chance(0.4) {
		f.name = fileName(g.serial, g.rnd)
	}
	fresh := lots[0].weight == onNew[0].weight
	often := map[bool]float64{true: 0.9, false: 0.4}[fresh || moved]
	add(often, "name", f.name)
	add(often, "path", strings.TrimSuffix(f.dir, "/")+"/"+f.name)
	add(often/2, "parent_id", node(len(f.dir), rand.New(rand.NewPCG(uint64(len(f.dir)), 1))))
	if !moved && what != "file_deleted" && what != "file_restored" {
		add(0.9, "size", g.size())
		add(0.6, "mime", pick(g.rnd,
			[]string{
				"application/pdf", "text/plain", "Text/Plain; charset=utf-8", "image/png",
				"application/vnd.ms-excel",
			}))
		add(0.6, "hash", fmt.Sprintf("sha256:%016x", g.rnd.Uint64()))
	}
	add(0.8, "user_id", fmt.Sprintf("usr_%d", g.rnd.IntN(20)))
	return e
}

func (g *generator) size() any {
	switch g.rnd.IntN(60) {
	case 0:
		return pick(g.rnd, []any{"18233", json.RawMessage("18233.0"), json.RawMessage("18.233e3")}) // numbers too
	case 1:
		return int64(1)<<53 - 1 - int64(g.rnd.IntN(1000))
	case 2:
		return 0
	case 3:
		// cannot be read
		return pick(g.rnd, []any{"18 kB", -1, json.RawMessage("1.5"), json.RawMessage("9223372036854775808"), []int{1}})
	}
	return g.rnd.IntN(1 << 20)
}

// other makes an event that has no meaning for a file, or names none.
func (g *generator) other(s *scope, created time.Time) event {
	e := event{id: g.eventID(), created: g.when(created)}
	user := fmt.Sprintf("usr_%d", g.rnd.IntN(12))
	switch g.rnd.IntN(9) {
	case 0:
		e.name, e.object = "workspace_storage_folder_created", node(g.serial, g.rnd)
	case 1:
		e.name, e.object = "comment_created", node(g.serial, g.rnd)
		e.fields = []field{{"text", "looks <good> & \"fine\" 👍"}}
	case 2, 3:
		e.name, e.fields = "added_member_to_workspace", []field{{"user_id", user}}
		e.created = created // a member's time decides whether it is in: undated ones prove nothing here
	case 4, 5:
		e.name, e.object = "removed_member_from_workspace", user
		e.created = created
	case 6:
		e.name = "workspace_updated"
	case 7:
		e.name, e.object = "something_new_v9", node(g.serial, g.rnd)
		e.fields = []field{{"name", "not a file"}, {"size", 77}}
	case 8:
		e.name = "workspace_storage_file_added" // names no file: a notice, and no state
	}
	if s.kind == byShare {
		e.name = strings.Replace(strings.Replace(e.name, "workspace_storage", "share_storage", 1), "_workspace",
			"_share", 1)
	}
	return e
}

// refused makes a webhook that must be refused.
func (g *generator) refused(s *scope) Delivery {
	e := event{
		scope: s, name: "workspace_storage_file_added", id: g.eventID(), object: node(g.serial, g.rnd),
		created: g.config.Base,
	}
	d := Delivery{EventID: e.id, Refused: true}
	switch g.rnd.IntN(5) {
	case 0:
		d.Forged, d.Body = true, e.body(g)
	case 1:
		e.name = ""
		d.Body = e.body(g)
	case 2: // the same name twice
		d.Body = append(bytes.TrimRight(e.body(g), "} \n"), []byte(`,"canary":"x"}`)...)
	case 3:
		d.Body = append(e.body(g), '}')
	case 4:
		e.object = "\x01" + e.object // a control character
		d.Body = e.body(g)
	}
	return d
}

// second names the fields in the provider's other shape.
var second = map[string]string{
	"event": "eventType", "workspace_id": "workspaceId", "event_id": "eventId", "object_id": "fileId",
	"name": "fileName", "path": "filePath", "size": "fileSize", "mime": "mimeType", "hash": "checksum",
	"parent_id": "parentId",
	"user_id":   "userId", "created": "timestamp",
}

// body writes the event in one of the two shapes.
func (e event) body(g *generator) []byte {
	other := g.chance(0.35) && e.scope.kind == byWorkspace
	var all []field
	if e.name != "" {
		all = append(all, field{"event", e.name})
	}
	all = append(all, e.scoped()...)
	all = append(all, field{"event_id", e.id})
	if e.object != "" {
		all = append(all, field{"object_id", e.object})
	}
	all = append(all, e.fields...)
	switch {
	case e.clock != nil:
		all = append(all, field{"created", e.clock})
	case !e.created.IsZero():
		layout := "2006-01-02 15:04:05.999999 UTC"
		if other {
			layout = time.RFC3339Nano
		}
		all = append(all, field{"created", e.created.UTC().Format(layout)})
	}
	if other {
		for i := range all {
			if name := second[all[i].name]; name != "" {
				all[i].name = name
			}
		}
	}
	all = append(all, field{"canary", e.scope.canary})
	if g.chance(0.15) {
		all = append(all, field{"x-unknown/ü%", json.RawMessage(`{"n":[1,2.50,1e3,-0,12345678901234567890],"t":"\u00e9\ud83d\ude42","deep":[[[{}]]],"null":null}`)})
	}
	if g.chance(0.002) {
		all = append(all, field{"bulk", strings.Repeat("0123456789abcdef", 4096)})
	}
	if g.chance(0.3) {
		g.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return write(all, g.chance(0.05))
}

func (e event) scoped() []field {
	switch e.scope.kind {
	case byProfile:
		return []field{{"profile_id", e.scope.id}, {"profile_type", "workspace"}}
	case byShare:
		return []field{{"share_id", e.scope.id}}
	}
	return []field{{"workspace_id", e.scope.id}}
}

func write(fields []field, spaced bool) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	space := map[bool]string{true: " \n\t", false: ""}[spaced]
	b.WriteString("{" + space)
	for i, f := range fields {
		if i > 0 {
			b.WriteString("," + space)
		}
		// Every value is a string, a number or raw JSON that is written above: none can fail to encode.
		_ = enc.Encode(f.name)
		b.Truncate(b.Len() - 1)
		b.WriteString(space + ":" + space)
		_ = enc.Encode(f.value)
		b.Truncate(b.Len() - 1)
	}
	b.WriteString(space + "}")
	return b.Bytes()
}

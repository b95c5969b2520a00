package notify

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	html "html/template"
	"net/url"
	"regexp"
	"slices"
	"strings"
	text "text/template"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Message is what a channel sends: one notice, or the notices of a digest.
type Message struct {
	ID      string // the op id of the notice; of a digest, that of its first notice and the number of notices
	Rule    string
	Notices []*tidemarkv1.Notice // at least one, of one workspace, in order
	Subject string               // one line
	Text    string               // plain text
	HTML    string
	Raw     []byte // the notice's JSON as in fastio-notify (of a digest: a JSON array)
}

const (
	maxEntries = 100 // that the text of a digest describes
	maxRunes   = 256 // of a text of a sender; no id is longer
)

var (
	//go:embed message.txt
	textSource string
	//go:embed message.html
	htmlSource string

	textTemplate = text.Must(text.New("text").Parse(textSource))
	htmlTemplate = html.Must(html.New("html").Parse(htmlSource))
)

// Message returns the message of notices that the rule selects: one, or, of a rule with a digest, those of one workspace.
// link is --notify-link, or empty. Its HTML needs no cleaning: html/template escapes.
func (r *Rule) Message(notices []*tidemarkv1.Notice, link string) (*Message, error) {
	first := notices[0]
	page := page{Rule: r.Name, Workspace: clean(first.GetWorkspaceId()), More: max(len(notices)-maxEntries, 0)}
	zone := time.UTC
	if r.Quiet != nil {
		zone = r.Quiet.Zone
	}
	for _, n := range notices[:len(notices)-page.More] {
		page.Entries = append(page.Entries, describe(n, zone, link))
	}
	m := &Message{ID: first.GetOpId(), Rule: r.Name, Notices: notices}
	page.Subject = fmt.Sprintf("%s (workspace %s)", page.Entries[0], page.Workspace)
	if r.Digest > 0 {
		m.ID += fmt.Sprintf("//%d", len(notices)) // no op id has two slashes in sequence
	}
	if len(notices) > 1 {
		page.Subject = fmt.Sprintf("%d events in workspace %s", len(notices), page.Workspace)
	}
	m.Subject = page.Subject
	var plain, markup bytes.Buffer
	if err := errors.Join(textTemplate.Execute(&plain, page), htmlTemplate.Execute(&markup, page)); err != nil {
		return nil, fmt.Errorf("write the message of rule %s: %w", r.Name, err)
	}
	m.Text, m.HTML = plain.String(), markup.String()
	var err error
	m.Raw, err = r.raw(notices)
	return m, err
}

// raw returns the notices as JSON. Those of a digest have no payload, so that a thousand fit into a message.
func (r *Rule) raw(notices []*tidemarkv1.Notice) ([]byte, error) {
	if r.Digest == 0 {
		return codecs.Notice{}.Encode(notices[0])
	}
	var all [][]byte
	for _, n := range notices {
		short := proto.Clone(n).(*tidemarkv1.Notice)
		short.Payload, short.PayloadOmitted = nil, true
		value, err := codecs.Notice{}.Encode(short)
		if err != nil {
			return nil, err
		}
		all = append(all, value)
	}
	return slices.Concat([]byte("["), bytes.Join(all, []byte(",")), []byte("]")), nil
}

// A page is what the templates show. Its texts are clean.
type page struct {
	Subject, Rule, Workspace string
	Entries                  []entry
	More                     int
}

// An entry describes one notice.
type entry struct {
	What    string // the event in words
	File    string
	Event   string
	EventID string
	Who     string
	When    string
	Changes []string
	Look    string // a command
	Link    string
}

func (e entry) String() string { return strings.TrimSuffix(e.What+": "+e.File, ": ") }

func describe(n *tidemarkv1.Notice, zone *time.Location, link string) entry {
	before, after := states(n)
	name := func(s *tidemarkv1.FileState) string { return clean(cmp.Or(s.GetPath(), s.GetName())) }
	e := entry{
		What: words(n.GetEvent()), File: cmp.Or(name(after), name(before), clean(n.GetFileId())),
		Event: clean(n.GetEvent()), EventID: clean(n.GetEventId()),
		Who:  cmp.Or(clean(n.GetActorId()), "somebody unknown"),
		When: time.UnixMicro(n.GetAt()).In(zone).Format("2006-01-02 15:04:05 MST"),
		Look: command(n.GetWorkspaceId(), n.GetFileId()), Link: expand(link, n),
	}
	change := func(what, was, is string) {
		if was != "" && is != "" && was != is {
			is = was + " → " + is
		}
		if is != "" && was != is {
			e.Changes = append(e.Changes, what+": "+is)
		}
	}
	if before != nil {
		change("path", name(before), name(after))
		change("status", status(before), status(after))
	}
	change("size", size(before), size(after))
	if m := n.GetMember(); m.GetId() != "" {
		e.Changes = append(e.Changes, "member: "+clean(m.GetId()))
	}
	if before != nil && after.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
		e.Changes = append(e.Changes, "and with it all that is in the folder")
	}
	if n.GetLate() {
		e.Changes = append(e.Changes, "arrived late: newer changes were known already")
	}
	return e
}

// words returns the event in words: workspace_storage_file_deleted is "file deleted".
func words(event string) string {
	event = strings.TrimPrefix(strings.TrimPrefix(event, "workspace_storage_"), "share_storage_")
	return clean(strings.ReplaceAll(event, "_", " "))
}

func status(s *tidemarkv1.FileState) string {
	return strings.ToLower(strings.TrimPrefix(s.GetStatus().String(), "STATUS_"))
}

func size(s *tidemarkv1.FileState) string {
	if s == nil || s.Size == nil {
		return ""
	}
	return fmt.Sprintf("%d bytes", s.GetSize())
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// command returns the command that shows the file, or the workspace's files, for a POSIX shell. Ids are the sender's:
// one must not become a flag or another command.
func command(workspace, file string) string {
	name, ids := "get ", []string{workspace, file}
	if file == "" {
		name, ids = "ls ", ids[:1]
	}
	for i, id := range ids {
		if strings.HasPrefix(id, "-") {
			name = strings.TrimSuffix(name, "-- ") + "-- "
		}
		if !plainWord.MatchString(id) {
			ids[i] = "'" + strings.ReplaceAll(clean(id), "'", `'\''`) + "'"
		}
	}
	return "tidemark " + name + strings.Join(ids, " ")
}

// CheckLink checks a --notify-link.
func CheckLink(link string) error {
	u, err := url.Parse(strings.NewReplacer("{workspace_id}", "1", "{file_id}", "1").Replace(link))
	if link != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" ||
		strings.ContainsAny(u.Path+u.RawQuery+u.Fragment, "{}")) {
		return fmt.Errorf("--notify-link %q: want a URL like https://example.com/{workspace_id}/{file_id}", link)
	}
	return nil
}

// expand returns the link to the file of a notice, empty if the link needs a file and there is none.
func expand(link string, n *tidemarkv1.Notice) string {
	if n.GetFileId() == "" && strings.Contains(link, "{file_id}") {
		return ""
	}
	return strings.NewReplacer("{workspace_id}", url.QueryEscape(n.GetWorkspaceId()),
		"{file_id}", url.QueryEscape(n.GetFileId())).Replace(link)
}

// clean makes text of a sender fit to be shown in one line: control characters, line breaks and those that change the
// direction of text are written as escapes, and the middle of a long text is left out.
func clean(s string) string {
	var out strings.Builder
	for _, r := range s {
		const joiner, nonJoiner = '\u200d', '\u200c' // of emoji, and of Persian
		if unicode.IsGraphic(r) || r == joiner || r == nonJoiner {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	if runes := []rune(out.String()); len(runes) > maxRunes {
		return string(runes[:maxRunes/2]) + "…" + string(runes[len(runes)-maxRunes/2:])
	}
	return out.String()
}

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

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Message is what a channel sends: one notice, or the notices of a digest.
type Message struct {
	ID      string // the op id of the notice; of a digest, that of its first notice and the number of notices
	Rule    string
	Digest  bool
	Notices []*tidemarkv1.Notice // of one workspace, in order: one, or of a digest at least one
	Subject string               // one line
	Text    string               // plain text
	HTML    string
}

const maxRunes = 256 // of a text of a sender; no id is longer

var (
	//go:embed message.txt
	textSource string
	//go:embed message.html
	htmlSource string

	textTemplate = text.Must(text.New("text").Parse(textSource))
	htmlTemplate = html.Must(html.New("html").Parse(htmlSource))
)

// Message returns the message of a notice that the rule selects, or of a digest of those of one workspace. link is
// --notify-link, or empty. Its HTML needs no cleaning: html/template escapes.
func (r *Rule) Message(notices []*tidemarkv1.Notice, link string) (*Message, error) {
	first, zone := notices[0], time.UTC
	if r.Quiet != nil {
		zone = r.Quiet.Zone
	}
	page := page{Rule: r.Name, Workspace: clean(first.GetWorkspaceId())}
	for _, n := range notices {
		page.Entries = append(page.Entries, describe(n, zone, link))
	}
	page.Subject = fmt.Sprintf("%s (workspace %s)", page.Entries[0], page.Workspace)
	if len(notices) > 1 {
		page.Subject = fmt.Sprintf("%d events in workspace %s", len(notices), page.Workspace)
	}
	m := &Message{ID: first.GetOpId(), Rule: r.Name, Digest: r.Digest > 0, Notices: notices, Subject: page.Subject}
	if m.Digest {
		m.ID += fmt.Sprintf("//%d", len(notices)) // no op id has two slashes in sequence
	}
	var plain, markup bytes.Buffer
	err := errors.Join(textTemplate.Execute(&plain, page), htmlTemplate.Execute(&markup, page))
	m.Text, m.HTML = plain.String(), markup.String()
	return m, err
}

// A page is what the templates show. Its texts are clean.
type page struct {
	Subject, Rule, Workspace string
	Entries                  []entry
}

// An entry describes one notice.
type entry struct {
	What, File, Event, EventID, Who, When string
	Changes                               []string
	Look, Link                            string // a command, and a URL that may be empty
}

func (e entry) String() string { return strings.TrimSuffix(e.What+": "+e.File, ": ") }

func describe(n *tidemarkv1.Notice, zone *time.Location, link string) entry {
	before, after := states(n)
	was, is := clean(cmp.Or(before.GetPath(), before.GetName())), clean(cmp.Or(after.GetPath(), after.GetName()))
	event := clean(n.GetEvent())
	e := entry{
		What: words.Replace(event), File: cmp.Or(is, was, clean(n.GetFileId())),
		Event: event, EventID: clean(n.GetEventId()), Who: cmp.Or(clean(n.GetActorId()), "somebody unknown"),
		When: time.UnixMicro(n.GetAt()).In(zone).Format("2006-01-02 15:04:05 MST"),
		Look: command(n.GetWorkspaceId(), n.GetFileId()), Link: expand(link, n),
	}
	if was != "" && is != "" && was != is {
		e.Changes = append(e.Changes, "path: "+was+" → "+is)
	}
	if after.GetSize() > 0 {
		e.Changes = append(e.Changes, fmt.Sprintf("size: %d bytes", after.GetSize()))
	}
	if id := n.GetMember().GetId(); id != "" {
		e.Changes = append(e.Changes, "member: "+clean(id))
	}
	if before != nil && after.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
		e.Changes = append(e.Changes, "and with it all that is in the folder")
	}
	if n.GetLate() {
		e.Changes = append(e.Changes, "arrived late: newer changes were known already")
	}
	return e
}

// words writes an event in words: workspace_storage_file_deleted is "file deleted".
var words = strings.NewReplacer("workspace_storage_", "", "share_storage_", "", "_", " ")

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// command returns the command that shows the file, or the workspace's files, for a POSIX shell. Ids are the sender's:
// one must not become a flag or another command.
func command(workspace, file string) string {
	name, ids := "tidemark get", []string{workspace, file}
	if file == "" {
		name, ids = "tidemark ls", ids[:1]
	}
	if slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(id, "-") }) {
		name += " --"
	}
	for _, id := range ids {
		if !plainWord.MatchString(id) {
			id = "'" + strings.ReplaceAll(clean(id), "'", `'\''`) + "'"
		}
		name += " " + id
	}
	return name
}

// CheckLink checks a --notify-link.
func CheckLink(link string) error {
	filled := strings.NewReplacer("{workspace_id}", "1", "{file_id}", "1").Replace(link)
	if _, err := parseURL(filled); link != "" && (err != nil || strings.ContainsAny(filled, "{}")) {
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

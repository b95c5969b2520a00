package views

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"time"

	"tidemark/codecs"
	"tidemark/history"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A fileVersion is one change of a file, as the history shows it.
type fileVersion struct {
	Version  int64             `json:"version"`
	Position string            `json:"position"`
	At       time.Time         `json:"at"`
	Event    string            `json:"event"`
	EventID  string            `json:"event_id"`
	ActorID  string            `json:"actor_id,omitempty"`
	Late     bool              `json:"late"`
	Cause    *versionCause     `json:"cause,omitempty"`
	Changed  map[string]change `json:"changed"`
	File     json.RawMessage   `json:"file"`
}

type versionCause struct {
	Event    string `json:"event"`
	EventID  string `json:"event_id"`
	FolderID string `json:"folder_id"`
	Position string `json:"position"`
}

// A change of one field; null is a field that is not known.
type change struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// getHistory answers the last changes of a file, the newest first.
func (s *Server) getHistory(c *call) (*answer, error) {
	if s.history == nil {
		return nil, noHistory()
	}
	_, limit, err := parsePage(c)
	if err != nil {
		return nil, err
	}
	q := query{workspace: c.workspace, kind: "history", prefix: c.file}
	before := int64(math.MaxInt64)
	if cursor := c.query.Get("cursor"); cursor != "" {
		if before, err = q.decodeOffset(cursor); err != nil {
			return nil, badCursor("file")
		}
	}
	row, err := s.readFile(c)
	if err != nil {
		return nil, err
	}
	var page historyPage
	// Rows and notices are read from different topics. The first page has the change that the row has, or is 503.
	waited := false
	if err := s.readHistory(c, math.MaxInt64, func(h *history.Snapshot) (missing string, err error) {
		newest := int64(-1)
		page = historyPage{versions: []fileVersion{}, from: h.Before() + 1}
		if err := h.Versions(c.workspace, c.file, before, func(n *tidemarkv1.Notice) (bool, error) {
			newest = max(newest, n.GetPosition().GetOffset())
			return page.add(n, limit), nil
		}); err != nil {
			return "", err
		}
		p := row.GetPosition()
		if before == math.MaxInt64 && p != nil && row.GetLogId() == h.LogID() &&
			p.GetOffset() > max(newest, h.Before()) {
			if waited {
				return "", errHistoryBehind()
			}
			waited = true
			return c.file, nil
		}
		return "", nil
	}); err != nil {
		return nil, err
	}
	var next *string
	if page.more {
		cursor := q.encodeOffset(page.last)
		next = &cursor
	}
	from := &tidemarkv1.Position{Partition: s.partition(c.workspace), Offset: page.from}
	body, err := json.Marshal(struct {
		Versions     []fileVersion `json:"versions"`
		NextCursor   *string       `json:"next_cursor"`
		CompleteFrom string        `json:"complete_from"`
	}{page.versions, next, from.Text()})
	return &answer{body: body}, err
}

// A historyPage is one page of a file's history.
type historyPage struct {
	versions []fileVersion
	bytes    int
	last     int64 // offset of the last one
	more     bool  // there are older ones
	from     int64 // offset of the event from which on all changes are kept
}

// add adds a version, and reports whether the page has room for another.
func (p *historyPage) add(n *tidemarkv1.Notice, limit int) bool {
	if len(p.versions) == limit || p.bytes > maxPageBytes {
		p.more = true
		return false
	}
	v := fileVersion{
		Version: n.GetVersion(), Position: n.GetPosition().Text(), At: time.UnixMicro(n.GetAt()).UTC(),
		Event: n.GetEvent(), EventID: n.GetEventId(), ActorID: n.GetActorId(), Late: n.GetLate(),
		Changed: changesOf(n.GetBefore(), n.GetAfter()), File: codecs.AppendFile(nil, n.GetAfter()),
	}
	if n.GetCause() != nil {
		v.Cause = causeOf(n.GetCause())
	}
	p.versions, p.bytes, p.last = append(p.versions, v), p.bytes+len(v.File), n.GetPosition().GetOffset()
	return true
}

func causeOf(c *tidemarkv1.Cause) *versionCause {
	return &versionCause{c.GetEvent(), c.GetEventId(), c.GetInherited().GetFolderId(), c.GetPosition().Text()}
}

// changesOf returns the fields that differ between two states, by their names in JSON. Those that say which event was
// the last are left out: they are in the version.
func changesOf(before, after *tidemarkv1.FileState) map[string]change {
	var was, is map[string]any
	if before != nil {
		was = fieldsOf(before)
	}
	is = fieldsOf(after)
	changed := map[string]change{}
	for _, name := range []string{
		"name", "path", "parent_id", "size", "mime", "hash", "kind", "status", "incomplete", "deleted_at",
	} {
		if was[name] != is[name] {
			changed[name] = change{was[name], is[name]}
		}
	}
	return changed
}

// fieldsOf returns the fields of a file as clients see them. A number is kept as its digits.
func fieldsOf(s *tidemarkv1.FileState) map[string]any {
	fields := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(codecs.AppendFile(nil, s)))
	d.UseNumber()
	_ = d.Decode(&fields) // it was encoded just now
	return fields
}

// encodeOffset returns a cursor that is an offset.
func (q query) encodeOffset(offset int64) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(offset))
	return base64.RawURLEncoding.EncodeToString(append(q.sum(b), b...))
}

func (q query) decodeOffset(cursor string) (int64, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) != sumSize+8 || !bytes.Equal(b[:sumSize], q.sum(b[sumSize:])) {
		return 0, errBadCursor
	}
	offset := int64(binary.BigEndian.Uint64(b[sumSize:]))
	if offset < 0 {
		return 0, errBadCursor
	}
	return offset, nil
}

package oracle

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Reasons of dead letters: see docs/design.md.
const (
	notJSON       = "not_json"
	missingField  = "missing_field"
	badField      = "bad_field"
	fieldTooLarge = "field_too_large"
	keyMismatch   = "key_mismatch"
	wrongPart     = "wrong_partition"
	nullValue     = "null_value"
	beyondWindow  = "beyond_dedupe_window"
)

// An event is a decoded record of the events topic.
type event struct {
	name, id, scope, object string

	texts map[string]string // the text fields of the state
	size  *int64
	actor string
	// member is who joined or left.
	member string

	occurred *int64 // the sender's time, µs
	received int64  // µs
	recorded int64  // the record's time, µs
	replayed bool   // by an operator

	unreadable []string // fields that were there and could not be read, sorted

	// Of a record that the files group wrote itself.
	inherits *inherited     // what an entry inherits from its folder
	cause    map[string]any // the folder's event, as the JSON has it
	walk     bool           // it continues a walk over a folder's entries
}

// Accepted names, in the order they are looked for.
var (
	eventNames  = []string{"event", "eventType"}
	idNames     = []string{"event_id", "eventId"}
	scopeNames  = []string{"workspace_id", "workspaceId"}
	objectNames = []string{"object_id", "fileId"}
	actorNames  = []string{"calling_user_id", "callingUserId", "actor_id", "actorId", "user_id", "userId"}
	memberNames = []string{"user_id", "member_id", "userId", "memberId"}
	timeNames   = []string{"created", "timestamp", "occurred_at", "createdAt"}
	sizeNames   = []string{"size", "fileSize", "file_size"}
	textNames   = map[string][]string{
		"name":      {"name", "fileName", "file_name"},
		"path":      {"path", "filePath", "file_path"},
		"mime":      {"mime", "mimeType", "mime_type", "mimetype", "content_type"},
		"hash":      {"hash", "checksum", "sha256"},
		"parent_id": {"parent_id", "folder_id", "parentId", "folderId", "parent"},
	}
)

// parse reads a record's value; the reason is empty when it is an event.
func parse(value []byte, recorded time.Time) (e *event, reason string) {
	object, err := strictObject(value)
	if err != nil {
		return nil, notJSON
	}
	return parseObject(object, recorded)
}

func parseObject(object map[string]any, recorded time.Time) (e *event, reason string) {
	e = &event{texts: map[string]string{}, recorded: recorded.UnixMicro()}
	if e.name, reason = identity(object, eventNames); reason != "" {
		return nil, reason
	}
	if meant := firstText(object, []string{"canonical_event"}); meant != "" { // set by the ingress for an alias
		e.name = meant
	}
	if e.id, reason = identity(object, idNames); reason != "" {
		return nil, reason
	}
	if e.scope, reason = scopeOf(object); reason != "" {
		return nil, reason
	}
	if e.object, reason = identity(object, objectNames); reason == badField {
		return nil, reason
	}
	for field, names := range textNames {
		e.texts[field] = e.firstReadableText(object, field, names)
		if field == "hash" {
			e.texts[field] = withAlgorithm(e.texts[field], object)
		}
		if len(e.texts[field]) > 4096 {
			return nil, fieldTooLarge
		}
		if e.texts[field] == "" {
			delete(e.texts, field)
		}
	}
	e.firstReadable(object, "size", sizeNames, func(value any) (bool, bool) {
		e.size = sizeOf(value)
		return e.size != nil, e.size != nil
	})
	e.actor, e.member = e.firstReadableText(object, "actor_id", actorNames), e.firstReadableText(object, "member_id",
		memberNames)
	if e.member == "" {
		e.member = e.object
	}
	e.firstReadable(object, "created", timeNames, func(value any) (bool, bool) {
		at := instantOf(value)
		if at == nil || *at < undated {
			return false, at != nil
		}
		e.occurred = at
		return true, true
	})
	e.received = e.recorded
	if at := instantOf(object["received_at"]); at != nil {
		e.received = *at
	}
	return e, ""
}

func scopeOf(object map[string]any) (string, string) {
	if scope, reason := identity(object, scopeNames); reason != missingField {
		return scope, reason
	}
	if profile, reason := identity(object, []string{"profile_id"}); reason != missingField {
		return profile, reason
	}
	return identity(object, []string{"share_id"})
}

// identity finds an id or a name that must be well-formed.
func identity(object map[string]any, names []string) (value, reason string) {
	for _, name := range names {
		v, found := object[name]
		if !found || v == nil {
			continue
		}
		s, ok := v.(string)
		if !ok || len(s) > 256 || !utf8.ValidString(s) ||
			strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", badField
		}
		if s != "" {
			return s, ""
		}
	}
	return "", missingField
}

func firstText(object map[string]any, names []string) string {
	for _, name := range names {
		if s, ok := object[name].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// undated is the time, in microseconds, before which a sender's clock was not set: the year 2000.
const undated = 946684800 * second

// orderTime is the time that orders the event: the sender's, or that of its arrival where the sender's cannot be
// read. It is nil without a time, and when the time is more than 5 minutes after the arrival.
func (e *event) orderTime() *int64 {
	switch {
	case e.occurred == nil && slices.Contains(e.unreadable, "created"):
		return &e.received
	case e.occurred == nil, *e.occurred > e.received+(5*time.Minute).Microseconds():
		return nil
	}
	return e.occurred
}

// at is the displayed time of the event.
func (e *event) at() int64 {
	if when := e.orderTime(); when != nil {
		return *when
	}
	return e.received
}

// A meaning is the effect of an event on its file or folder.
type meaning struct {
	what   string // added, updated, restored or deleted; empty for an event without such a meaning
	folder bool
	ofEach bool // the provider may also send it for each entry of a folder
}

// meaning returns the effect of the event on a file or a folder.
func (e *event) meaning() (m meaning) {
	rest, ok := strings.CutPrefix(e.name, "workspace_storage_")
	share := false
	if !ok {
		if rest, share = strings.CutPrefix(e.name, "share_storage_"); !share {
			return m
		}
	}
	m.folder = strings.HasPrefix(rest, "folder_")
	switch rest {
	case "file_added", "file_copied", "file_sync_added", "folder_created":
		m.what = "added"
	case "file_restored", "folder_restored":
		m.what, m.ofEach = "restored", true
	case "file_moved", "folder_moved":
		m.what, m.ofEach = "updated", true
	case "file_updated", "file_sync_updated", "folder_updated", "folder_renamed":
		m.what = "updated"
	case "file_version_restored":
		if !share {
			m.what = "updated"
		}
	case "file_deleted", "folder_deleted":
		m.what, m.ofEach = "deleted", true
	}
	return m
}

// touches reports whether the event changes a row.
func (e *event) touches() bool { return e.object != "" && e.meaning().what != "" }

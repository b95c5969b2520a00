// Package work is what tidemark's peers written in Go do with an event: the rules of the fold that the benchmark's
// input needs, and tidemark's index records and notices.
//
// It shares no code with tidemark. Events must arrive in the order of their times, as the benchmark's do: tidemark
// compares times field by field, its peers do not.
package work

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An Event has the fields of a webhook that the fold uses.
type Event struct {
	Event       string `json:"event"`
	EventID     string `json:"event_id"`
	WorkspaceID string `json:"workspace_id"`
	FileID      string `json:"object_id"`
	Name        string `json:"name"`
	Path        string `json:"path"`
	Size        int64  `json:"size"`
	Mime        string `json:"mime"`
	Hash        string `json:"hash"`
	ActorID     string `json:"actor_id"`
	Created     string `json:"created"`

	Payload []byte `json:"-"` // the event as received
}

// Key is the key of the file's row and of its output records.
func (e *Event) Key() string { return e.WorkspaceID + "/" + e.FileID }

// A File is a file as clients see it.
type File struct {
	WorkspaceID string  `json:"workspace_id"`
	FileID      string  `json:"file_id"`
	Name        string  `json:"name"`
	Path        string  `json:"path"`
	Size        int64   `json:"size"`
	Mime        string  `json:"mime"`
	Hash        string  `json:"hash"`
	Status      string  `json:"status"`
	Incomplete  bool    `json:"incomplete"`
	Version     int64   `json:"version"`
	Position    string  `json:"position"`
	ActorID     string  `json:"actor_id"`
	LastEvent   string  `json:"last_event"`
	LastEventID string  `json:"last_event_id"`
	CreatedAt   string  `json:"created_at"`
	UpdatedAt   string  `json:"updated_at"`
	DeletedAt   *string `json:"deleted_at"`
}

// A State is a row of the table.
type State struct {
	File
	Offset   int64    `json:"offset"` // of the last event
	EventIDs []string `json:"event_ids"`
}

// Window is how many event ids a row remembers, as many as tidemark's.
const Window = 256

// Fold changes the row by the event at a position. It returns the file before, nil for a new one, and false for an
// event that the row has already.
func (s *State) Fold(e *Event, partition int32, offset int64) (before *File, ok bool) {
	if s.Version > 0 && offset <= s.Offset || slices.Contains(s.EventIDs, e.EventID) {
		return nil, false
	}
	if s.Version > 0 {
		file := s.File
		before = &file
	}
	s.WorkspaceID, s.FileID, s.Name, s.Path, s.Size = e.WorkspaceID, e.FileID, e.Name, e.Path, e.Size
	s.Mime, s.Hash, s.ActorID, s.UpdatedAt = e.Mime, e.Hash, e.ActorID, e.Created
	s.LastEvent, s.LastEventID = e.Event, e.EventID
	switch {
	case strings.HasSuffix(e.Event, "_deleted"):
		deleted := e.Created
		s.Status, s.DeletedAt = "trashed", &deleted
	case strings.HasSuffix(e.Event, "_added"):
		if s.CreatedAt == "" {
			s.CreatedAt = e.Created
		}
		s.Status, s.DeletedAt, s.Incomplete = "active", nil, false
	case before == nil:
		s.Status, s.Incomplete = "active", true
	}
	s.Version++
	s.Offset, s.Position = offset, strconv.Itoa(int(partition))+":"+strconv.FormatInt(offset, 10)
	if len(s.EventIDs) >= Window {
		s.EventIDs = slices.Delete(s.EventIDs, 0, 1)
	}
	s.EventIDs = append(s.EventIDs, e.EventID)
	return before, true
}

// An Index is an index record.
type Index struct {
	Op          string `json:"op"`
	ID          string `json:"id"`
	WorkspaceID string `json:"workspace_id"`
	FileID      string `json:"file_id"`
	Version     int64  `json:"version"`
	Position    string `json:"position"`
	File        *File  `json:"file,omitempty"` // of an upsert
}

// IndexOf returns the index record of a file.
func IndexOf(f *File) *Index {
	op := &Index{"delete", f.WorkspaceID + "/" + f.FileID, f.WorkspaceID, f.FileID, f.Version, f.Position, nil}
	if f.Status == "active" {
		op.Op, op.File = "upsert", f
	}
	return op
}

// A Notice says what happened to a file.
type Notice struct {
	OpID        string          `json:"op_id"`
	Event       string          `json:"event"`
	EventID     string          `json:"event_id"`
	WorkspaceID string          `json:"workspace_id"`
	FileID      string          `json:"file_id"`
	Version     int64           `json:"version"`
	Position    string          `json:"position"`
	Late        bool            `json:"late"`
	ActorID     string          `json:"actor_id"`
	At          string          `json:"at"`
	Before      *File           `json:"before"`
	After       *File           `json:"after"`
	Payload     json.RawMessage `json:"payload"`
}

// NoticeOf returns the notice of an event.
func NoticeOf(e *Event, before, after *File) *Notice {
	return &Notice{
		OpID: e.WorkspaceID + "/" + e.EventID + "/" + e.FileID, Event: e.Event, EventID: e.EventID,
		WorkspaceID: e.WorkspaceID, FileID: e.FileID, Version: after.Version, Position: after.Position,
		ActorID: e.ActorID, At: e.Created, Before: before, After: after, Payload: e.Payload,
	}
}

// Parse reads an event. Flat objects of short strings and numbers, as the benchmark's are, are read without
// encoding/json; it reads all others.
func Parse(value []byte) (*Event, error) {
	e := &Event{}
	if !e.flat(string(value)) {
		*e = Event{}
		if err := json.Unmarshal(value, e); err != nil {
			return nil, fmt.Errorf("parse event: %w", err)
		}
	}
	e.Payload = value
	return e, nil
}

// flat reads an object whose members are strings without escapes and integers. It returns false for any other.
func (e *Event) flat(s string) bool {
	if !strings.HasPrefix(s, "{") || !strings.HasSuffix(s, "}") || strings.IndexByte(s, '\\') >= 0 {
		return false
	}
	for s = s[1:]; ; s = s[1:] {
		if len(s) == 0 || s[0] != '"' {
			return false
		}
		name, rest, ok := strings.Cut(s[1:], `":`)
		if !ok || rest == "" {
			return false
		}
		var text string
		if rest[0] == '"' {
			if text, s, ok = strings.Cut(rest[1:], `"`); !ok {
				return false
			}
		} else {
			end := strings.IndexAny(rest, ",}")
			text, s = rest[:end], rest[end:]
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return false
			}
			if name == "size" {
				e.Size = n
			}
		}
		e.set(name, text)
		if s == "}" {
			return true
		}
		if s == "" || s[0] != ',' {
			return false
		}
	}
}

func (e *Event) set(name, text string) {
	switch name {
	case "event":
		e.Event = text
	case "event_id":
		e.EventID = text
	case "workspace_id":
		e.WorkspaceID = text
	case "object_id":
		e.FileID = text
	case "name":
		e.Name = text
	case "path":
		e.Path = text
	case "mime":
		e.Mime = text
	case "hash":
		e.Hash = text
	case "actor_id":
		e.ActorID = text
	case "created":
		e.Created = text
	}
}

package main

import (
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// want is what every program must write for an input. It comes from the generator's events by a fold of its own, which
// shares no code with tidemark or its peers: the input's events are in the order of their times.
type want struct {
	events [][]outcome // by partition and offset of the event
	files  map[string]*document
	unique int // events that are no repeats
}

// An outcome has the digests of an event's records; a repeat has none.
type outcome struct{ index, notice uint64 }

// A document is the part of a file's JSON that is compared.
type document struct {
	WorkspaceID string     `json:"workspace_id"`
	FileID      string     `json:"file_id"`
	Name        string     `json:"name"`
	Path        string     `json:"path"`
	Size        int64      `json:"size"`
	Mime        string     `json:"mime"`
	Hash        string     `json:"hash"`
	Status      string     `json:"status"`
	Incomplete  bool       `json:"incomplete"`
	Version     int64      `json:"version"`
	Position    string     `json:"position"`
	ActorID     string     `json:"actor_id"`
	LastEvent   string     `json:"last_event"`
	LastEventID string     `json:"last_event_id"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	DeletedAt   *time.Time `json:"deleted_at"`
}

type indexRecord struct {
	Op          string    `json:"op"`
	ID          string    `json:"id"`
	WorkspaceID string    `json:"workspace_id"`
	FileID      string    `json:"file_id"`
	Version     int64     `json:"version"`
	Position    string    `json:"position"`
	File        *document `json:"file"`
}

type noticeRecord struct {
	OpID        string         `json:"op_id"`
	Event       string         `json:"event"`
	EventID     string         `json:"event_id"`
	WorkspaceID string         `json:"workspace_id"`
	FileID      string         `json:"file_id"`
	Version     int64          `json:"version"`
	Position    string         `json:"position"`
	Late        bool           `json:"late"`
	ActorID     string         `json:"actor_id"`
	At          time.Time      `json:"at"`
	Before      *document      `json:"before"`
	After       *document      `json:"after"`
	Payload     jsontext.Value `json:"payload"`
}

var digestSeed = maphash.MakeSeed()

// digest is that of a record's key and value, with members in a fixed order and times in one form.
func digest(key string, value any, payload []byte) (uint64, error) {
	b, err := jsonv2.Marshal(value)
	if err != nil {
		return 0, err
	}
	return maphash.Bytes(digestSeed, append(append(b, key...), payload...)), nil
}

func (r *noticeRecord) digest(key string) (uint64, error) {
	payload := r.Payload // byte for byte as received, so it needs no parsing
	r.Payload = nil
	return digest(key, r, payload)
}

func fileKey(workspace, file string) string { return workspace + "/" + file }

// newWant folds the events that fill produces.
func newWant(s setup) (*want, error) {
	w := &want{events: make([][]outcome, s.partitions), files: map[string]*document{}}
	in := newInput(s)
	for range s.events {
		e, first := in.next()
		at := fmt.Sprintf("%d:%d", e.partition, len(w.events[e.partition]))
		var o outcome
		if first {
			w.unique++
			var err error
			if o, err = w.fold(e.value, at); err != nil {
				return nil, err
			}
		}
		w.events[e.partition] = append(w.events[e.partition], o)
	}
	return w, nil
}

// fold returns what must be written for an event.
func (w *want) fold(value []byte, at string) (o outcome, err error) {
	var e struct {
		document
		Event   string    `json:"event"`
		EventID string    `json:"event_id"`
		Object  string    `json:"object_id"`
		Created time.Time `json:"created"`
	}
	if err := jsonv2.Unmarshal(value, &e); err != nil {
		return o, err
	}
	k := fileKey(e.WorkspaceID, e.Object)
	r := w.files[k]
	var before *document
	if r == nil {
		r = &document{CreatedAt: e.Created} // the first event of a file is an added one
	} else {
		before = r
	}
	after := e.document
	after.FileID, after.LastEvent, after.LastEventID = e.Object, e.Event, e.EventID
	after.Version, after.Position = r.Version+1, at
	after.Status, after.DeletedAt, after.CreatedAt, after.UpdatedAt = r.Status, r.DeletedAt, r.CreatedAt, e.Created
	switch _, kind, _ := strings.Cut(e.Event, "_file_"); kind {
	case "added":
		after.Status, after.DeletedAt = "active", nil
	case "deleted":
		after.Status, after.DeletedAt = "trashed", &e.Created
	}
	w.files[k] = &after
	index := indexRecord{"delete", k, e.WorkspaceID, e.Object, after.Version, at, nil}
	if after.Status == "active" {
		index.Op, index.File = "upsert", &after
	}
	if o.index, err = digest(k, &index, nil); err != nil {
		return o, err
	}
	notice := noticeRecord{
		OpID: e.WorkspaceID + "/" + e.EventID + "/" + e.Object, Event: e.Event, EventID: e.EventID,
		WorkspaceID: e.WorkspaceID, FileID: e.Object, Version: after.Version, Position: at, ActorID: e.ActorID,
		At: e.Created, Before: before, After: &after, Payload: value,
	}
	o.notice, err = notice.digest(k)
	return o, err
}

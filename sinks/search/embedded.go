package search

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// An embedded index is in memory, some 260 B for each file: see docs/decisions/0022-embedded-search.md. A process that
// starts fills it by Rebuild, and until then queries fail.
type embedded struct {
	mu        sync.RWMutex
	documents map[string][]*entry // by workspace, ordered by file id
	// predictions are by workspace/file, then by rule. They stay when a file is deleted, and keep the version.
	predictions map[string]map[string]*prediction
	complete    atomic.Bool
}

func newEmbedded() *embedded {
	e := new(embedded)
	e.clear()
	return e
}

func (e *embedded) clear() {
	e.documents, e.predictions = map[string][]*entry{}, map[string]map[string]*prediction{}
}

type entry struct {
	id      string
	version int64
	words   string // each after a space
	file    []byte // encoded, which takes a third of the memory
}

func (d *entry) compareID(id string) int { return strings.Compare(d.id, id) }

func (e *embedded) apply(_ context.Context, documents []document) ([]error, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, next := range documents {
		if p := next.prediction; p != nil {
			e.predict(p)
			continue
		}
		file := next.file
		encoded, err := proto.Marshal(file)
		if err != nil {
			return nil, err
		}
		d := &entry{strings.Clone(file.GetFileId()), file.GetVersion(), " " + fileWords(file), encoded}
		all := e.documents[file.GetWorkspaceId()]
		at, known := slices.BinarySearchFunc(all, d.id, (*entry).compareID)
		if !known {
			e.documents[file.GetWorkspaceId()] = slices.Insert(all, at, d)
		} else if d.version > all[at].version {
			all[at] = d
		}
	}
	return make([]error, len(documents)), nil
}

func (e *embedded) predict(p *prediction) {
	id := tidemarkv1.JoinKey(p.WorkspaceID, p.FileID)
	if e.predictions[id] == nil {
		e.predictions[id] = map[string]*prediction{}
	}
	if before := e.predictions[id][p.Rule]; before == nil || p.Version >= before.Version {
		e.predictions[id][p.Rule] = p
	}
}

func (e *embedded) predicted(_ context.Context, workspace string, fileIDs []string) (all []*prediction, _ error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, id := range fileIDs {
		all = slices.AppendSeq(all, maps.Values(e.predictions[tidemarkv1.JoinKey(workspace, id)]))
	}
	return all, nil
}

func (e *embedded) find(_ context.Context, f filter) (found []*tidemarkv1.FileState, err error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.Incomplete() {
		return nil, errors.New("the embedded index is being filled")
	}
	all := e.documents[f.Workspace]
	next, _ := slices.BinarySearchFunc(all, f.after+"\x00", (*entry).compareID)
	for _, d := range all[next:] {
		if !d.mayMatch(f) {
			continue
		}
		file := new(tidemarkv1.FileState)
		if err := proto.Unmarshal(d.file, file); err != nil {
			return nil, err
		}
		status := strings.ToLower(strings.TrimPrefix(file.GetStatus().String(), "STATUS_"))
		if strings.HasPrefix(file.GetPath(), f.PathPrefix) && (f.MIME == "" || f.MIME == file.GetMime()) &&
			slices.Contains(f.statuses, status) {
			if found = append(found, file); len(found) == f.Limit {
				break
			}
		}
	}
	return found, nil
}

// mayMatch is false for most documents that do not match, so they are not decoded: the encoding has each text as it is.
func (d *entry) mayMatch(f filter) bool {
	for _, word := range f.words {
		if !strings.Contains(d.words, " "+word) {
			return false
		}
	}
	return bytes.Contains(d.file, []byte(f.PathPrefix)) && bytes.Contains(d.file, []byte(f.MIME))
}

// rebuild empties the index and fills it again. Other sinks of this process go on writing to it: what they wrote before
// had been read from the topic, so deliverNew delivers it again.
func (e *embedded) rebuild(ctx context.Context, deliverNew func(context.Context, index) error) error {
	e.mu.Lock()
	e.clear()
	e.complete.Store(false)
	e.mu.Unlock()
	if err := deliverNew(ctx, e); err != nil {
		return fmt.Errorf("fill the embedded search index: %w", err)
	}
	e.complete.Store(true)
	return nil
}

func (e *embedded) Incomplete() bool              { return !e.complete.Load() }
func (e *embedded) Check(context.Context) error   { return nil }
func (e *embedded) Refresh(context.Context) error { return nil }

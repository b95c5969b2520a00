package processors

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lovoo/goka"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/file"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Derived events. When the files group has folded an event of a folder, it appends to the events topic one derived
// event for each entry that changes: see package file. It folds, dedupes and publishes these like any other event. So
// all that changes a row is in one log in one order, and a fold that is repeated after a crash gives the same bytes,
// although the rows that decide which events are derived may be newer by then.
//
// A walk visits a folder's entries in batches. If entries are left, a batch ends with a walk record in the events
// topic, which says where the next one continues. So the events of other workspaces in the partition need not wait for
// the whole walk.

// The limits of a batch: derived events, rows read, and index keys read.
const (
	maxEvents = 250
	maxRows   = 500
	maxKeys   = 5000
)

// workspaceRows are the rows of a workspace, as a callback sees them.
type workspaceRows struct {
	rows      epochs.Rows
	workspace string          // escaped
	byPath    map[string]bool // by escaped workspace: whether it has an index key of byFolderPath
}

// maxCached is the maximum number of workspaces in a partition's pathCache. Without it each event would need a look-up
// that costs more than its fold.
const maxCached = 10_000

// rowsOf returns the rows of a workspace. The partition's cache is discarded when the partition is assigned again.
func (f *Files) rowsOf(ctx goka.Context, workspace string) *workspaceRows {
	rows := epochs.RowsOf(ctx)
	known, _ := f.pathMatches.Load(ctx.Partition())
	p, ok := known.(*pathCache)
	if !ok || p.rows != rows || len(p.of) >= maxCached {
		p = &pathCache{rows, map[string]bool{}}
		f.pathMatches.Store(ctx.Partition(), p)
	}
	return &workspaceRows{rows: rows, workspace: tidemarkv1.EscapePart(workspace), byPath: p.of}
}

// A pathCache has for each workspace whether it has a folder that matches by path.
type pathCache struct {
	rows epochs.Rows
	of   map[string]bool
}

// row returns a row by its escaped id; nil if there is none.
func (w *workspaceRows) row(entry string) (*tidemarkv1.FileState, error) {
	value, err := w.rows.Get(w.workspace + "/" + entry)
	if err != nil || value == nil {
		return nil, err
	}
	s := new(tidemarkv1.FileState)
	if err := proto.Unmarshal(value, s); err != nil {
		return nil, fmt.Errorf("decode the row of %s/%s: %w", w.workspace, entry, err)
	}
	return s, nil
}

// folder returns the row of a folder by its id; nil if there is none, or it is not a folder.
func (w *workspaceRows) folder(id string) (*tidemarkv1.FileState, error) {
	if id == "" {
		return nil, nil
	}
	s, err := w.row(tidemarkv1.EscapePart(id))
	if err != nil || s.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return nil, err
	}
	return s, nil
}

// maxLevels is the maximum number of directories of a path, from the last one up, that are looked up.
const maxLevels = 64

// parent returns the folder that an entry is in: the one that its parent_id names, or, if there is no row of that, the
// nearest that matches by path.
func (w *workspaceRows) parent(entry *tidemarkv1.FileState) (*tidemarkv1.FileState, error) {
	parent, err := w.folder(entry.GetParentId())
	if err != nil || parent != nil {
		return parent, err
	}
	if has, err := w.matchesByPath(); err != nil || !has {
		return nil, err
	}
	var folders []*tidemarkv1.FileState
	path := file.OwnPath(entry)
	levels := 0
	for end := strings.LastIndexByte(path, '/'); end >= 0 &&
		levels < maxLevels; end = strings.LastIndexByte(path[:end], '/') {
		levels++
		found, _, err := w.rows.Find(byFolderPath+w.workspace+"/"+path[:end]+"\x00", "", maxRows)
		if err != nil {
			return nil, err
		}
		for _, key := range found {
			folder, err := w.row(key[strings.IndexByte(key, 0)+1:])
			if err != nil {
				return nil, err
			}
			folders = append(folders, folder)
		}
	}
	return file.NearestFolder(folders, entry), nil
}

// matchesByPath reports whether the workspace has a folder for which file.MatchesByPath is true.
func (w *workspaceRows) matchesByPath() (bool, error) {
	has, known := w.byPath[w.workspace]
	if !known {
		found, _, err := w.rows.Find(byFolderPath+w.workspace+"/", "", 1)
		if err != nil {
			return false, err
		}
		has = len(found) > 0
		w.setMatchesByPath(has)
	}
	return has, nil
}

// setMatchesByPath notes it. The key is a copy: the workspace may share memory with a row.
func (w *workspaceRows) setMatchesByPath(has bool) {
	if before, known := w.byPath[w.workspace]; !known || before != has {
		w.byPath[strings.Clone(w.workspace)] = has
	}
}

// derive emits the derived events that follow from an event: one for its own row, if that does not have what it
// inherits, and, if what a folder's entries inherit has changed, the first batch of a walk through them.
func (f *Files) derive(ctx goka.Context, e *tidemarkv1.Event, before, after *tidemarkv1.FileState) {
	if f.conf.TableOnly || after == nil {
		return
	}
	rows := f.rowsOf(ctx, after.GetWorkspaceId())
	if file.MatchesByPath(after) {
		rows.setMatchesByPath(true)
	}
	if err := f.deriveFor(ctx, rows, e, after); err != nil {
		ctx.Fail(err)
		return
	}
	if after.GetInheritable().GetStamp() == before.GetInheritable().GetStamp() {
		return
	}
	if err := f.walk(ctx, rows, after, ""); err != nil {
		ctx.Fail(err)
	}
}

// deriveFor emits the derived event for a row that does not have what it inherits from the folder that it is in.
func (f *Files) deriveFor(ctx goka.Context, rows *workspaceRows, e *tidemarkv1.Event,
	after *tidemarkv1.FileState,
) error {
	if e.GetCause() == nil && !file.ChangesPlaceOrStatus(e) {
		return nil
	}
	folder, err := rows.parent(after)
	if err != nil || folder == nil {
		return err
	}
	own := e
	if e.GetCause() != nil {
		own = nil
	}
	f.emitDerived(ctx, folder, after, own)
	return nil
}

// emitDerived emits the derived event by which an entry inherits from a folder, and reports whether there is one.
func (f *Files) emitDerived(ctx goka.Context, folder, entry *tidemarkv1.FileState, own *tidemarkv1.Event) bool {
	e := file.Derive(folder, entry, own)
	if e == nil {
		return false
	}
	f.metrics.events.derived.Inc()
	f.emitToEvents(ctx, e, topology.HeaderCause, e.GetCause().GetPosition().Text())
	return true
}

// A batch is the part of a walk that one callback does.
type batch struct {
	files  *Files
	ctx    goka.Context
	rows   *workspaceRows
	folder *tidemarkv1.FileState
	known  map[string]bool // by escaped id of another parent: whether there is a row of that folder
	events int             // derived events
	read   int             // rows
	looked int             // index keys
}

// walk visits a batch of a folder's entries, from the index key from on. If entries are left, it emits a walk record.
func (f *Files) walk(ctx goka.Context, rows *workspaceRows, folder *tidemarkv1.FileState, from string) error {
	b := &batch{files: f, ctx: ctx, rows: rows, folder: folder, known: map[string]bool{}}
	for _, prefix := range walkPrefixes(rows.workspace, folder) {
		if from != "" && !strings.HasPrefix(from, prefix) {
			continue // visited before
		}
		for more := true; more; {
			var found []string
			var err error
			if found, more, err = rows.rows.Find(prefix, from, maxRows); err != nil {
				return err
			}
			for _, key := range found {
				from = key
				if err := b.visit(key); err != nil {
					return err
				}
				if b.events == maxEvents || b.read == maxRows || b.looked == maxKeys {
					f.emitWalk(ctx, folder, from)
					return nil
				}
			}
		}
		from = ""
	}
	return nil
}

// visit emits the derived event for one entry, unless the entry has another parent, from which it inherits.
func (b *batch) visit(indexed string) error {
	b.looked++
	entry := indexed[strings.LastIndexByte(indexed, '/')+1:]
	if rest, byPath := strings.CutPrefix(indexed, byOwnPath); byPath {
		parent, _, _ := strings.Cut(rest[strings.IndexByte(rest, 0)+1:], "/")
		if other, err := b.otherParent(parent); err != nil || other {
			return err
		}
	}
	b.read++
	row, err := b.rows.row(entry)
	if err != nil || row == nil {
		return err
	}
	if b.files.emitDerived(b.ctx, b.folder, row, nil) {
		b.events++
	}
	return nil
}

// otherParent reports whether an entry that was found by path inherits by its parent instead, whose id is escaped: from
// another folder that has a row, or from this one, which visits its children by byParent.
func (b *batch) otherParent(parent string) (bool, error) {
	if parent == "" {
		return false, nil
	}
	if parent == tidemarkv1.EscapePart(b.folder.GetFileId()) {
		return true, nil
	}
	known, asked := b.known[parent]
	if !asked {
		row, err := b.rows.row(parent)
		if err != nil {
			return false, err
		}
		known = row.GetKind() == tidemarkv1.Kind_KIND_FOLDER
		b.known[parent] = known
	}
	return known, nil
}

// walkPrefixes are the prefixes of the index keys of a folder's possible entries: by its id, and, if it matches by
// path, by each of its paths.
func walkPrefixes(workspace string, folder *tidemarkv1.FileState) []string {
	prefixes := []string{childPrefix(workspace, folder.GetFileId())}
	if !file.MatchesByPath(folder) {
		return prefixes
	}
	paths := pathsOf(folder)
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		prefix := byOwnPath + workspace + "/" + strings.TrimSuffix(path, "/") + "/"
		if last := prefixes[len(prefixes)-1]; !strings.HasPrefix(prefix, last) { // the last prefix includes it
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// pathsOf returns the present and the former paths of a folder.
func pathsOf(folder *tidemarkv1.FileState) (paths []string) {
	if folder.GetPath() != "" {
		paths = append(paths, folder.GetPath())
	}
	for _, former := range folder.GetFormer() {
		paths = append(paths, former.GetPath())
	}
	return paths
}

// emitWalk emits the walk record that continues after an index key.
func (f *Files) emitWalk(ctx goka.Context, folder *tidemarkv1.FileState, from string) {
	e := &tidemarkv1.Event{
		Event: walkEvent, EventId: fmt.Sprintf("%s/%d", walkEvent, file.FoldCount(folder)),
		WorkspaceId: folder.GetWorkspaceId(),
		FileId:      folder.GetFileId(), ReceivedAt: folder.GetCause().GetTime().GetArrived(),
	}
	f.emitToEvents(ctx, e, topology.HeaderWalk, fmt.Sprintf("%d %s", folder.GetInheritable().GetStamp(), from))
}

// walkEvent is the event of a walk record. It has no meaning for a file, and no notice.
const walkEvent = "tidemark_folder_walk"

// emitToEvents appends a derived event or a walk record, which a header tells apart, to the events topic.
func (f *Files) emitToEvents(ctx goka.Context, e *tidemarkv1.Event, header, value string) {
	headers := goka.Headers{
		topology.HeaderEventID: []byte(e.GetEventId()), topology.HeaderEventType: []byte(e.GetEvent()),
		topology.HeaderFileID: []byte(e.GetFileId()), header: []byte(value),
	}
	epochs.Emit(ctx, goka.Stream(f.conf.Streams.Events.Name), e.GetWorkspaceId(), codecs.AppendDerived(nil, e), headers)
}

// continueWalk is the callback of a walk record. If the folder has changed since, it visits no entry: a newer walk
// does.
func (f *Files) continueWalk(ctx goka.Context, a *arrival, at *tidemarkv1.Position) {
	folder, _ := ctx.Value().(*tidemarkv1.FileState)
	after := file.ApplyWalk(folder, at, f.topicID)
	if after == nil {
		f.metrics.events.applied.Inc()
		return
	}
	stamp, from, _ := strings.Cut(a.walk, " ")
	if stamp == fmt.Sprint(folder.GetInheritable().GetStamp()) && !f.conf.TableOnly {
		if err := f.walk(ctx, f.rowsOf(ctx, folder.GetWorkspaceId()), folder, from); err != nil {
			ctx.Fail(err)
			return
		}
	}
	setRow(ctx, folder, after)
}

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

// What happens to a folder reaches its entries through the events topic. The files group, when it has folded an event of a folder,
// writes one event for each entry that changes, behind all that is there; it is folded, deduped and published like any other. So
// everything that makes a row is in one log and in one order, and a fold that is repeated after a crash gives the same bytes,
// although which events are written depends on rows that may be newer then.
//
// A folder's entries are visited in steps. A step ends with a record to the group itself that says where to go on, behind what has
// come meanwhile for the partition's other workspaces.

// How much one step does at most: events that it writes, rows that it reads, and entries of the index that it looks at.
const (
	stepEvents  = 250
	stepRows    = 500
	stepEntries = 5000
)

// The entries of the index, by what they begin with:
//
//	entryOf   workspace "/" parent "/" entry: the rows that name this parent
//	entryAt   workspace "/" path 0x00 parent "/" entry: the rows whose own events gave this path, and which parent they name
//	folderAt  workspace "/" path 0x00 folder: the folders that have or had this path and were moved or deleted once
//
// Ids are escaped as in record keys. A path with a 0x00 in it is not listed: it is in nobody's folder.
const (
	entryOf  = "e"
	entryAt  = "p"
	folderAt = "f"
)

// index returns the entries of a row that was read from the changelog: see epochs.Config.
func index(_ string, row []byte) []string {
	s := new(tidemarkv1.FileState)
	if proto.Unmarshal(row, s) != nil {
		return nil // something else wrote it
	}
	return placesOf(s)
}

// setRow sets a row, and the entries that change with it.
func setRow(ctx goka.Context, before, after *tidemarkv1.FileState) {
	if !samePlace(before, after) {
		was, is := placesOf(before), placesOf(after)
		gone := slices.DeleteFunc(slices.Clone(was), func(entry string) bool { return slices.Contains(is, entry) })
		added := slices.DeleteFunc(is, func(entry string) bool { return slices.Contains(was, entry) })
		epochs.RowsOf(ctx).Reindex(gone, added)
	}
	ctx.SetValue(after) // held until the outputs are acknowledged
}

// samePlace says whether two rows surely have the same entries.
func samePlace(a, b *tidemarkv1.FileState) bool {
	return a != nil && a.GetParentId() == b.GetParentId() && a.GetPath() == b.GetPath() && a.GetOwnPath() == b.GetOwnPath() &&
		a.GetUnplaced() == b.GetUnplaced() && !isFolder(b)
}

func placesOf(s *tidemarkv1.FileState) (places []string) {
	if s == nil {
		return nil
	}
	workspace, entry := tidemarkv1.EscapePart(s.GetWorkspaceId()), tidemarkv1.EscapePart(s.GetFileId())
	if s.GetParentId() != "" {
		places = append(places, childrenOf(workspace, s.GetParentId())+entry)
	}
	if path := file.OwnPath(s); path != "" && !strings.Contains(path, "\x00") {
		places = append(places, entryAt+workspace+"/"+path+"\x00"+tidemarkv1.EscapePart(s.GetParentId())+"/"+entry)
	}
	if file.MatchesByPath(s) {
		for _, path := range pathsOf(s) {
			if !strings.Contains(path, "\x00") {
				places = append(places, folderAt+workspace+"/"+strings.TrimSuffix(path, "/")+"\x00"+entry)
			}
		}
	}
	return places
}

// childrenOf is what the index entries of a folder's entries begin with; the workspace is escaped.
func childrenOf(workspace, folder string) string {
	return entryOf + workspace + "/" + tidemarkv1.EscapePart(folder) + "/"
}

// A family is a workspace's rows, as a callback sees them.
type family struct {
	rows      epochs.Rows
	workspace string          // escaped
	passing   map[string]bool // by escaped workspace: whether it has an entry of folderAt
}

// maxPassing is of how many workspaces a partition remembers whether they have a folder that was moved or deleted: to look that
// up for each event would cost more than its fold.
const maxPassing = 10_000

// family returns the rows of a workspace. What is remembered of a partition is forgotten when it is assigned once more.
func (f *Files) family(ctx goka.Context, workspace string) *family {
	rows := epochs.RowsOf(ctx)
	known, _ := f.passing.Load(ctx.Partition())
	p, ok := known.(*passing)
	if !ok || p.rows != rows || len(p.of) >= maxPassing {
		p = &passing{rows, map[string]bool{}}
		f.passing.Store(ctx.Partition(), p)
	}
	return &family{rows: rows, workspace: tidemarkv1.EscapePart(workspace), passing: p.of}
}

type passing struct {
	rows epochs.Rows
	of   map[string]bool
}

// row returns a row by its key's second part, which is escaped; nil when there is none.
func (f *family) row(entry string) (*tidemarkv1.FileState, error) {
	value, err := f.rows.Get(f.workspace + "/" + entry)
	if err != nil || value == nil {
		return nil, err
	}
	s := new(tidemarkv1.FileState)
	if err := proto.Unmarshal(value, s); err != nil {
		return nil, fmt.Errorf("decode the row of %s/%s: %w", f.workspace, entry, err)
	}
	return s, nil
}

// folder returns the row of a folder by its id; nil when it is not known as one.
func (f *family) folder(id string) (*tidemarkv1.FileState, error) {
	if id == "" {
		return nil, nil
	}
	s, err := f.row(tidemarkv1.EscapePart(id))
	if err != nil || s.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return nil, err
	}
	return s, nil
}

// maxLevels is in how many directories of a path, from the last one up, a folder is looked for.
const maxLevels = 64

// above returns the folder that an entry is in: the one that its parent_id names, else, where that is not known, the nearest that
// its path lies in.
func (f *family) above(entry *tidemarkv1.FileState) (*tidemarkv1.FileState, error) {
	parent, err := f.folder(entry.GetParentId())
	if err != nil || parent != nil {
		return parent, err
	}
	if passes, err := f.anyPasses(); err != nil || !passes {
		return nil, err
	}
	var folders []*tidemarkv1.FileState
	path := file.OwnPath(entry)
	levels := 0
	for end := strings.LastIndexByte(path, '/'); end >= 0 && levels < maxLevels; end = strings.LastIndexByte(path[:end], '/') {
		levels++
		found, _, err := f.rows.Find(folderAt+f.workspace+"/"+path[:end]+"\x00", "", stepRows)
		if err != nil {
			return nil, err
		}
		for _, entry := range found {
			folder, err := f.row(entry[strings.IndexByte(entry, 0)+1:])
			if err != nil {
				return nil, err
			}
			folders = append(folders, folder)
		}
	}
	return file.NearestFolder(folders, entry), nil
}

// anyPasses says whether the workspace has a folder of which entries are known by their path alone: see file.MatchesByPath.
func (f *family) anyPasses() (bool, error) {
	passes, known := f.passing[f.workspace]
	if !known {
		found, _, err := f.rows.Find(folderAt+f.workspace+"/", "", 1)
		if err != nil {
			return false, err
		}
		passes = len(found) > 0
		f.passing[f.workspace] = passes
	}
	return passes, nil
}

// follow emits what an event leads to beside its own outputs: what its row takes over from the folder that it is in, and, when
// what a folder gives has changed, the first step through its entries.
func (f *Files) follow(ctx goka.Context, e *tidemarkv1.Event, before, after *tidemarkv1.FileState) {
	if f.conf.TableOnly || after == nil {
		return
	}
	rows := f.family(ctx, after.GetWorkspaceId())
	if file.MatchesByPath(after) {
		rows.passing[rows.workspace] = true
	}
	if err := f.settle(ctx, rows, e, after); err != nil {
		ctx.Fail(err)
		return
	}
	if after.GetInheritable().GetStamp() == before.GetInheritable().GetStamp() {
		return
	}
	if err := f.step(ctx, rows, after, ""); err != nil {
		ctx.Fail(err)
	}
}

// settle emits what a row takes over from the folder that it is in.
func (f *Files) settle(ctx goka.Context, rows *family, e *tidemarkv1.Event, after *tidemarkv1.FileState) error {
	if e.GetCause() == nil && !file.MayMove(e) {
		return nil
	}
	folder, err := rows.above(after)
	if err != nil || folder == nil {
		return err
	}
	own := e
	if e.GetCause() != nil {
		own = nil
	}
	f.pass(ctx, folder, after, own)
	return nil
}

// pass emits what an entry takes over from a folder, and says whether there was anything.
func (f *Files) pass(ctx goka.Context, folder, entry *tidemarkv1.FileState, own *tidemarkv1.Event) (passed bool) {
	e := file.Derive(folder, entry, own)
	if e == nil {
		return false
	}
	f.metrics.folded.passedOn.Inc()
	f.emitEvent(ctx, e, codecs.AppendDerived(nil, e), topology.HeaderCause, e.GetCause().GetPosition().Text())
	return true
}

// A step is one visit of some of a folder's entries.
type step struct {
	files  *Files
	ctx    goka.Context
	rows   *family
	folder *tidemarkv1.FileState
	known  map[string]bool // by escaped id of another parent: whether its row is known
	events int
	read   int
	looked int
}

// step visits entries of a folder, from one on. What it has no room for, a record to the group itself goes on with.
func (f *Files) step(ctx goka.Context, rows *family, folder *tidemarkv1.FileState, from string) error {
	s := &step{files: f, ctx: ctx, rows: rows, folder: folder, known: map[string]bool{}}
	for _, prefix := range prefixesOf(rows.workspace, folder) {
		if from != "" && !strings.HasPrefix(from, prefix) {
			continue // visited
		}
		for more := true; more; {
			var found []string
			var err error
			if found, more, err = rows.rows.Find(prefix, from, stepRows); err != nil {
				return err
			}
			for _, entry := range found {
				from = entry
				if err := s.visit(entry); err != nil {
					return err
				}
				if s.events == stepEvents || s.read == stepRows || s.looked == stepEntries {
					f.goOn(ctx, folder, from)
					return nil
				}
			}
		}
		from = ""
	}
	return nil
}

// visit gives one entry what it inherits, unless it names another parent that is known: that one does.
func (s *step) visit(indexed string) error {
	s.looked++
	entry := indexed[strings.LastIndexByte(indexed, '/')+1:]
	if rest, byPath := strings.CutPrefix(indexed, entryAt); byPath {
		parent, _, _ := strings.Cut(rest[strings.IndexByte(rest, 0)+1:], "/")
		if other, err := s.otherParent(parent); err != nil || other {
			return err
		}
	}
	s.read++
	row, err := s.rows.row(entry)
	if err != nil || row == nil {
		return err
	}
	if s.files.pass(s.ctx, s.folder, row, nil) {
		s.events++
	}
	return nil
}

// otherParent says whether an entry's parent, given escaped, is another folder whose row is known, or this one, which has visited
// its own entries by their parent.
func (s *step) otherParent(parent string) (bool, error) {
	if parent == "" {
		return false, nil
	}
	if parent == tidemarkv1.EscapePart(s.folder.GetFileId()) {
		return true, nil
	}
	known, asked := s.known[parent]
	if !asked {
		row, err := s.rows.row(parent)
		if err != nil {
			return false, err
		}
		known = row.GetKind() == tidemarkv1.Kind_KIND_FOLDER
		s.known[parent] = known
	}
	return known, nil
}

// prefixesOf are those of the index entries of what may be in a folder: by its id, and when it has been moved or deleted once, by
// each of its paths.
func prefixesOf(workspace string, folder *tidemarkv1.FileState) []string {
	prefixes := []string{childrenOf(workspace, folder.GetFileId())}
	if !file.MatchesByPath(folder) {
		return prefixes
	}
	paths := pathsOf(folder)
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		prefix := entryAt + workspace + "/" + strings.TrimSuffix(path, "/") + "/"
		if last := prefixes[len(prefixes)-1]; !strings.HasPrefix(prefix, last) { // what lies in another of them is visited there
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// pathsOf returns the paths that a folder has and had.
func pathsOf(folder *tidemarkv1.FileState) (paths []string) {
	if folder.GetPath() != "" {
		paths = append(paths, folder.GetPath())
	}
	for _, former := range folder.GetFormer() {
		paths = append(paths, former.GetPath())
	}
	return paths
}

// goOn emits the record by which a folder's entries are visited from one on.
func (f *Files) goOn(ctx goka.Context, folder *tidemarkv1.FileState, from string) {
	e := &tidemarkv1.Event{
		Event: walkEvent, EventId: fmt.Sprintf("%s/%d", walkEvent, file.FoldCount(folder)), WorkspaceId: folder.GetWorkspaceId(),
		FileId: folder.GetFileId(), ReceivedAt: folder.GetCause().GetTime().GetArrived(),
	}
	f.emitEvent(ctx, e, codecs.AppendDerived(nil, e), topology.HeaderWalk, fmt.Sprintf("%d %s", folder.GetInheritable().GetStamp(), from))
}

// walkEvent is the event of a record that goes on with the entries of a folder. It has no meaning for a file, and no notice.
const walkEvent = "tidemark_folder_walk"

func (f *Files) emitEvent(ctx goka.Context, e *tidemarkv1.Event, value []byte, mark, says string) {
	headers := goka.Headers{
		topology.HeaderEventID: []byte(e.GetEventId()), topology.HeaderEventType: []byte(e.GetEvent()),
		topology.HeaderFileID: []byte(e.GetFileId()), mark: []byte(says),
	}
	ctx.Emit(goka.Stream(f.conf.Streams.Events.Name), e.GetWorkspaceId(), value, goka.WithCtxEmitHeaders(headers))
}

// walk is the callback of such a record: a step, unless the folder's entries are visited from the beginning once more.
func (f *Files) walk(ctx goka.Context, a *arrival, at *tidemarkv1.Position) {
	folder, _ := ctx.Value().(*tidemarkv1.FileState)
	after := file.ApplyWalk(folder, at, f.logID)
	if after == nil {
		f.metrics.folded.applied.Inc()
		return
	}
	stamp, from, _ := strings.Cut(a.walk, " ")
	if stamp == fmt.Sprint(folder.GetInheritable().GetStamp()) && !f.conf.TableOnly {
		if err := f.step(ctx, f.family(ctx, folder.GetWorkspaceId()), folder, from); err != nil {
			ctx.Fail(err)
			return
		}
	}
	setRow(ctx, folder, after)
}

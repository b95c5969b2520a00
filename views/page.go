package views

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// maxPageBytes ends a page early when its rows are unusually large; the cursor goes on from there.
const maxPageBytes = 4 << 20

// The values of status.
const (
	statusActive  = "active"
	statusTrashed = "trashed"
	statusAll     = "all"
)

// The values of kind.
const (
	kindFile   = "file"
	kindFolder = "folder"
	kindAll    = "all"
)

// parts are those of the index that a listing reads, by the values of kind and status.
var parts = map[string]map[string][]byte{
	kindFile:   {statusActive: {active}, statusTrashed: {trashed}, statusAll: {active, trashed}},
	kindFolder: {statusActive: {activeFolder}, statusTrashed: {trashedFolder}, statusAll: {activeFolder, trashedFolder}},
	kindAll: {
		statusActive: {active, activeFolder}, statusTrashed: {trashed, trashedFolder},
		statusAll: {active, trashed, activeFolder, trashedFolder},
	},
}

// A page is one answer of a listing.
type page struct {
	files []byte // JSON array elements, with commas
	count int
	next  []byte // of the cursor; nil at the end
	steps int    // entries looked at, so that a test can hold us to "a page costs what it returns"
}

// list returns the first limit files of the query after the position.
func list(s *localstore.Store, partition int32, q query, from []byte, limit int) (page, error) {
	var p page
	scans, err := openScans(s, partition, q, from)
	defer func() { scans.close() }()
	for err == nil {
		scan := scans.least()
		if scan == nil {
			p.next = nil
			return p, nil
		}
		p.steps++
		if p.count == limit || len(p.files) > maxPageBytes {
			return p, nil // there is more, and next says from where
		}
		var moved bool
		if moved, err = p.add(s, partition, q, scan); err != nil {
			break
		}
		if !moved {
			err = scan.move()
			continue
		}
		// The scans show a moment just past, and the file has left its place since. Look from here on at the present, so that
		// a file which only moved further on is not missed.
		here := bytes.Clone(scan.tail)
		scans.close()
		scans, err = openScans(s, partition, q, here)
	}
	return p, err
}

// add appends the file that the scan stands at; moved says that it does not belong there any more.
func (p *page) add(s *localstore.Store, partition int32, q query, scan *partScan) (moved bool, err error) {
	if p.count > 0 && bytes.Equal(scan.tail, p.next) {
		return false, nil // trashed or restored since, so that the scans were opened anew where it stood: it is in the other one
	}
	file := string(scan.tail)
	if q.byPath() {
		var ok bool
		if file, ok = cutFile(scan.tail); !ok {
			return false, nil // no key of ours
		}
	}
	value, err := s.Get(partition, localstore.Rows, []byte(tidemarkv1.JoinKey(q.workspace, file)))
	if err != nil || value == nil {
		return value == nil, err
	}
	var row tidemarkv1.FileState
	if err := proto.Unmarshal(value, &row); err != nil {
		return false, err
	}
	if part := partOf(&row); part != scan.part && !slices.Contains(parts[q.kind][q.status], part) {
		return true, nil
	}
	if q.byPath() && !bytes.Equal(appendPathAndFile(nil, row.GetPath(), file), scan.tail) {
		return true, nil
	}
	if p.count > 0 {
		p.files = append(p.files, ',')
	}
	p.files = codecs.AppendFile(p.files, &row)
	p.count++
	p.next = bytes.Clone(scan.tail)
	return false, nil
}

// A partScan walks the index entries of one part.
type partScan struct {
	scan *localstore.Scan
	part byte
	head int    // length of workspace and part in a key
	tail []byte // of the current key; nil past the end
}

// partScans are those of one page.
type partScans []*partScan

func openScans(s *localstore.Store, partition int32, q query, from []byte) (partScans, error) {
	var scans partScans
	workspace := tidemarkv1.EscapePart(q.workspace)
	for _, part := range parts[q.kind][q.status] {
		space, begin := byID, indexPrefix(workspace, part)
		head := len(begin)
		if q.byPath() {
			space, begin = byPath, appendPath(begin, q.prefix)
		}
		end := localstore.PrefixEnd(begin)
		if from != nil {
			begin = after(append(indexPrefix(workspace, part), from...))
		}
		scan := &partScan{part: part, head: head}
		if len(scans) == 0 {
			scan.scan = s.Scan(partition, space, begin, end)
		} else { // of the same moment, or a file trashed or restored between two openings would be in neither
			scan.scan = scans[0].scan.SameSnapshot(partition, space, begin, end)
		}
		scans = append(scans, scan)
		if err := scan.move(); err != nil {
			return scans, err
		}
	}
	return scans, nil
}

// move steps to the next entry.
func (s *partScan) move() error {
	s.tail = nil
	if !s.scan.Next() {
		return s.scan.Err()
	}
	s.tail = s.scan.Key()[s.head:]
	return nil
}

// least returns the scan that stands at the smallest entry, nil when all are past their end.
func (all partScans) least() *partScan {
	var least *partScan
	for _, s := range all {
		if s.tail != nil && (least == nil || bytes.Compare(s.tail, least.tail) < 0) {
			least = s
		}
	}
	return least
}

// close ends the scans; what could fail was told by move.
func (all partScans) close() {
	for _, s := range all {
		_ = s.scan.Close()
	}
}

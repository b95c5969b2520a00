package views

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// maxPageBytes ends a page before its limit when rows are unusually large.
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

// parts are the index parts of a listing, by kind and status.
var parts = map[string]map[string][]byte{
	kindFile: {statusActive: {active}, statusTrashed: {trashed}, statusAll: {active, trashed}},
	kindFolder: {
		statusActive: {activeFolder}, statusTrashed: {trashedFolder}, statusAll: {activeFolder, trashedFolder},
	},
	kindAll: {
		statusActive: {active, activeFolder}, statusTrashed: {trashed, trashedFolder},
		statusAll: {active, trashed, activeFolder, trashedFolder},
	},
}

// A page is the result of a listing.
type page struct {
	files []byte // JSON array elements, with commas
	count int
	next  []byte // position for the cursor; nil at the end
}

// list returns the first limit files of the query after the position.
func list(s *localstore.Store, partition int32, q query, from []byte, limit int) (page, error) {
	var p page
	scans, err := openScans(s, partition, q, from)
	defer func() { scans.close() }()
	for err == nil {
		scan := scans.smallest()
		if scan == nil {
			p.next = nil
			return p, nil
		}
		if p.count == limit || len(p.files) > maxPageBytes {
			return p, nil // there is more after next
		}
		var moved bool
		if moved, err = p.add(s, partition, q, scan); err != nil {
			break
		}
		if !moved {
			err = scan.move()
			continue
		}
		// The scans are of a snapshot of the index, and the file has left its place since. Continue from here with a
		// new snapshot, so that a file which moved forward is not missed.
		here := bytes.Clone(scan.tail)
		scans.close()
		scans, err = openScans(s, partition, q, here)
	}
	return p, err
}

// add appends the file of the scan's current entry; moved reports that the file has left this place in the index.
func (p *page) add(s *localstore.Store, partition int32, q query, scan *partScan) (moved bool, err error) {
	if p.count > 0 && bytes.Equal(scan.tail, p.next) {
		return false, nil // added from another part before it was trashed or restored
	}
	file := string(scan.tail)
	if q.byPath() {
		var ok bool
		if file, ok = cutFile(scan.tail); !ok {
			return false, nil // not a valid key
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

// A partScan iterates over the index entries of one part.
type partScan struct {
	scan *localstore.Scan
	part byte
	head int    // length of workspace and part in a key
	tail []byte // of the current key; nil past the end
}

// partScans are the scans of one page.
type partScans []*partScan

func openScans(s *localstore.Store, partition int32, q query, from []byte) (partScans, error) {
	return openParts(s, partition, q, parts[q.kind][q.status], from)
}

// openParts opens scans of these parts, whatever kind and status the query has.
func openParts(s *localstore.Store, partition int32, q query, parts, from []byte) (partScans, error) {
	var scans partScans
	workspace := tidemarkv1.EscapePart(q.workspace)
	for _, part := range parts {
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
		} else { // of the same snapshot, or a file that is trashed or restored in between could be in none
			scan.scan = scans[0].scan.SameSnapshot(partition, space, begin, end)
		}
		scans = append(scans, scan)
		if err := scan.move(); err != nil {
			return scans, err
		}
	}
	return scans, nil
}

// move advances to the next entry.
func (s *partScan) move() error {
	s.tail = nil
	if !s.scan.Next() {
		return s.scan.Err()
	}
	s.tail = s.scan.Key()[s.head:]
	return nil
}

// smallest returns the scan whose current entry is the smallest, nil when all are past their end.
func (all partScans) smallest() *partScan {
	var smallest *partScan
	for _, s := range all {
		if s.tail != nil && (smallest == nil || bytes.Compare(s.tail, smallest.tail) < 0) {
			smallest = s
		}
	}
	return smallest
}

// close ends the scans; their errors were returned by move.
func (all partScans) close() {
	for _, s := range all {
		_ = s.scan.Close()
	}
}

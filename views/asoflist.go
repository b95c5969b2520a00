package views

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/history"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// everyPart are the parts of byID with all rows of a workspace. A row is never removed, so each file that ever existed
// is in one of them.
var everyPart = []byte{active, trashed, activeFolder, trashedFolder, unlisted}

// maxPastRows is how many rows a page as of an earlier position reads: files that are not in the listing cost as much
// as those that are.
const maxPastRows = 5_000

// listFilesAsOf answers a page of a listing as of an earlier position, by file id. A cursor has the position, so that
// all pages of a listing as of a time are of one.
func (s *Server) listFilesAsOf(c *call, q query, limit int) (*answer, error) {
	q.asOf = c.query.Get("as_of")
	from := listCursor{topic: hashTopic(s.files.logID.Load())}
	var err error
	if cursor := c.query.Get("cursor"); cursor != "" {
		if from, err = q.decodeListCursor(cursor); err != nil {
			return nil, badCursor("as_of, status, kind and path_prefix")
		}
		if from.topic != hashTopic(s.files.logID.Load()) {
			return nil, s.expired(c, "the events topic was recreated", false)
		}
		s.setAsOf(c, from.began)
	} else if from.began, err = s.parseAsOf(c); err != nil {
		return nil, err
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	var p page
	if err := s.readHistory(c, from.began, func(h *history.Snapshot) (missing string, err error) {
		p = page{}
		err = s.files.read(func(store *localstore.Store) error {
			missing, err = s.listAsOf(store, h, q, from, limit, &p)
			return err
		})
		return missing, err
	}); err != nil {
		return nil, err
	}
	if p.count == 0 && from.tail == nil {
		if err := s.checkExists(c, s.partition(c.workspace)); err != nil {
			return nil, err
		}
	}
	if p.next == nil {
		return pageOf(p.files, "", nil), nil
	}
	from.tail = p.next
	return pageOf(p.files, q.encodeListCursor(from), nil), nil
}

// listAsOf reads the page after a cursor. It returns the file whose state is not known yet.
func (s *Server) listAsOf(store *localstore.Store, h *history.Snapshot, q query, from listCursor, limit int, p *page) (
	missing string, err error,
) {
	partition := s.partition(q.workspace)
	scans, err := openParts(store, partition, q, everyPart, from.tail)
	defer func() { scans.close() }()
	if err != nil {
		return "", err
	}
	for rows := 0; ; rows++ {
		scan := scans.smallest()
		if scan == nil {
			p.next = nil
			return "", nil
		}
		if p.count == limit || len(p.files) > maxPageBytes || rows == maxPastRows {
			return "", nil // there may be more after next
		}
		file := string(scan.tail)
		value, err := scans[0].scan.Get(partition, localstore.Rows, []byte(tidemarkv1.JoinKey(q.workspace, file)))
		if err != nil {
			return "", err
		}
		var row tidemarkv1.FileState
		if err := proto.Unmarshal(value, &row); err != nil {
			return "", err
		}
		state, known, err := s.stateAt(h, &row, from.began)
		if err != nil {
			return "", err
		}
		if !known {
			return file, nil
		}
		if state != nil && q.includes(state) {
			if p.count > 0 {
				p.files = append(p.files, ',')
			}
			p.files = codecs.AppendFile(p.files, state)
			p.count++
		}
		p.next = bytes.Clone(scan.tail)
		if err := scan.move(); err != nil {
			return "", err
		}
	}
}

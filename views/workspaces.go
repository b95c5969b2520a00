package views

import (
	"bytes"
	"encoding/base64"
	"slices"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// listWorkspaces answers a page of the workspaces that the request's token is for.
func (s *Server) listWorkspaces(c *call) (*answer, error) {
	_, limit, err := parsePage(c)
	if err != nil {
		return nil, err
	}
	var from []byte
	if cursor := c.query.Get("cursor"); cursor != "" {
		if from, err = decodeWorkspace(cursor); err != nil {
			return nil, badCursor("and no other parameter")
		}
	}
	a, err := s.gather(c, func() ([]byte, error) { return s.workspacesHere(c, from, limit) },
		func(parts []part) ([]byte, error) { return s.mergeWorkspaces(parts, limit) })
	if err == nil {
		a.etag = tagOf(a.body)
	}
	return a, err
}

// workspacesHere returns a page of the workspaces whose partitions are held here.
func (s *Server) workspacesHere(c *call, from []byte, limit int) ([]byte, error) {
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	keys, all, err := s.workspacesOf(c)
	if err != nil {
		return nil, err
	}
	var rows [][]byte
	if err := s.workspaces.read(func(store *localstore.Store) (err error) {
		if all {
			rows, err = scanWorkspaces(store, c.held.numbers, from, limit+1)
		} else {
			rows, err = s.getWorkspaces(store, keys, c.held.numbers, from, limit+1)
		}
		return err
	}); err != nil {
		return nil, err
	}
	return workspacesPage(rows, limit)
}

// workspacesOf returns the keys of the workspaces that the request's token is for, in order, or that it is for all.
// Without tokens it is for all. With tokens and without Config.Workspaces that is not known, and there are none.
func (s *Server) workspacesOf(c *call) (keys [][]byte, all bool, err error) {
	switch {
	case s.conf.Authorize == nil:
		return nil, true, nil
	case s.conf.Workspaces == nil:
		return nil, false, nil
	}
	ids, all, err := s.conf.Workspaces(c.request)
	for _, id := range ids {
		keys = append(keys, []byte(tidemarkv1.JoinKey(id, "")))
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), all, err
}

// getWorkspaces returns the first rows of these keys after from, if they are in one of the partitions.
func (s *Server) getWorkspaces(
	store *localstore.Store, keys [][]byte, partitions []int32, from []byte, limit int,
) (rows [][]byte, err error) {
	for _, key := range keys {
		if len(rows) == limit {
			break
		}
		if from != nil && bytes.Compare(key, from) <= 0 {
			continue
		}
		id, _, err := tidemarkv1.SplitKey(string(key))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(partitions, s.partition(id)) {
			continue
		}
		switch value, err := store.Get(s.partition(id), localstore.Rows, key); {
		case err != nil:
			return nil, err
		case value != nil:
			rows = append(rows, value)
		}
	}
	return rows, nil
}

// scanWorkspaces returns the first rows after from, in the order of keys. Each partition is in that order.
func scanWorkspaces(store *localstore.Store, partitions []int32, from []byte, limit int) (rows [][]byte, err error) {
	var begin []byte
	if from != nil {
		begin = after(from)
	}
	var scans partScans
	defer func() { scans.close() }()
	for _, p := range partitions {
		scan := &partScan{}
		if len(scans) == 0 {
			scan.scan = store.Scan(p, localstore.Rows, begin, nil)
		} else {
			scan.scan = scans[0].scan.SameSnapshot(p, localstore.Rows, begin, nil)
		}
		scans = append(scans, scan)
		if err := scan.move(); err != nil {
			return nil, err
		}
	}
	for len(rows) < limit {
		scan := scans.smallest()
		if scan == nil {
			break
		}
		rows = append(rows, bytes.Clone(scan.scan.Value()))
		if err := scan.move(); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// workspacesPage encodes the first limit rows. A further row says that there is a next page.
func workspacesPage(rows [][]byte, limit int) ([]byte, error) {
	body, cursor := []byte(`{"workspaces":[`), "null"
	for i, value := range rows[:min(len(rows), limit)] {
		var row tidemarkv1.WorkspaceState
		if err := proto.Unmarshal(value, &row); err != nil {
			return nil, err
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = codecs.AppendWorkspaceCounts(body, &row)
		if i == limit-1 && len(rows) > limit {
			cursor = `"` + encodeWorkspace(tidemarkv1.JoinKey(row.GetWorkspaceId(), "")) + `"`
		}
	}
	return append(append(append(body, `],"next_cursor":`...), cursor...), '}'), nil
}

// ofWorkspaces is the query of a listing of workspaces, for the checksum of its cursors.
var ofWorkspaces = query{kind: "workspaces"}

func encodeWorkspace(key string) string {
	return base64.RawURLEncoding.EncodeToString(append(ofWorkspaces.sum([]byte(key)), key...))
}

// decodeWorkspace returns the key of the last workspace of the page before.
func decodeWorkspace(cursor string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) <= sumSize || len(cursor) > maxCursor ||
		!bytes.Equal(b[:sumSize], ofWorkspaces.sum(b[sumSize:])) {
		return nil, errBadCursor
	}
	return b[sumSize:], nil
}

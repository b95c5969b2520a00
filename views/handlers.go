package views

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// begin refuses what cannot be answered truly, waits for at_least, and notes how old the answer will be: before anything is
// read, so that the age told is never less than the true one.
func (s *Server) begin(c *call, key string, enough func(want *tidemarkv1.Position) (bool, error)) error {
	b, err := parseBarrier(c.query)
	if err != nil {
		return err
	}
	c.until = time.Now().Add(b.wait)
	for _, t := range []*table{s.files, s.workspaces} {
		if !t.complete() {
			return &problem{
				status: http.StatusServiceUnavailable, code: codeRecovering, retryAfter: 1,
				detail: fmt.Sprintf("the local copy of the %s table is still being read: try again shortly", t.name),
			}
		}
	}
	if err := s.await(c.ctx, b, []*table{c.table}, key, enough); err != nil {
		return err
	}
	c.lag, c.lagKnown = s.lagFor(c)
	return s.fresh(c)
}

// fresh refuses an answer that is older than the operator allows.
func (s *Server) fresh(c *call) error {
	if limit := s.conf.MaxStaleness; limit > 0 && c.lagKnown && c.lag > limit {
		return &problem{
			status: http.StatusServiceUnavailable, code: codeStale, retryAfter: 5,
			detail: fmt.Sprintf("the answer would be %s old, and at most %s is allowed: see /v1/status", c.lag.Round(time.Second), limit),
		}
	}
	return nil
}

// row reads and decodes a row; false when there is none.
func (s *Server) row(t *table, workspace, file string, into proto.Message) (bool, error) {
	var value []byte
	err := t.read(func(store *localstore.Store) (err error) {
		value, err = store.Get(s.partition(workspace), localstore.Rows, []byte(tidemarkv1.JoinKey(workspace, file)))
		return err
	})
	if err != nil || value == nil {
		return false, err
	}
	return true, proto.Unmarshal(value, into)
}

func (s *Server) getWorkspace(c *call) (*answer, error) {
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	var row tidemarkv1.WorkspaceState
	found, err := s.row(s.workspaces, c.workspace, "", &row)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, unknownWorkspace()
	}
	return &answer{body: codecs.AppendWorkspace(nil, &row)}, nil
}

func unknownWorkspace() error {
	return &problem{
		status: http.StatusNotFound, code: codeUnknownWorkspace,
		detail: "no event of this workspace was seen: check the id, or wait for its first event with at_least",
	}
}

func (s *Server) getFile(c *call) (*answer, error) {
	// The row alone decides when it bears the position: all earlier events of the file are folded into it.
	enough := func(want *tidemarkv1.Position) (bool, error) {
		var row tidemarkv1.FileState
		found, err := s.row(s.files, c.workspace, c.file, &row)
		logID := s.files.logID.Load()
		p := row.GetPosition()
		return found && logID != nil && row.GetLogId() == *logID &&
			p.GetPartition() == want.GetPartition() && p.GetOffset() >= want.GetOffset(), err
	}
	if err := s.begin(c, tidemarkv1.JoinKey(c.workspace, c.file), enough); err != nil {
		return nil, err
	}
	var row tidemarkv1.FileState
	found, err := s.row(s.files, c.workspace, c.file, &row)
	if err != nil {
		return nil, err
	}
	if !found || partOf(&row) == 0 {
		return nil, &problem{
			status: http.StatusNotFound, code: codeUnknownFile,
			detail: "no event of this file was seen, or it was erased: check both ids, or wait for its first event with at_least",
		}
	}
	etag := strconv.Quote(strconv.FormatInt(row.GetVersion(), 10))
	if matches(c.header.Values("If-None-Match"), etag) {
		return &answer{status: http.StatusNotModified, etag: etag}, nil
	}
	return &answer{etag: etag, body: codecs.AppendFile(nil, &row)}, nil
}

// matches compares entity tags weakly, as If-None-Match wants it.
func matches(headers []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == "*" || tag == etag {
			return true
		}
	}
	return false
}

func (s *Server) listFiles(c *call) (*answer, error) {
	q, from, limit, err := parseListing(c)
	if err != nil {
		return nil, err
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	var p page
	partition := s.partition(c.workspace)
	if err := s.files.read(func(store *localstore.Store) (err error) {
		p, err = list(store, partition, q, from, limit)
		return err
	}); err != nil {
		return nil, err
	}
	if p.count == 0 {
		if err := s.mustKnow(c, partition); err != nil {
			return nil, err
		}
	}
	body := append(append([]byte(`{"files":[`), p.files...), `],"next_cursor":`...)
	if p.next == nil {
		body = append(body, "null}"...)
	} else {
		body = append(strconv.AppendQuote(body, q.encodeCursor(p.next)), '}')
	}
	return &answer{body: body}, nil
}

// mustKnow refuses a workspace of which no event left a trace. That there is none takes both copies to know, so the barrier and the
// age of that answer are those of the other one too.
func (s *Server) mustKnow(c *call, partition int32) error {
	known, err := s.knows(c, partition)
	if err != nil || known {
		return err
	}
	b, err := parseBarrier(c.query)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(c.ctx, c.until) // what is left of the wait
	defer cancel()
	if err := s.await(ctx, b, []*table{s.workspaces}, "", nil); err != nil {
		return err
	}
	if l, ok := s.progress.lag(s.workspaces, partition, time.Now()); ok {
		c.lag = max(c.lag, l.age)
	}
	if err := s.fresh(c); err != nil {
		return err
	}
	if known, err = s.knows(c, partition); err == nil && !known {
		err = unknownWorkspace()
	}
	return err
}

// knows reports whether any event of the workspace left a trace.
func (s *Server) knows(c *call, partition int32) (known bool, err error) {
	key := []byte(tidemarkv1.JoinKey(c.workspace, ""))
	if err := s.workspaces.read(func(store *localstore.Store) error {
		value, err := store.Get(partition, localstore.Rows, key)
		known = value != nil
		return err
	}); err != nil || known {
		return known, err
	}
	prefix := append(key, '/')
	err = s.files.read(func(store *localstore.Store) error {
		scan := store.Scan(partition, localstore.Rows, prefix, localstore.PrefixEnd(prefix))
		defer scan.Close() //nolint:errcheck // what could fail is told by Err
		known = scan.Next()
		return scan.Err()
	})
	return known, err
}

// parseListing reads the parameters of a listing.
func parseListing(c *call) (q query, from []byte, limit int, err error) {
	bad := func(field, detail string) error {
		return &problem{status: http.StatusBadRequest, code: codeBadField, field: field, detail: detail}
	}
	q = query{workspace: c.workspace, status: statusActive, kind: kindFile, prefix: c.query.Get("path_prefix")}
	if c.query.Has("status") {
		q.status = c.query.Get("status")
		if !slices.Contains([]string{statusActive, statusTrashed, statusAll}, q.status) {
			return q, nil, 0, bad("status", "status must be active, trashed or all")
		}
	}
	if c.query.Has("kind") {
		q.kind = c.query.Get("kind")
		if parts[q.kind] == nil {
			return q, nil, 0, bad("kind", "kind must be file, folder or all")
		}
	}
	limit = defaultLimit
	if c.query.Has("limit") {
		text := c.query.Get("limit")
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit || strconv.Itoa(limit) != text {
			return q, nil, 0, bad("limit", fmt.Sprintf("limit must be a whole number from 1 to %d", maxLimit))
		}
	}
	if cursor := c.query.Get("cursor"); cursor != "" {
		if from, err = q.decodeCursor(cursor); err != nil {
			return q, nil, 0, badCursor()
		}
	}
	return q, from, limit, nil
}

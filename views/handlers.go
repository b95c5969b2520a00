package views

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// begin refuses the call while a copy is incomplete or too old, and waits for at_least. It sets the call's lag before
// anything is read, so that the age in the answer is never too low.
func (s *Server) begin(c *call, key string, enough reachedFunc) error {
	c.until = time.Now().Add(c.barrier.wait)
	for _, t := range []*table{s.files, s.workspaces} {
		if c.workspace == "" && !t.complete() || c.workspace != "" && !t.completePartition(s.partition(c.workspace)) {
			return recovering(t)
		}
	}
	if err := s.await(c.request.Context(), c, []*coverage{c.coverage}, key, enough); err != nil {
		return err
	}
	if !c.reached { // else enough has set the lag before it read the row
		c.lag, c.lagKnown = s.lagFor(c)
	}
	return s.checkAge(c)
}

func recovering(t *table) *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, codeRecovering, "the local copy of the "+t.name+
		" table is still being read: try again shortly").Retry(time.Second)
}

// checkAge refuses an answer that is older than the operator allows.
func (s *Server) checkAge(c *call) error {
	if limit := s.conf.MaxStaleness; limit > 0 && c.lagKnown && c.lag > limit {
		return problem.New(http.StatusServiceUnavailable, codeStale, fmt.Sprintf("the answer would be %s old, "+
			"and at most %s is allowed: see /v1/status", c.lag.Round(time.Second), limit)).Retry(5 * time.Second)
	}
	return nil
}

// row reads and decodes a row; false when there is none.
func (s *Server) row(t *table, workspace, file string, into proto.Message) (bool, error) {
	found := false
	err := t.read(func(store *localstore.Store) (err error) {
		key := []byte(tidemarkv1.JoinKey(workspace, file))
		found, err = store.Read(s.partition(workspace), localstore.Rows, key, func(value []byte) error {
			return proto.Unmarshal(value, into) // which copies what it keeps
		})
		return err
	})
	return found, err
}

func (s *Server) getWorkspace(c *call) (*answer, error) {
	if asked, err := s.checkAsOf(c); err != nil {
		return nil, err
	} else if asked {
		return s.getWorkspaceAsOf(c)
	}
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
	return withTag(codecs.AppendWorkspace(nil, &row)), nil
}

func unknownWorkspace() error {
	return problem.New(http.StatusNotFound, codeUnknownWorkspace,
		"no event of this workspace was seen: check the id, or wait for its first event with at_least")
}

func (s *Server) getFile(c *call) (*answer, error) {
	if asked, err := s.checkAsOf(c); err != nil {
		return nil, err
	} else if asked {
		return s.getFileAsOf(c)
	}
	row, err := s.readFile(c)
	if err != nil {
		return nil, err
	}
	return fileAnswer(row), nil
}

// readFile reads the row of the call's file, once it includes the barrier's position.
func (s *Server) readFile(c *call) (*tidemarkv1.FileState, error) {
	var row tidemarkv1.FileState
	var found bool
	// A row with the position is enough: all earlier events of the file are folded into it.
	enough := func(want *tidemarkv1.Position) (reached bool, err error) {
		lag, known := s.lagFor(c)
		found, err = s.row(s.files, c.workspace, c.file, &row)
		logID := s.files.logID.Load()
		p := row.GetPosition()
		c.reached = err == nil && found && logID != nil && row.GetLogId() == *logID &&
			p.GetPartition() == want.GetPartition() && p.GetOffset() >= want.GetOffset()
		if c.reached {
			c.lag, c.lagKnown = lag, known
		}
		return c.reached, err
	}
	err := s.begin(c, tidemarkv1.JoinKey(c.workspace, c.file), enough)
	if err == nil && !c.reached {
		found, err = s.row(s.files, c.workspace, c.file, &row)
	}
	if err != nil {
		return nil, err
	}
	if !found || partOf(&row) == 0 {
		return nil, problem.New(http.StatusNotFound, codeUnknownFile,
			"no event of this file was seen, or it was erased: check both ids, "+
				"or wait for its first event with at_least")
	}
	return &row, nil
}

// fileAnswer returns the answer of a file in a state. It is never compressed: the tag of a compressed form would be
// weak, and clients compare the tag of a file with its version.
func fileAnswer(state *tidemarkv1.FileState) *answer {
	etag := strconv.Quote(strconv.FormatInt(state.GetVersion(), 10))
	return &answer{etag: etag, plain: true, body: codecs.AppendFile(make([]byte, 0, usualFile), state)}
}

// usualFile is more than the length of most files as JSON.
const usualFile = 1024

func (s *Server) listFiles(c *call) (*answer, error) {
	q, limit, err := parseQuery(c)
	if err != nil {
		return nil, err
	}
	if asked, err := s.checkAsOf(c); err != nil {
		return nil, err
	} else if asked {
		return s.listFilesAsOf(c, q, limit)
	}
	var from listCursor
	if cursor := c.query.Get("cursor"); cursor != "" {
		if from, err = q.decodeListCursor(cursor); err != nil {
			return nil, badCursor("status, kind and path_prefix")
		}
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	partition := s.partition(c.workspace)
	if from, err = s.startOfListing(c, from); err != nil {
		return nil, err
	}
	var p page
	if err := s.files.read(func(store *localstore.Store) (err error) {
		if from.topic != hashTopic(s.files.topicID.Load()) {
			return errStoreNotReady
		}
		if p, err = list(store, partition, q, from.tail, limit); err != nil {
			return err
		}
		copied, err := nextOffset(store, partition) // after the page was read
		if err == nil && copied < from.began {
			err = errStoreNotReady
		}
		from.copied = max(from.copied, copied)
		return err
	}); err != nil {
		return nil, err
	}
	if p.count == 0 {
		if err := s.checkExists(c, partition); err != nil {
			return nil, err
		}
	}
	if p.next != nil {
		from.tail = p.next
		return pageOf(p.files, q.encodeListCursor(from), nil), nil
	}
	changes := changesCursor{topic: from.topic, next: from.began, copied: from.copied, nextEvent: unknown}
	changes = s.issue(changes, unknown)
	rest, _ := json.Marshal(struct { // a text and a time can always be encoded
		Cursor    string    `json:"changes_cursor"`
		ExpiresAt time.Time `json:"expires_at"`
	}{q.encodeChangesCursor(changes), s.expiresAt(changes)})
	return pageOf(p.files, "", rest), nil
}

// startOfListing returns where a page begins. All pages are read from copies that have read at least what that of the
// first page had: its offset is where the changes continue.
func (s *Server) startOfListing(c *call, from listCursor) (listCursor, error) {
	topic := hashTopic(s.files.topicID.Load())
	switch next, _ := s.files.frontiers[s.partition(c.workspace)].offsets(); {
	case next == unknown:
		return from, errStoreNotReady
	case from.tail == nil:
		return listCursor{topic: topic, began: next}, nil
	case from.topic != topic:
		return from, s.expired(c, "the files table was recreated", false)
	}
	return from, s.awaitRecord(c, s.partition(c.workspace), from.began)
}

// pageOf returns the answer of a page. The last one has no next cursor. Only that of a listing has more, which is a
// JSON object.
func pageOf(files []byte, next string, more []byte) *answer {
	body := append(append([]byte(`{"files":[`), files...), `],"next_cursor":`...)
	if next == "" {
		body = append(body, "null"...)
	} else {
		quoted, _ := json.Marshal(next) // a string can always be encoded
		body = append(body, quoted...)
	}
	if more != nil {
		return &answer{body: append(append(body, ','), more[1:]...)}
	}
	return &answer{body: append(body, '}')}
}

// checkExists refuses a workspace without a row in either copy. That takes both copies to decide, so the barrier and
// the age of the answer cover the workspaces table too.
func (s *Server) checkExists(c *call, partition int32) error {
	exists, err := s.exists(c, partition)
	if err != nil || exists {
		return err
	}
	ctx, cancel := context.WithDeadline(c.request.Context(), c.until) // the rest of the wait
	defer cancel()
	if err := s.await(ctx, c, []*coverage{&s.workspaces.coverage}, "", nil); err != nil {
		return err
	}
	if l, ok := s.progress.lag(&s.workspaces.coverage, partition, time.Now()); ok {
		c.lag = max(c.lag, l.age)
	}
	if err := s.checkAge(c); err != nil {
		return err
	}
	if exists, err = s.exists(c, partition); err == nil && !exists {
		err = unknownWorkspace()
	}
	return err
}

// exists reports whether the workspace has a row in either copy.
func (s *Server) exists(c *call, partition int32) (exists bool, err error) {
	key := []byte(tidemarkv1.JoinKey(c.workspace, ""))
	if err := s.workspaces.read(func(store *localstore.Store) error {
		value, err := store.Get(partition, localstore.Rows, key)
		exists = value != nil
		return err
	}); err != nil || exists {
		return exists, err
	}
	prefix := append(key, '/')
	err = s.files.read(func(store *localstore.Store) error {
		scan := store.Scan(partition, localstore.Rows, prefix, localstore.PrefixEnd(prefix))
		defer scan.Close() //nolint:errcheck // Err returns its errors
		exists = scan.Next()
		return scan.Err()
	})
	return exists, err
}

// parseQuery parses the parameters of listings and changes, without the cursor.
func parseQuery(c *call) (q query, limit int, err error) {
	q = query{workspace: c.workspace, kind: kindFile, prefix: c.query.Get("path_prefix")}
	if q.status, limit, err = parsePage(c); err != nil {
		return q, 0, err
	}
	if c.query.Has("kind") {
		q.kind = c.query.Get("kind")
		if parts[q.kind] == nil {
			return q, 0, badField("kind", "kind must be file, folder or all")
		}
	}
	return q, limit, nil
}

// parsePage parses the parameters that all pages of files have.
func parsePage(c *call) (status string, limit int, err error) {
	status, limit = statusActive, defaultLimit
	if c.query.Has("status") {
		status = c.query.Get("status")
		if !slices.Contains([]string{statusActive, statusTrashed, statusAll}, status) {
			return "", 0, badField("status", "status must be active, trashed or all")
		}
	}
	if c.query.Has("limit") {
		text := c.query.Get("limit")
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit || strconv.Itoa(limit) != text {
			return "", 0, badField("limit", fmt.Sprintf("limit must be a whole number from 1 to %d", maxLimit))
		}
	}
	return status, limit, nil
}

package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tidemark/kafka/localstore"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// latest is the cursor that begins with what changes from now on.
const latest = "latest"

// getChanges answers a page of changes, or with Accept: text/event-stream all of them as they happen.
func (s *Server) getChanges(c *call) (*answer, error) {
	c.noStore = true
	q, limit, err := parseQuery(c)
	if err != nil {
		return nil, err
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	at, err := s.startOfChanges(c, q)
	if err != nil {
		return s.expiredEvent(c, err)
	}
	if wantsEvents(c.request) {
		return s.streamChanges(c, q, at, limit), s.checkExists(c, s.partition(c.workspace))
	}
	p, err := s.pollChanges(c, q, at, limit)
	if err == nil {
		err = s.checkAge(c) // it may have waited
	}
	if err != nil {
		return nil, err
	}
	if len(p.changes) == 0 {
		if err := s.checkExists(c, s.partition(c.workspace)); err != nil {
			return nil, err
		}
	}
	return &answer{body: s.encodePage(q, p)}, nil
}

// startOfChanges returns the cursor after which the request reads, once the copy has read up to it.
func (s *Server) startOfChanges(c *call, q query) (at changesCursor, err error) {
	partition := s.partition(c.workspace)
	cursor := c.query.Get("cursor")
	if last := c.request.Header.Get("Last-Event-ID"); last != "" && wantsEvents(c.request) {
		cursor = last // a browser repeats the URL, and adds the header
	}
	if cursor == "" || cursor == latest {
		topic := hashTopic(s.files.topicID.Load())
		next, _ := s.files.frontiers[partition].offsets()
		if next == unknown {
			return at, errStoreNotReady
		}
		at = changesCursor{topic: topic, copied: next, deletes: next, nextEvent: unknown}
		if cursor == latest {
			at.next, at.deletes = next, 0
		}
		return s.issue(at, unknown), nil
	}
	if at, err = q.decodeChangesCursor(cursor); err != nil {
		return at, badChangesCursor()
	}
	switch lifetime := s.cursorLifetime(); {
	case at.topic != hashTopic(s.files.topicID.Load()):
		return at, s.expired(c, "the files table was recreated", false)
	case time.Since(time.Unix(at.issued, 0)) > lifetime:
		return at, s.expired(c, "the cursor is older than "+lifetime.String(), true)
	}
	return at, s.awaitRecord(c, partition, at.copied)
}

func (s *Server) cursorLifetime() time.Duration {
	if s.conf.CursorLifetime > 0 {
		return s.conf.CursorLifetime
	}
	return defaultCursorLifetime
}

// expiresAt returns when the cursor expires.
func (s *Server) expiresAt(at changesCursor) time.Time {
	return time.Unix(at.issued, 0).UTC().Add(s.cursorLifetime())
}

func badChangesCursor() error {
	return problem.New(http.StatusBadRequest, codeBadCursor, "use a cursor of the same workspace, status, kind and "+
		"path_prefix; or latest, for what changes from now on; or none, to start from the beginning").On("cursor")
}

// expired returns the problem of a cursor from which the changes cannot be continued. In another table the versions
// begin again, so a file of the same version may differ: a diff is offered only with sameTable.
func (s *Server) expired(c *call, why string, sameTable bool) error {
	path := c.request.URL.EscapedPath()
	workspace := path[:strings.LastIndexByte(path, '/')]
	filter := url.Values{}
	for _, name := range []string{"path_prefix", "status", "kind"} {
		if c.query.Has(name) {
			filter.Set(name, c.query.Get(name))
		}
	}
	query := ""
	if len(filter) > 0 {
		query = "?" + filter.Encode()
	}
	urls := map[string]string{"list": workspace + "/files" + query}
	advice := ": list the files again, which gives a new cursor"
	if sameTable {
		urls["diff"] = workspace + "/changes/diff" + query
		advice = ": list the files again, or POST the ids and versions that you have to the URL in resync.diff; both " +
			"give a new cursor"
	}
	return problem.New(http.StatusGone, codeCursorExpired, why+advice).On("cursor").Resync(urls)
}

// awaitRecord waits until the copy has read all records before an offset of the changelog: a cursor may be from an
// instance that has read more. It never answers an older state than the cursor's.
func (s *Server) awaitRecord(c *call, partition int32, offset int64) error {
	f := s.files.frontiers[partition]
	if next, _ := f.offsets(); next >= offset {
		return nil
	}
	topic := hashTopic(s.files.topicID.Load())
	asked := s.pastEnds.firstUse(pastEnd{topic, partition, offset})
	endsBefore := func() bool {
		return s.progress.changelogEndsBefore(partition, offset, asked.Add(endConfirmedAfter))
	}
	defer s.progress.pollFaster()()
	ctx, cancel := context.WithDeadline(c.request.Context(), c.until)
	defer cancel()
	for !endsBefore() {
		changed := f.waitRecord()
		next, _ := f.offsets()
		if next >= offset {
			c.lag, c.lagKnown = s.lagFor(c)
			return s.checkAge(c)
		}
		select {
		case <-changed:
			continue
		case <-c.term.Done():
		case <-ctx.Done():
		}
		if err := c.request.Context().Err(); err != nil {
			return err
		}
		if endsBefore() {
			break
		}
		return problem.New(http.StatusServiceUnavailable, codeNotReached, fmt.Sprintf("this instance has %d "+
			"records of the files table to read before it can continue at this cursor: try again, or raise wait "+
			"(at most 60s)", offset-next)).On("cursor").Retry(time.Second)
	}
	return s.expired(c, "the files table ends before the cursor", false)
}

// pollChanges returns the first page after a cursor. With the parameter wait it waits for a change in the query.
func (s *Server) pollChanges(c *call, q query, at changesCursor, limit int) (p changesPage, err error) {
	partition, workspace := s.partition(c.workspace), tidemarkv1.EscapePart(c.workspace)
	waits := c.query.Has("wait") && c.query.Get("cursor") != latest
	timeout := time.NewTimer(time.Until(c.until))
	defer timeout.Stop()
	for {
		wake := s.files.changes.wait(workspace) // before the read, so that no change is missed
		c.lag, c.lagKnown = s.lagFor(c)
		p, err = s.readPage(partition, q, at, limit)
		if err != nil || len(p.changes) > 0 || !waits {
			wake.cancel()
			return p, err
		}
		at = p.at
		if !p.upToDate {
			wake.cancel()
			waits = time.Now().Before(c.until)
			continue
		}
		select {
		case <-wake.changed:
		case <-timeout.C:
			waits = false // read once more, for the newest cursor
		case <-c.term.Done():
			waits = false
		case <-c.request.Context().Done():
			err = c.request.Context().Err()
		}
		wake.cancel()
		if err != nil {
			return p, err
		}
	}
}

// readPage reads a page after a cursor, as of now.
func (s *Server) readPage(partition int32, q query, at changesCursor, limit int) (p changesPage, err error) {
	next, events := s.files.frontiers[partition].offsets() // before the store is read, which has at least this much
	err = s.files.read(func(store *localstore.Store) (err error) {
		if at.topic != hashTopic(s.files.topicID.Load()) {
			return errStoreNotReady
		}
		p, err = readChanges(store, partition, q, at, next, limit)
		return err
	})
	if !p.upToDate {
		events = unknown
	} else {
		p.at.deletes = 0
	}
	p.at = s.issue(p.at, events)
	return p, err
}

// issue completes a new cursor, whose topic was read before its offsets. All events before nextEvent were read; it may
// be unknown.
func (s *Server) issue(at changesCursor, nextEvent int64) changesCursor {
	id := s.files.logID.Load()
	if log := hashTopic(id); at.log != log {
		at.log, at.nextEvent = log, unknown
	}
	if id != nil {
		at.nextEvent = max(at.nextEvent, nextEvent)
	}
	at.issued = time.Now().Unix()
	return at
}

// completeTo returns the position up to which all events were read, "" while that is not known.
func completeTo(at changesCursor, partition int32) string {
	if at.nextEvent <= 0 {
		return ""
	}
	return (&tidemarkv1.Position{Partition: partition, Offset: at.nextEvent - 1}).Text()
}

func (s *Server) encodePage(q query, p changesPage) []byte {
	body := append(make([]byte, 0, p.bytes+len(p.changes)+512), `{"changes":[`...)
	for i, change := range p.changes {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, change.json...)
	}
	rest, _ := json.Marshal(struct { // texts and a bool can always be encoded
		Cursor     string    `json:"cursor"`
		UpToDate   bool      `json:"up_to_date"`
		CompleteTo string    `json:"complete_to,omitempty"`
		ExpiresAt  time.Time `json:"expires_at"`
	}{q.encodeChangesCursor(p.at), p.upToDate, completeTo(p.at, s.partition(q.workspace)), s.expiresAt(p.at)})
	return append(append(body, "],"...), rest[1:]...)
}

func wantsEvents(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// expiredEvent returns err, to a client of server-sent events as an event if it is an expired cursor: an EventSource
// does not show the body of a refusal.
func (s *Server) expiredEvent(c *call, err error) (*answer, error) {
	p, ok := errors.AsType[*problem.Problem](err)
	if !ok || p.Code != codeCursorExpired || !wantsEvents(c.request) {
		return nil, err
	}
	body := strings.TrimSpace(string(p.Body()))
	return &answer{contentType: "text/event-stream", body: []byte("event: expired\ndata: " + body + "\n\n")}, nil
}

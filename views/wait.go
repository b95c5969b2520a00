package views

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// MaxWait is the longest that a read may wait; a server's write timeout must leave room for it.
const MaxWait = 60 * time.Second

const defaultWait = 5 * time.Second

// waitForm is also the pattern in openapi.json: whole seconds with or without "s", or milliseconds, up to MaxWait.
var waitForm = regexp.MustCompile(`^(([0-9]|[1-5][0-9]|60)s?|([0-9]{1,4}|[1-5][0-9]{4}|60000)ms)$`)

// parseWait reads the form of waitForm.
func parseWait(s string) (time.Duration, error) {
	if !waitForm.MatchString(s) {
		return 0, &problem{
			status: http.StatusBadRequest, code: codeBadField, field: "wait",
			detail: "wait must be whole seconds, such as 5 or 5s, or milliseconds, such as 500ms, and at most 60 seconds",
		}
	}
	unit := time.Second
	if strings.HasSuffix(s, "ms") {
		unit = time.Millisecond
	}
	n, err := strconv.Atoi(strings.TrimRight(s, "ms"))
	return time.Duration(n) * unit, err
}

// A barrier is what at_least and wait ask for.
type barrier struct {
	position *tidemarkv1.Position // nil: nothing
	wait     time.Duration
}

func parseBarrier(query url.Values) (barrier, error) {
	b := barrier{wait: defaultWait}
	var err error
	if query.Has("wait") {
		if b.wait, err = parseWait(query.Get("wait")); err != nil {
			return b, err
		}
	}
	if query.Has("at_least") {
		if b.position, err = tidemarkv1.ParsePosition(query.Get("at_least")); err != nil {
			return b, badPosition("at_least must be a position as the webhook endpoint answered it, for example 7:1234")
		}
	}
	return b, nil
}

func badPosition(detail string) error {
	return &problem{status: http.StatusBadRequest, code: codeBadField, field: "at_least", detail: detail}
}

// await blocks until the tables hold the barrier's position, by the rule of their frontiers, or until enough says that what
// is to be read holds it already. A position of another partition than that of the workspace asked for is waited for too:
// it is a true statement about another workspace, so refusing it would help nobody. Key is the row that enough looks at.
func (s *Server) await(ctx context.Context, b barrier, tables []*table, key string, enough func(want *tidemarkv1.Position) (bool, error)) error {
	if b.position == nil {
		return nil
	}
	partition, offset := b.position.GetPartition(), b.position.GetOffset()
	if int(partition) >= s.conf.Streams.Events.Partitions {
		return badPosition(fmt.Sprintf("there is no partition %d: partitions are 0 to %d", partition, s.conf.Streams.Events.Partitions-1))
	}
	ctx, cancel := context.WithTimeout(ctx, b.wait)
	defer cancel()
	defer s.progress.hurry()()
	checked := false // that the log reaches the offset
	for {
		row := s.files.rows.listen(key) // before looking, so that nothing is missed in between
		done, moved, err := s.look(b, tables, enough)
		if err != nil || done {
			row.close()
			return err
		}
		if !checked {
			row.close()
			if err := s.progress.reaches(ctx, s.stopping, partition, offset); err != nil {
				return s.gaveUp(ctx, b, err)
			}
			checked = true
			continue
		}
		select {
		case <-row.rung:
		case <-moved:
		case <-s.stopping:
			err = errStopping
		case <-ctx.Done():
			err = ctx.Err()
		}
		row.close()
		if err != nil {
			return s.gaveUp(ctx, b, err)
		}
	}
}

// look says whether the barrier is passed; if not, moved is closed when it is worth looking again.
func (s *Server) look(b barrier, tables []*table, enough func(want *tidemarkv1.Position) (bool, error)) (done bool, moved <-chan struct{}, err error) {
	if enough != nil {
		if done, err = enough(b.position); err != nil || done {
			return done, nil, err
		}
	}
	for _, t := range tables {
		f := t.frontiers[b.position.GetPartition()]
		moved = f.listen()
		if _, held := f.state(); held <= b.position.GetOffset() {
			return false, moved, nil
		}
	}
	return true, nil, nil
}

var errStopping = errors.New("stopping")

// gaveUp turns the end of a wait into what the client is told.
func (s *Server) gaveUp(ctx context.Context, b barrier, err error) error {
	switch {
	case errors.Is(err, errBeyondEnd):
		return badPosition(fmt.Sprintf("position %s is beyond the end of the log: use a position as the webhook endpoint answered it", b.position.Text()))
	case errors.Is(err, context.Canceled): // the client has gone
		return err
	case ctx.Err() == nil && !errors.Is(err, errStopping):
		return err
	}
	return &problem{
		status: http.StatusServiceUnavailable, code: codeNotReached, field: "at_least", retryAfter: 1,
		detail: fmt.Sprintf("position %s was not reached within %s: try again, or raise wait (at most 60s)", b.position.Text(), b.wait),
	}
}

// rowBells wakes those who wait for a row.
type rowBells struct {
	mu    sync.Mutex
	bells map[string]*rowBell
}

type rowBell struct {
	rung      chan struct{}
	listeners int
}

// A rowListener is one who waits for one row; rung is closed when a record of it was applied.
type rowListener struct {
	bells *rowBells
	key   string
	bell  *rowBell
	rung  <-chan struct{}
}

// listen begins to wait. Close what it returns.
func (r *rowBells) listen(key string) rowListener {
	if key == "" {
		return rowListener{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bells[key]
	if b == nil {
		if r.bells == nil {
			r.bells = map[string]*rowBell{}
		}
		b = &rowBell{rung: make(chan struct{})}
		r.bells[key] = b
	}
	b.listeners++
	return rowListener{bells: r, key: key, bell: b, rung: b.rung}
}

func (l rowListener) close() {
	if l.bells == nil {
		return
	}
	l.bells.mu.Lock()
	defer l.bells.mu.Unlock()
	if l.bell.listeners--; l.bell.listeners == 0 && l.bells.bells[l.key] == l.bell {
		delete(l.bells.bells, l.key)
	}
}

func (r *rowBells) ring(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.bells[key]; b != nil {
		close(b.rung)
		delete(r.bells, key)
	}
}

package views

import "sync"

// The bounds of sharedPages.
const (
	maxSharedPages = 256
	maxSharedBytes = 64 << 10 // of a page
)

// sharedPages keeps the last page of each query that was read for a stream. The streams of a query that are up to date
// wait at the same cursor, and wake at the same change: one of them reads and encodes it.
type sharedPages struct {
	mu    sync.Mutex
	pages map[sharedKey]*sharedPage
}

type sharedKey struct {
	query
	limit int
	topic topicHash
}

// A sharedPage is the page after a cursor; its lock is held while it is read.
type sharedPage struct {
	mu   sync.Mutex
	next int64 // of the cursor
	page changesPage
}

func (l *sharedPages) of(key sharedKey) *sharedPage {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pages[key]
	if p == nil {
		if len(l.pages) == maxSharedPages || l.pages == nil {
			l.pages = map[sharedKey]*sharedPage{}
		}
		p = &sharedPage{next: unknown}
		l.pages[key] = p
	}
	return p
}

// readSharedPage is readPage, or the page that another stream has read from the same cursor, if that is the newest.
// What the other client's cursor says of deletes and events is not shared: a cursor can be forged.
func (s *Server) readSharedPage(partition int32, q query, at changesCursor, limit int) (changesPage, error) {
	if at.next != at.copied { // between two pages
		return s.readPage(partition, q, at, limit)
	}
	shared := s.shared.of(sharedKey{q, limit, at.topic})
	shared.mu.Lock()
	defer shared.mu.Unlock()
	next, events := s.files.frontiers[partition].offsets()
	if p := shared.page; shared.next == at.next && p.upToDate && next != unknown && p.at.copied >= next {
		at.next, at.copied, at.deletes = p.at.next, p.at.copied, 0
		p.at = s.issue(at, events)
		return p, nil
	}
	p, err := s.readPage(partition, q, at, limit)
	if shared.next = unknown; err == nil && len(p.changes) > 0 && p.bytes <= maxSharedBytes {
		shared.next, shared.page = at.next, p
	}
	return p, err
}

package views

import "sync"

// The bounds of livePages.
const (
	maxLivePages = 256
	maxLiveBytes = 64 << 10 // of a page
)

// livePages keeps the last page of each query that was read for a stream. The streams of a query that are up to date
// wait at the same place, and wake at the same change: one of them reads and encodes it.
type livePages struct {
	mu    sync.Mutex
	pages map[liveKey]*livePage
}

type liveKey struct {
	query
	limit int
	topic topicHash
}

// A livePage is the page after a place; its lock is held while it is read.
type livePage struct {
	mu   sync.Mutex
	next int64 // of the place
	page feedPage
}

func (l *livePages) of(key liveKey) *livePage {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pages[key]
	if p == nil {
		if len(l.pages) == maxLivePages || l.pages == nil {
			l.pages = map[liveKey]*livePage{}
		}
		p = &livePage{next: unknown}
		l.pages[key] = p
	}
	return p
}

// readLivePage is readPage, or the page that another stream has read from the same place, if that is the newest. What
// the other client's cursor says of deletes and events is not shared: a cursor can be forged.
func (s *Server) readLivePage(partition int32, q query, at place, limit int) (feedPage, error) {
	if at.next != at.copied { // between two pages
		return s.readPage(partition, q, at, limit)
	}
	live := s.live.of(liveKey{q, limit, at.topic})
	live.mu.Lock()
	defer live.mu.Unlock()
	next, events := s.files.frontiers[partition].offsets()
	if p := live.page; live.next == at.next && p.upToDate && next != unknown && p.at.copied >= next {
		at.next, at.copied, at.deletes = p.at.next, p.at.copied, 0
		p.at = s.issue(at, events)
		return p, nil
	}
	p, err := s.readPage(partition, q, at, limit)
	if live.next = unknown; err == nil && len(p.changes) > 0 && p.bytes <= maxLiveBytes {
		live.next, live.page = at.next, p
	}
	return p, err
}

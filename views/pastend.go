package views

import (
	"sync"
	"time"
)

// maxPastEnds bounds what pastEnds remembers. Beyond it everything is forgotten, and clients ask once more.
const maxPastEnds = 1024

// pastEnds remembers when a cursor after the end of the copy was first used. That the files table ends before a cursor
// is known only endConfirmedAfter later, which a request with a short wait does not reach: the next one does.
type pastEnds struct {
	mu    sync.Mutex
	first map[pastEnd]time.Time
}

// A pastEnd is an offset of a partition of the files table.
type pastEnd struct {
	topic     topicHash
	partition int32
	offset    int64
}

// firstUse returns when the offset was first asked for, which may be now.
func (p *pastEnds) firstUse(of pastEnd) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.first[of]; ok {
		return at
	}
	if p.first == nil || len(p.first) == maxPastEnds {
		p.first = map[pastEnd]time.Time{}
	}
	p.first[of] = time.Now()
	return p.first[of]
}

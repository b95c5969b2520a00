package views

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The pause between two polls of the brokers: pollEvery, or pollOften while a request waits or a copy is not complete.
// There is none while a request waits for its position to be in the log: waitForEvent wakes run after each poll.
const (
	pollEvery   = 400 * time.Millisecond
	pollOften   = 40 * time.Millisecond
	pollTimeout = 5 * time.Second
	// The last response of the brokers may be this old before its age counts as that of the copies.
	silenceAfter = 2 * time.Second
)

// A snapshot has the offsets that the brokers returned in one poll, by partition; each may be unknown. The order of the
// requests matters: commits are fetched before the ends of the topics that their groups write, so that every output of
// a committed record is before those ends.
type snapshot struct {
	began time.Time

	filesCommit   []int64 // next event of the files group
	eventsStart   []int64
	eventsEnd     []int64
	eventsVisible []int64 // the end of the last record before eventsEnd that is visible to a read_committed consumer
	filesEnd      []int64 // of the files table
	notifyStart   []int64
	notifyEnd     []int64
	notifyCommit  []int64 // next notice of the workspaces group, fetched after notifyEnd
	workspacesEnd []int64 // of the workspaces table, fetched after notifyCommit

	// Only with search.
	indexStart   []int64
	indexEnd     []int64
	searchCommit []int64 // next index record of the search sink's group
}

// known reports whether the leaders of a partition returned every offset that its lag depends on.
func (s snapshot) known(i int) bool {
	return s.eventsStart[i] != unknown && s.eventsEnd[i] != unknown &&
		s.filesEnd[i] != unknown && s.workspacesEnd[i] != unknown
}

// An eventAt is an offset of the events topic whose time is asked for.
type eventAt struct {
	partition int32
	offset    int64
}

// An offsetSource fetches offsets and timestamps from the brokers.
type offsetSource interface {
	read(ctx context.Context) (snapshot, error)
	// times returns the timestamp of the first record at or after each offset; those that are not found are left out.
	times(ctx context.Context, of []eventAt) map[eventAt]time.Time
	topicIDs(ctx context.Context) (topicIDs, error)
}

// progress tracks the offsets of events, groups and copies, from which the lag of an answer follows.
type progress struct {
	files, workspaces *table
	search            *searchCoverage // nil: no search
	coverages         []*coverage     // of all of these
	log               *slog.Logger
	waiters           atomic.Int64
	wakeup            chan struct{}

	mu            sync.Mutex
	last          snapshot  // of the last successful poll; its slices are not changed after update returned
	firstPoll     time.Time // when it started
	lastResponse  []time.Time
	windows       [][]appendWindow              // by partition, ascending
	polled        chan struct{}                 // closed and replaced after each poll
	oldest        map[*coverage]map[int32]event // the oldest event that is not covered, by partition
	pendingCounts [][]checkpoint                // by partition: not yet committed by the workspaces group
	failing       bool
	timesDue      time.Time
	topicsDue     time.Time
}

// An event is an offset of the events topic and the timestamp of its record.
type event struct {
	offset int64
	at     time.Time
}

// An appendWindow covers the events from the end of the previous window up to end (exclusive). They were appended
// between after and before, the times of two polls. A zero after means that they were there at the first poll. Windows
// do not depend on record timestamps, since producers' clocks may be ahead or behind.
type appendWindow struct {
	end           int64
	after, before time.Time
}

// maxWindows bounds the windows of a partition; past it, the two that are closest in time are merged.
const maxWindows = 64

func newProgress(files, workspaces *table, search *searchCoverage, log *slog.Logger) *progress {
	n := files.topic.Partitions
	p := &progress{
		files: files, workspaces: workspaces, search: search, log: log,
		wakeup: make(chan struct{}, 1), polled: make(chan struct{}),
		lastResponse: make([]time.Time, n), windows: make([][]appendWindow, n), pendingCounts: make([][]checkpoint, n),
		coverages: []*coverage{&files.coverage, &workspaces.coverage}, oldest: map[*coverage]map[int32]event{},
	}
	if search != nil {
		p.coverages = append(p.coverages, &search.indexed, &search.visible)
	}
	for _, c := range p.coverages {
		p.oldest[c] = map[int32]event{}
	}
	return p
}

// run polls until ctx ends.
func (p *progress) run(ctx context.Context, source offsetSource) {
	for ctx.Err() == nil {
		p.poll(ctx, source)
		pause := pollEvery
		if p.waiters.Load() > 0 || !p.files.complete() || !p.workspaces.complete() {
			pause = pollOften
		}
		select {
		case <-time.After(pause):
		case <-p.wakeup:
		case <-ctx.Done():
		}
	}
}

func (p *progress) poll(ctx context.Context, source offsetSource) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	began := time.Now()
	s, err := source.read(ctx)
	if errors.Is(err, context.Canceled) {
		return // stopping
	}
	p.mu.Lock()
	if p.firstPoll.IsZero() {
		p.firstPoll = began
	}
	if failing := err != nil; failing != p.failing {
		p.failing = failing
		if failing {
			p.log.WarnContext(ctx, "brokers do not respond: answers may be stale, "+headerLag+" has their age",
				"error", err)
		} else {
			p.log.InfoContext(ctx, "brokers respond again")
		}
	}
	var untimed map[*coverage][]eventAt
	var upToDate []tablePartition
	if err == nil {
		s.began = began
		untimed, upToDate = p.update(s)
	}
	compare := err == nil && !began.Before(p.topicsDue)
	if compare {
		p.topicsDue = began.Add(topicsInterval)
	}
	close(p.polled)
	p.polled = make(chan struct{})
	p.mu.Unlock()
	if compare {
		p.compareTopics(ctx, source)
	}
	for _, u := range upToDate { // without the lock, which every request takes: the disk may be slow, or full
		u.table.touch(u.partition)
	}
	for _, c := range p.coverages {
		if of := untimed[c]; len(of) > 0 {
			p.setOldest(c, of, source.times(ctx, of))
		}
	}
}

// A tablePartition is one partition of a copy.
type tablePartition struct {
	table     *table
	partition int32
}

// update applies a snapshot. It returns, by coverage, the events whose timestamps are to be fetched, and the partitions
// that are up to date.
func (p *progress) update(s snapshot) (untimed map[*coverage][]eventAt, upToDate []tablePartition) {
	before := p.last
	p.last = s
	untimed = map[*coverage][]eventAt{}
	due := s.began.After(p.timesDue)
	if due {
		p.timesDue = s.began.Add(pollEvery / 2)
	}
	for i := range p.lastResponse {
		partition := int32(i)
		if !s.known(i) {
			if !p.lastResponse[i].IsZero() { // the last known offsets stay, and their age grows
				s.eventsStart[i], s.eventsEnd[i] = before.eventsStart[i], before.eventsEnd[i]
				s.eventsVisible[i] = before.eventsVisible[i]
			}
			continue
		}
		p.addWindow(partition, s)
		p.lastResponse[i] = s.began
		p.addCheckpoints(s, partition)
		if !p.files.held.holds(partition) {
			continue
		}
		if p.files.observe(partition, s.filesEnd[i], s.began) {
			upToDate = append(upToDate, tablePartition{p.files, partition})
		}
		if p.workspaces.observe(partition, s.workspacesEnd[i], s.began) {
			upToDate = append(upToDate, tablePartition{p.workspaces, partition})
		}
		for _, c := range p.coverages {
			missing := p.firstMissing(c, partition)
			if missing >= s.eventsVisible[i] {
				delete(p.oldest[c], partition)
			} else if oldest, ok := p.oldest[c][partition]; due && (!ok || oldest.offset != missing) {
				untimed[c] = append(untimed[c], eventAt{partition, missing})
			}
		}
	}
	return untimed, upToDate
}

// addCheckpoints adds a checkpoint to each copy: once it has read up to the table's end offset in the snapshot, it
// contains all events that the group had committed. The search index has a checkpoint of the same kind.
func (p *progress) addCheckpoints(s snapshot, partition int32) {
	i := int(partition)
	if _, next := p.files.frontiers[i].offsets(); next > s.eventsEnd[i] {
		p.log.Error("the events topic ends before what was read of it: was it recreated?", "partition", partition,
			"end", s.eventsEnd[i], "next_event", next)
		p.files.logID.Store(nil) // unknown until compareTopics
		p.workspaces.logID.Store(nil)
		p.resetEvents(i)
		p.topicsDue = time.Time{}
	}
	next, _ := p.files.frontiers[i].offsets()
	if next > s.filesEnd[i] && s.began.After(p.topicsDue.Add(-topicsInterval/2)) {
		p.topicsDue = time.Time{} // but not at each poll: the end may be from a replaced leader
	}
	done := max(s.filesCommit[i], s.eventsStart[i]) // deleted events are not waited for
	p.files.frontiers[i].add(checkpoint{nextEvent: done, end: s.filesEnd[i]})
	if p.search != nil && p.search.addCheckpoints(s, i, done) { // events of any age are missing again
		p.windows[i] = []appendWindow{{end: s.eventsEnd[i], before: s.began}}
	}
	if s.notifyEnd[i] == unknown || s.notifyStart[i] == unknown {
		return
	}
	// The workspaces group reads the notices that the files group wrote. So its copy contains the events before done
	// after two steps: the group commits the notices up to notifyEnd, and the copy reads the table up to workspacesEnd,
	// as fetched after that commit. The end of a pending checkpoint is that of the notices.
	counted := max(s.notifyCommit[i], s.notifyStart[i])
	pending := addCheckpoint(p.pendingCounts[i], checkpoint{nextEvent: done, end: s.notifyEnd[i]})
	for len(pending) > 0 && pending[0].end <= counted {
		p.workspaces.frontiers[i].add(checkpoint{nextEvent: pending[0].nextEvent, end: s.workspacesEnd[i]})
		pending = pending[1:]
	}
	p.pendingCounts[i] = pending
}

// addWindow records when the events of a partition were appended, and drops the windows of events that are in both
// copies.
func (p *progress) addWindow(partition int32, s snapshot) {
	windows, end := p.windows[partition], s.eventsEnd[partition]
	for n := len(windows); n > 0 && windows[n-1].end > end; n-- { // the topic was recreated, or a broker is behind
		windows[n-1].end = end
		if n > 1 && windows[n-2].end >= end {
			windows = windows[:n-1]
		}
	}
	if n := len(windows); n == 0 || windows[n-1].end < end {
		windows = append(windows, appendWindow{end: end, after: p.lastResponse[partition], before: s.began})
	}
	missing := end
	for _, c := range p.coverages {
		missing = min(missing, p.firstMissing(c, partition))
	}
	for len(windows) > 0 && windows[0].end <= missing {
		windows = windows[1:]
	}
	if len(windows) > maxWindows {
		closest := 0
		for i := range len(windows) - 1 {
			if windows[i+1].before.Sub(windows[i].before) < windows[closest+1].before.Sub(windows[closest].before) {
				closest = i
			}
		}
		windows[closest].end = windows[closest+1].end // with the earlier times: the age is too high rather than too low
		windows = slices.Delete(windows, closest+1, closest+2)
	}
	p.windows[partition] = windows
}

// appendTime returns when an event was appended: the timestamp of its record, clamped to the event's window. It returns
// the window's before if the timestamp is not known, and the time of the last response if no window has the offset.
func (p *progress) appendTime(partition int32, offset int64, record event, known bool) time.Time {
	for _, w := range p.windows[partition] {
		switch {
		case offset >= w.end:
		case !known || record.at.After(w.before):
			return w.before
		case record.at.Before(w.after):
			return w.after
		default:
			return record.at
		}
	}
	return p.lastResponse[partition]
}

// firstMissing returns the first event of the topic that is not known to be covered.
func (p *progress) firstMissing(c *coverage, partition int32) int64 {
	_, next := c.frontiers[partition].offsets()
	return max(next, p.last.eventsStart[partition])
}

// setOldest keeps the timestamps of the oldest missing events. While one is not found, that of the previous one stays,
// if there is one: the age in answers is too high rather than too low.
func (p *progress) setOldest(c *coverage, of []eventAt, times map[eventAt]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range of {
		if at, ok := times[e]; ok {
			p.oldest[c][e.partition] = event{e.offset, at}
		}
	}
}

// A lag is how far a coverage is behind the events of one partition.
type lag struct {
	nextEvent int64 // exclusive bound of the events that are known to be covered
	records   int64
	age       time.Duration // of the oldest event that is not covered
}

// lag returns how far a coverage is behind; ok is false before the first response for the partition.
func (p *progress) lag(c *coverage, partition int32, now time.Time) (l lag, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.lastResponse[partition]
	if last.IsZero() {
		return lag{nextEvent: unknown}, false
	}
	_, next := c.frontiers[partition].offsets()
	l = lag{nextEvent: next, records: max(0, p.last.eventsVisible[partition]-p.firstMissing(c, partition))}
	if l.records > 0 {
		oldest, known := p.oldest[c][partition]
		l.age = max(0, now.Sub(p.appendTime(partition, p.firstMissing(c, partition), oldest, known)))
	}
	if silence := now.Sub(last); silence > silenceAfter {
		l.age = max(l.age, silence) // events may have been appended since
	}
	return l, true
}

// silence returns for how long the brokers have not responded, 0 while they do.
func (p *progress) silence(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.last.began
	if last.IsZero() {
		last = p.firstPoll
	}
	if silence := now.Sub(last); !last.IsZero() && silence > silenceAfter {
		return silence
	}
	return 0
}

// pollFaster shortens the time between polls until the function it returns is called.
func (p *progress) pollFaster() (done func()) {
	p.waiters.Add(1)
	p.wake()
	return func() { p.waiters.Add(-1) }
}

func (p *progress) wake() {
	select {
	case p.wakeup <- struct{}{}:
	default:
	}
}

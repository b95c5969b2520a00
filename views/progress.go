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

// How often the brokers are asked: at rest, and while somebody waits or a copy is being read for the first time.
const (
	pollEvery   = 400 * time.Millisecond
	pollHurried = 40 * time.Millisecond
	pollTimeout = 5 * time.Second
	// The last answer of the brokers may be this old before its age counts as that of the copies.
	silenceAfter = 2 * time.Second
)

// unknown stands for an offset that a broker did not tell.
const unknown = -1

// A reading is what the brokers said at one moment, by partition. The order of the questions is part of the meaning: commits
// before the ends of what their groups write, so that everything committed lies before those ends.
type reading struct {
	began time.Time

	filesCommit   []int64 // next event of the files group
	eventsStart   []int64
	eventsEnd     []int64
	eventsRead    []int64 // where the last event before eventsEnd ends that anybody is handed
	filesEnd      []int64 // of the files table
	notifyStart   []int64
	notifyEnd     []int64
	notifyCommit  []int64 // next notice of the workspaces group, asked after notifyEnd
	workspacesEnd []int64 // of the workspaces table, asked after notifyCommit
}

// tells reports whether the leaders of a partition answered all that its lag is made of.
func (r reading) tells(i int) bool {
	return r.eventsStart[i] != unknown && r.eventsEnd[i] != unknown && r.filesEnd[i] != unknown && r.workspacesEnd[i] != unknown
}

// An eventAt is an offset of the events topic whose time is asked for.
type eventAt struct {
	partition int32
	offset    int64
}

// A cluster answers these questions.
type cluster interface {
	read(ctx context.Context) (reading, error)
	// times returns when the first record at or after each offset was written; those it cannot tell are left out.
	times(ctx context.Context, of []eventAt) map[eventAt]time.Time
}

// progress follows how far events, groups and copies are, so that an answer can tell its age.
type progress struct {
	files, workspaces *table
	log               *slog.Logger
	waiters           atomic.Int64
	kick              chan struct{}

	mu       sync.Mutex
	last     reading   // of the last poll that was answered; its slices are not changed any more
	since    time.Time // the start of the first poll
	heard    []time.Time
	seen     [][]sighting                 // by partition, ascending
	polled   chan struct{}                // closed and replaced after each poll
	oldest   map[*table]map[int32]missing // the oldest event not in the copy, by partition
	notices  [][]goal                     // by partition: goals of the workspaces copy that still wait for the workspaces group
	failing  bool
	timesDue time.Time
}

// A missing is an event that a copy does not hold, and when it was written by its record's time.
type missing struct {
	offset int64
	at     time.Time
}

// A sighting is when the events of a partition were first seen to reach an end, and when they were last seen not to; zero when they
// always did. Those in between were written in between, whatever their records say: clocks may be ahead or behind.
type sighting struct {
	end       int64
	after, at time.Time
}

// maxSightings bounds what is kept of a partition; past it, the two that are closest in time become one.
const maxSightings = 64

func newProgress(files, workspaces *table, log *slog.Logger) *progress {
	n := files.topic.Partitions
	return &progress{
		files: files, workspaces: workspaces, log: log,
		kick: make(chan struct{}, 1), polled: make(chan struct{}),
		heard: make([]time.Time, n), seen: make([][]sighting, n), notices: make([][]goal, n),
		oldest: map[*table]map[int32]missing{files: {}, workspaces: {}},
	}
}

// tables returns both copies, in the order in which they are looked at.
func (p *progress) tables() [2]*table { return [...]*table{p.files, p.workspaces} }

// run polls until ctx ends.
func (p *progress) run(ctx context.Context, c cluster) {
	for ctx.Err() == nil {
		p.poll(ctx, c)
		pause := pollEvery
		if p.waiters.Load() > 0 || !p.files.complete() || !p.workspaces.complete() {
			pause = pollHurried
		}
		select {
		case <-time.After(pause):
		case <-p.kick:
		case <-ctx.Done():
		}
	}
}

func (p *progress) poll(ctx context.Context, c cluster) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	began := time.Now()
	r, err := c.read(ctx)
	if errors.Is(err, context.Canceled) {
		return // stopping
	}
	p.mu.Lock()
	if p.since.IsZero() {
		p.since = began
	}
	if failing := err != nil; failing != p.failing {
		p.failing = failing
		if failing {
			p.log.WarnContext(ctx, "brokers do not answer: answers may be stale, their age is told", "error", err)
		} else {
			p.log.InfoContext(ctx, "brokers answer again")
		}
	}
	var late map[*table][]eventAt
	var whole []copied
	if err == nil {
		r.began = began
		late, whole = p.take(r)
	}
	close(p.polled)
	p.polled = make(chan struct{})
	p.mu.Unlock()
	for _, c := range whole { // not under the lock, which every request takes: the disk may be slow, or full
		c.table.touch(c.partition)
	}
	for _, t := range p.tables() {
		if of := late[t]; len(of) > 0 {
			p.note(t, of, c.times(ctx, of))
		}
	}
}

// A copied is a partition of which a copy has all.
type copied struct {
	table     *table
	partition int32
}

// take draws the conclusions of a reading. It returns, by table, the events whose time is to be asked for, and what is whole.
func (p *progress) take(r reading) (late map[*table][]eventAt, whole []copied) {
	before := p.last
	p.last = r
	late = map[*table][]eventAt{}
	due := r.began.After(p.timesDue)
	if due {
		p.timesDue = r.began.Add(pollEvery / 2)
	}
	for i := range p.heard {
		partition := int32(i)
		if !r.tells(i) {
			if !p.heard[i].IsZero() { // it stands as it was told last, and grows old
				r.eventsStart[i], r.eventsEnd[i], r.eventsRead[i] = before.eventsStart[i], before.eventsEnd[i], before.eventsRead[i]
			}
			continue
		}
		p.sight(partition, r)
		p.heard[i] = r.began
		if p.files.watch(partition, r.filesEnd[i], r.began) {
			whole = append(whole, copied{p.files, partition})
		}
		if p.workspaces.watch(partition, r.workspacesEnd[i], r.began) {
			whole = append(whole, copied{p.workspaces, partition})
		}
		p.promise(r, partition)
		for _, t := range p.tables() {
			first := p.first(t, partition)
			if first >= r.eventsRead[i] {
				delete(p.oldest[t], partition)
			} else if known, ok := p.oldest[t][partition]; due && (!ok || known.offset != first) {
				late[t] = append(late[t], eventAt{partition, first})
			}
		}
	}
	return late, whole
}

// promise tells the copies what they will hold once they have read up to the ends just seen.
func (p *progress) promise(r reading, partition int32) {
	i := int(partition)
	if _, held := p.files.frontiers[i].state(); held > r.eventsEnd[i] {
		p.log.Error("the events topic ends before what was read of it: was it recreated?", "partition", partition,
			"end", r.eventsEnd[i], "held", held)
		p.files.frontiers[i].forgetLog()
		p.workspaces.frontiers[i].forgetLog()
		p.notices[i] = nil
	}
	done := max(r.filesCommit[i], r.eventsStart[i]) // before the start there is nothing to hold
	p.files.frontiers[i].promise(goal{held: done, next: r.filesEnd[i]})
	if r.notifyEnd[i] == unknown || r.notifyStart[i] == unknown {
		return
	}
	counted := max(r.notifyCommit[i], r.notifyStart[i])
	waiting := addGoal(p.notices[i], goal{held: done, next: r.notifyEnd[i]})
	for len(waiting) > 0 && waiting[0].next <= counted {
		p.workspaces.frontiers[i].promise(goal{held: waiting[0].held, next: r.workspacesEnd[i]})
		waiting = waiting[1:]
	}
	p.notices[i] = waiting
}

// sight notes where the events of a partition end, and forgets what no age is counted from any more.
func (p *progress) sight(partition int32, r reading) {
	seen, end := p.seen[partition], r.eventsEnd[partition]
	for n := len(seen); n > 0 && seen[n-1].end > end; n-- { // another log, or a broker that lags
		seen[n-1].end = end
		if n > 1 && seen[n-2].end >= end {
			seen = seen[:n-1]
		}
	}
	if n := len(seen); n == 0 || seen[n-1].end < end {
		seen = append(seen, sighting{end, p.heard[partition], r.began})
	}
	held := min(p.first(p.files, partition), p.first(p.workspaces, partition))
	for len(seen) > 0 && seen[0].end <= held {
		seen = seen[1:]
	}
	if len(seen) > maxSightings {
		closest := 0
		for i := range len(seen) - 1 {
			if seen[i+1].at.Sub(seen[i].at) < seen[closest+1].at.Sub(seen[closest].at) {
				closest = i
			}
		}
		seen[closest].end = seen[closest+1].end // the earlier times for both: an age that is too high rather than too low
		seen = slices.Delete(seen, closest+1, closest+2)
	}
	p.seen[partition] = seen
}

// written returns when an event was written: what its record says if that is known and can be, else when it was first seen.
func (p *progress) written(partition int32, offset int64, record missing, known bool) time.Time {
	for _, s := range p.seen[partition] {
		switch {
		case offset >= s.end:
		case !known || record.at.After(s.at):
			return s.at
		case record.at.Before(s.after):
			return s.after
		default:
			return record.at
		}
	}
	return p.heard[partition]
}

// first returns the first event that the table's copy is not known to hold.
func (p *progress) first(t *table, partition int32) int64 {
	_, held := t.frontiers[partition].state()
	return max(held, p.last.eventsStart[partition])
}

// note keeps when the oldest missing events were written. While that of one is not known, the one before it counts: the age in answers is
// too high rather than too low.
func (p *progress) note(t *table, of []eventAt, times map[eventAt]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range of {
		if at, ok := times[e]; ok {
			p.oldest[t][e.partition] = missing{e.offset, at}
		}
	}
}

// A lag is how far a copy is behind the events of one partition.
type lag struct {
	held    int64 // first event not known to be in the copy; unknown before the first poll
	records int64
	age     time.Duration // of the oldest event that is not in the copy
}

// lag tells how far the table's copy is behind; ok is false while nothing is known of the partition.
func (p *progress) lag(t *table, partition int32, now time.Time) (l lag, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	heard := p.heard[partition]
	if heard.IsZero() {
		return lag{held: unknown}, false
	}
	_, held := t.frontiers[partition].state()
	l = lag{held: held, records: max(0, p.last.eventsRead[partition]-p.first(t, partition))}
	if l.records > 0 {
		oldest, known := p.oldest[t][partition]
		l.age = max(0, now.Sub(p.written(partition, p.first(t, partition), oldest, known)))
	}
	if quiet := now.Sub(heard); quiet > silenceAfter {
		l.age = max(l.age, quiet) // what came since then is not known
	}
	return l, true
}

// silence returns for how long the brokers have not answered, 0 while they do.
func (p *progress) silence(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.last.began
	if last.IsZero() {
		last = p.since
	}
	if quiet := now.Sub(last); !last.IsZero() && quiet > silenceAfter {
		return quiet
	}
	return 0
}

// hurry makes polls frequent until the function it returns is called.
func (p *progress) hurry() (done func()) {
	p.waiters.Add(1)
	p.wake()
	return func() { p.waiters.Add(-1) }
}

func (p *progress) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

var errBeyondEnd = errors.New("beyond the end of the log")

// sureAfter is how long brokers must go on saying that an offset is beyond the end. A leader that slept for longer than its peers
// wait tells an old end when it wakes, until it has heard that another one leads.
const sureAfter = time.Second

// reaches returns nil once the events log is known to hold the offset, and errBeyondEnd if brokers asked from now on go on saying
// that it does not; errStopping once nobody need wait any longer.
func (p *progress) reaches(ctx context.Context, stopping <-chan struct{}, partition int32, offset int64) error {
	asked := time.Now()
	for {
		p.mu.Lock()
		heard, polled := p.heard[partition], p.polled
		known := !heard.IsZero() && offset < p.last.eventsEnd[partition]
		p.mu.Unlock()
		switch {
		case known:
			return nil
		case !heard.Before(asked.Add(sureAfter)):
			return errBeyondEnd
		}
		p.wake()
		select {
		case <-polled:
		case <-stopping:
			return errStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

package deadletters

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"tidemark/problem"
)

// Limits of jobs.
const (
	maxJobs    = 100  // that are kept, also those that have ended
	maxWorking = 4    // at a time; each keeps its entries, as a request does
	maxResults = 1000 // of a job
)

// The states of a job.
const (
	stateRunning  = "running"
	stateDone     = "done"
	stateFailed   = "failed" // it stopped at an error
	stateCanceled = "canceled"
)

// The actions of a job.
const (
	actionReplay = "replay"
	actionDrop   = "drop"
)

// A jobSummary is a job without its results.
type jobSummary struct {
	ID       string     `json:"job"`
	Action   string     `json:"action"`
	DryRun   bool       `json:"dry_run"`
	State    string     `json:"state"`
	Error    string     `json:"error,omitempty"`
	Selected int        `json:"selected"` // 0 until the dead letters have been read
	Done     int        `json:"done"`     // entries that have a result
	Started  time.Time  `json:"started_at"`
	Ended    *time.Time `json:"ended_at,omitempty"`
}

// A jobReport is a job with what was posted and its first results.
type jobReport struct {
	jobSummary
	Selection selectors      `json:"selection"`
	Counts    map[string]int `json:"counts"` // of all results, by Outcome.Result
	Results   []Outcome      `json:"results"`
	More      int            `json:"more_results"` // that are not in Results
}

// A job is a replay or a drop that outlives its request.
type job struct {
	jobReport
	cancel context.CancelFunc
}

// jobs are the jobs of this process. They are in memory only. One that was cut short is repeated by a new job, which is
// safe: an entry that was not marked stays open.
type jobs struct {
	queue  *Queue
	log    *slog.Logger
	prefix string // of all ids, so that an id of another process is never one of these

	mu      sync.Mutex
	open    bool // while run runs
	started int
	list    []*job // the oldest first
	running sync.WaitGroup
	working chan struct{} // has an element for each job that is not waiting
}

func newJobs(queue *Queue, log *slog.Logger) *jobs {
	prefix := strings.ToLower(rand.Text()[:8]) + "-"
	return &jobs{queue: queue, log: log, prefix: prefix, working: make(chan struct{}, maxWorking)}
}

// run lets jobs be started until ctx ends. Then it cancels those that run, and waits until each has marked the entries
// that it has sent.
func (j *jobs) run(ctx context.Context) error {
	j.mu.Lock()
	j.open = true
	j.mu.Unlock()
	<-ctx.Done()
	j.mu.Lock()
	j.open = false
	for _, each := range j.list {
		each.cancel()
	}
	j.mu.Unlock()
	j.running.Wait()
	return nil
}

// start starts the job of a request. Only one at a time may write: two would send the same entries.
func (j *jobs) start(q *jobRequest, f Filter, o Options) (jobReport, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.open {
		return jobReport{}, stopping()
	}
	for _, other := range j.list {
		if o.Yes && !other.DryRun && other.State == stateRunning {
			return jobReport{}, problem.New(http.StatusConflict, codeJobRunning, fmt.Sprintf(
				"job %s runs, and one job at a time may write: wait for its end, or cancel it", other.ID))
		}
	}
	if len(j.list) == maxJobs {
		i := slices.IndexFunc(j.list, func(old *job) bool { return old.State != stateRunning })
		if i < 0 {
			return jobReport{}, unavailable(codeBusy, fmt.Sprintf("%d jobs run or wait: try again later", maxJobs))
		}
		j.list = slices.Delete(j.list, i, i+1)
	}
	j.started++
	ctx, cancel := context.WithCancel(context.Background())
	next := &job{cancel: cancel, jobReport: jobReport{
		Selection: q.selectors, Counts: map[string]int{}, Results: []Outcome{},
		jobSummary: jobSummary{
			ID: fmt.Sprintf("%s%d", j.prefix, j.started), Action: q.Action, DryRun: !o.Yes, State: stateRunning,
			Started: time.Now().UTC(),
		},
	}}
	j.list = append(j.list, next)
	j.running.Go(func() {
		defer cancel()
		j.work(ctx, next, f, o)
	})
	return next.report(), nil
}

// report returns a copy that later results do not change. The slice of results is only appended to.
func (j *job) report() jobReport {
	report := j.jobReport
	report.Counts = maps.Clone(report.Counts)
	return report
}

// work runs a job to its end, once there are few enough others.
func (j *jobs) work(ctx context.Context, next *job, f Filter, o Options) {
	select {
	case j.working <- struct{}{}:
		defer func() { <-j.working }()
	case <-ctx.Done():
	}
	j.log.InfoContext(ctx, "a job on the dead letters begins", "job", next.ID, "action", next.Action,
		"dry_run", next.DryRun)
	o.Selected = func(entries int) {
		j.mu.Lock()
		defer j.mu.Unlock()
		next.Selected = entries
	}
	o.Each = func(outcome Outcome) {
		j.mu.Lock()
		defer j.mu.Unlock()
		next.Counts[outcome.Result]++
		if next.Done++; len(next.Results) < maxResults {
			next.Results = append(next.Results, outcome)
		} else {
			next.More++
		}
	}
	do := j.queue.Replay
	if next.Action == actionDrop {
		do = j.queue.Drop
	}
	_, err := do(ctx, f, o)

	level, attrs := slog.LevelInfo, []any{"job", next.ID, "action", next.Action, "dry_run", next.DryRun}
	j.mu.Lock()
	defer j.mu.Unlock()
	at := time.Now().UTC()
	next.Ended, next.State = &at, stateDone
	if err != nil && ctx.Err() != nil {
		next.State = stateCanceled
	} else if err != nil {
		next.State = stateFailed
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		next.Error = truncated(err.Error(), maxText)
		level, attrs = slog.LevelError, append(attrs, "error", err)
	}
	j.log.Log(ctx, level, "a job on the dead letters has ended", append(attrs, "state", next.State,
		"selected", next.Selected, "done", next.Done)...)
}

// get returns the present state of a job.
func (j *jobs) get(id string) (jobReport, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	found, err := j.find(id)
	if err != nil {
		return jobReport{}, err
	}
	return found.report(), nil
}

func (j *jobs) find(id string) (*job, error) {
	for _, each := range j.list {
		if each.ID == id {
			return each, nil
		}
	}
	detail := fmt.Sprintf("this instance has no such job: it keeps the last %d", maxJobs)
	if !strings.HasPrefix(id, j.prefix) {
		detail = "this instance has no such job: ask the instance that it was posted to, or post it again after a " +
			"restart of that one, which is safe"
	}
	return nil, problem.New(http.StatusNotFound, codeUnknownJob, detail)
}

// summaries returns all jobs, the newest first.
func (j *jobs) summaries() []jobSummary {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]jobSummary, 0, len(j.list))
	for _, each := range slices.Backward(j.list) {
		all = append(all, each.jobSummary)
	}
	return all
}

// stop cancels a job, which ends after the entry in progress. One that has ended stays as it is.
func (j *jobs) stop(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	found, err := j.find(id)
	if err == nil {
		found.cancel()
	}
	return err
}

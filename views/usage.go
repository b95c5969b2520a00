package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tidemark/history"
)

// usageDimensions are the values of the parameter by.
var usageDimensions = map[string]history.Dimension{
	"type": history.Type, "folder": history.Folder, "actor": history.Actor,
}

// A usageRequest has the parameters of a usage.
type usageRequest struct {
	by     []string
	window time.Duration
}

func parseUsage(c *call) (u usageRequest, err error) {
	u = usageRequest{by: []string{"type"}, window: 24 * time.Hour}
	if c.query.Has("by") {
		u.by = strings.Split(c.query.Get("by"), ",")
		for _, name := range u.by {
			if usageDimensions[name] == 0 {
				return u, badField("by", "by must be some of type, folder and actor, separated by commas")
			}
		}
		slices.Sort(u.by)
		u.by = slices.Compact(u.by)
	}
	if c.query.Has("window") {
		text := c.query.Get("window")
		u.window, err = time.ParseDuration(text)
		if err != nil || u.window < time.Hour || u.window > 24*time.Hour || u.windowText() != text {
			return u, badField("window", "window must be whole hours, from 1h to 24h")
		}
	}
	return u, nil
}

func (u usageRequest) windowText() string { return fmt.Sprintf("%dh", u.window/time.Hour) }

// A usage is the answer of a usage.
type usage struct {
	Totals   usageTotals   `json:"totals"`
	Activity usageActivity `json:"activity"`
}

// usageTotals are the active files of the present.
type usageTotals struct {
	fileTotal
	By map[string]ranked[fileTotal] `json:"by"`
}

// A fileTotal is a number of files with their bytes.
type fileTotal struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (t fileTotal) rank() int64 { return t.Files }

func (t fileTotal) plus(u fileTotal) fileTotal {
	return fileTotal{t.Files + u.Files, t.Bytes + u.Bytes}
}

// usageActivity is what happened in each window, without the windows in which nothing did.
type usageActivity struct {
	Window  string        `json:"window"`
	From    time.Time     `json:"from"`
	Windows []usageWindow `json:"windows"`
}

type usageWindow struct {
	Start time.Time `json:"start"`
	activityTotal
	By map[string]ranked[activityTotal] `json:"by"`
}

type activityTotal struct {
	Events       int64 `json:"events"`
	Added        int64 `json:"added"`
	Updated      int64 `json:"updated"`
	Deleted      int64 `json:"deleted"`
	BytesAdded   int64 `json:"bytes_added"`
	BytesRemoved int64 `json:"bytes_removed"`
}

func (t activityTotal) rank() int64 { return t.Events + t.Added + t.Updated + t.Deleted }

func (t activityTotal) plus(u activityTotal) activityTotal {
	a := history.Activity(t)
	a.Add(history.Activity(u))
	return activityTotal(a)
}

// A total can be added to another one, and compared with it.
type total[T any] interface {
	rank() int64
	plus(T) T
}

// ranked are the totals of the greatest keys, and of all others together.
type ranked[T any] struct {
	Keys  []keyTotal[T] `json:"keys"`
	Other *T            `json:"other,omitempty"`
}

// A keyTotal is the total of a key; null is that of what has no such key.
type keyTotal[T any] struct {
	Key   *string `json:"key"`
	Total T       `json:"total"`
}

// A tally adds up totals by key. It has at most limit keys, and adds those that come later to the rest.
type tally[T total[T]] struct {
	limit int
	keys  map[string]T
	rest  *T
}

func (t *tally[T]) add(key string, n T) {
	before, known := t.keys[key]
	if !known && len(t.keys) >= t.limit {
		t.addRest(n)
		return
	}
	if t.keys == nil {
		t.keys = map[string]T{}
	}
	t.keys[key] = before.plus(n)
}

func (t *tally[T]) addRest(n T) {
	if t.rest != nil {
		n = n.plus(*t.rest)
	}
	t.rest = &n
}

// ranked returns the first keys, by rank and then by name, as long as there is room for their names. It takes that from
// room.
func (t *tally[T]) ranked(limit int, room *int) ranked[T] {
	names := make([]string, 0, len(t.keys))
	for name := range t.keys {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if x, y := t.keys[a].rank(), t.keys[b].rank(); x != y {
			return int(min(1, max(-1, y-x)))
		}
		return strings.Compare(a, b)
	})
	rest := tally[T]{rest: t.rest}
	r, full := ranked[T]{Keys: []keyTotal[T]{}}, false
	for i, name := range names {
		if full = full || i >= limit || len(name) > *room; full {
			rest.addRest(t.keys[name])
			continue
		}
		*room -= len(name)
		key := &name
		if name == "" {
			key = nil
		}
		r.Keys = append(r.Keys, keyTotal[T]{key, t.keys[name]})
	}
	r.Other = rest.rest
	return r
}

// getUsage answers what a workspace has now, and what happened in it in the last seven days.
func (s *Server) getUsage(c *call) (*answer, error) {
	if s.history == nil {
		return nil, noHistory()
	}
	u, err := parseUsage(c)
	if err != nil {
		return nil, err
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	partition := s.partition(c.workspace)
	if err := s.checkExists(c, partition); err != nil {
		return nil, err
	}
	since := time.Time{} // as of the last poll
	if c.barrier.position != nil {
		since = time.Now()
	}
	if err := s.awaitHistory(c, partition, since); err != nil {
		return nil, err
	}
	body := usage{}
	if body.Activity, err = s.activityOf(c, partition, u); err != nil {
		return nil, err
	}
	files, err := s.usageOf(c.request.Context(), c.workspace)
	if err != nil {
		return nil, err
	}
	body.Totals = usageTotals{files.all, map[string]ranked[fileTotal]{}}
	for _, name := range u.by {
		body.Totals.By[name] = files.by[usageDimensions[name]]
	}
	encoded, err := json.Marshal(body)
	return &answer{body: encoded}, err
}

// windowKeys is how many keys a day of windows has in each dimension.
const windowKeys = 1000

// activityOf returns the activity of a workspace in the last seven days.
func (s *Server) activityOf(c *call, partition int32, u usageRequest) (a usageActivity, err error) {
	release, err := s.takeScan()
	if err != nil {
		return a, err
	}
	defer release()
	err = s.history.Read(partition, func(h *history.Snapshot) (err error) {
		a, err = readActivity(c.request.Context(), h, c.workspace, u, time.Now())
		return err
	})
	if errors.Is(err, history.ErrClosed) {
		err = errStoreNotReady
	}
	return a, err
}

// readActivity returns the activity of a workspace in the last seven days before now.
func readActivity(ctx context.Context, h *history.Snapshot, workspace string, u usageRequest, now time.Time) (
	a usageActivity, err error,
) {
	begin := now.Add(-history.ActivityKept).Truncate(time.Hour).UTC()
	a = usageActivity{Window: u.windowText(), From: begin, Windows: []usageWindow{}}
	if since := h.Since(); since.After(begin) {
		a.From = since
	}
	limit, room := int(windowKeys*u.window/(24*time.Hour)), maxPageBytes
	for start := now.UTC().Truncate(u.window); start.Add(u.window).After(begin); start = start.Add(-u.window) {
		w := usageWindow{Start: start, By: map[string]ranked[activityTotal]{}}
		tallies := map[string]*tally[activityTotal]{}
		for _, name := range u.by {
			tallies[name] = &tally[activityTotal]{limit: 24 * windowKeys}
		}
		for hour := start; hour.Before(start.Add(u.window)); hour = hour.Add(time.Hour) {
			if hour.Before(begin) {
				continue
			}
			if err := w.addHour(ctx, h, workspace, hour, tallies); err != nil {
				return a, err
			}
		}
		if w.activityTotal == (activityTotal{}) {
			continue
		}
		for _, name := range u.by {
			w.By[name] = tallies[name].ranked(limit, &room)
		}
		a.Windows = append(a.Windows, w)
	}
	slices.Reverse(a.Windows) // the newest have the names that there is room for
	return a, nil
}

// addHour adds an hour to the window, and its keys to the tallies of the dimensions that were asked for.
func (w *usageWindow) addHour(ctx context.Context, h *history.Snapshot, workspace string, hour time.Time,
	tallies map[string]*tally[activityTotal],
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	all, err := h.Total(workspace, hour)
	if err != nil || all == (history.Activity{}) {
		return err
	}
	w.activityTotal = w.plus(activityTotal(all))
	for name, t := range tallies {
		rest, err := h.Activity(workspace, hour, usageDimensions[name], func(key string, a history.Activity) {
			t.add(key, activityTotal(a))
		})
		if err != nil {
			return err
		}
		if rest != (history.Activity{}) {
			t.addRest(activityTotal(rest))
		}
	}
	return nil
}

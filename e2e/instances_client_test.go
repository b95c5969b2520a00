package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// An instance is one process of serve, as its clients see it.
type instance struct {
	*rig.Program

	mu      sync.Mutex
	down    bool // it may not answer
	changed time.Time
}

// set notes whether the instance must answer.
func (in *instance) set(down bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.down, in.changed = down, time.Now()
}

// mayBreak reports whether a connection may have broken since a request began.
func (in *instance) mayBreak(since time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.down || in.changed.After(since)
}

// clients query all instances, and note what they must not see.
type clients struct {
	http      *http.Client
	instances []*instance
	scopes    []string // workspaces
	topic     string   // of the events

	mu      sync.Mutex
	report  *oracle.Report
	answers map[string]int       // by kind
	refused map[string]time.Time // since when an instance refuses a kind of request
	longest time.Duration        // without an answer
	which   string               // and to which request
}

func newClients(instances []*instance, scopes []string, topic string, r *oracle.Report) *clients {
	for _, name := range []string{
		"answers with a wrong status", "refusals without Retry-After", "connections broken", "refused for too long",
		"changes back in time", "feeds that differ from the listing", "lists that differ",
	} {
		r.Check(name)
	}
	return &clients{
		http:      &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}},
		instances: instances, scopes: scopes, topic: topic, report: r,
		answers: map[string]int{}, refused: map[string]time.Time{},
	}
}

// violate notes a violation.
func (c *clients) violate(name, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Violate(name, format, args...)
}

var errRefused = errors.New("refused")

// about returns the kind of a request about a workspace: those of one partition are refused together.
func (c *clients) about(scope string) string {
	return fmt.Sprint("partition ", oracle.Partition(c.topic, scope, partitions))
}

// get returns the body of an answer of 200, and nil of 404. Refusals and broken connections are errRefused, and noted
// where they must not be.
func (c *clients) get(ctx context.Context, in *instance, kind, path string) ([]byte, error) {
	began := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, in.URL+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(response.Body)
		_ = response.Body.Close() // read to its end
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	key := in.Name + " " + kind
	if err != nil {
		if !c.mayBreak(began) {
			c.violate("connections broken", "%s %s: %v", in.Name, path, err)
		}
		if in.mayBreak(began) { // it is not that instance's to answer
			c.answered(key, kind)
		}
		return nil, errRefused
	}
	switch response.StatusCode {
	case http.StatusOK:
		c.answered(key, kind)
		return body, nil
	case http.StatusNotFound: // of a workspace without events
		c.answered(key, kind)
		return nil, nil
	case http.StatusServiceUnavailable:
		if response.Header.Get("Retry-After") == "" {
			c.violate("refusals without Retry-After", "%s %s: %s", in.Name, path, body)
		}
		c.refuse(key, began, string(body))
		return nil, errRefused
	}
	c.violate("answers with a wrong status", "%s %s: %s %s", in.Name, path, response.Status, body)
	return nil, errRefused
}

// mayBreak reports whether a connection may have broken: an answer may have been passed on by another instance.
func (c *clients) mayBreak(since time.Time) bool {
	for _, in := range c.instances {
		if in.mayBreak(since) {
			return true
		}
	}
	return false
}

func (c *clients) answered(key, kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[kind]++
	if since, ok := c.refused[key]; ok {
		if took := time.Since(since); took > c.longest {
			c.longest, c.which = took, key
		}
		delete(c.refused, key)
	}
}

func (c *clients) refuse(key string, began time.Time, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, ok := c.refused[key]
	if !ok {
		c.refused[key] = began
		return
	}
	if took := time.Since(since); took > refusedAtMost {
		c.report.Violate("refused for too long", "%s for %v: %s", key, took.Round(time.Second), body)
		c.refused[key] = time.Now()
	}
}

// refusedAtMost is how long an instance may refuse requests about a partition after another one was killed: its session
// of 10 s, two rebalances, and the time to read its partitions on a machine that is busy with other tests.
const refusedAtMost = 25 * time.Second

// query sends requests of all kinds to all instances at random, until ctx ends.
func (c *clients) query(ctx context.Context, seed uint64, sender func() (scope, position string)) {
	random := rand.New(rand.NewPCG(seed, 7))
	for ctx.Err() == nil {
		in := c.instances[random.IntN(len(c.instances))]
		scope := c.scopes[random.IntN(len(c.scopes))]
		path, kind := "/v1/workspaces/"+escape(scope), c.about(scope)
		switch random.IntN(6) {
		case 0:
		case 1:
			path += "/files?status=all&limit=20"
		case 2:
			path += "/files/" + url.PathEscape(fmt.Sprint("none", random.IntN(9)))
		case 3:
			if at, position := sender(); position != "" {
				path, kind = "/v1/workspaces/"+escape(at)+"?at_least="+position, c.about(at)
			}
		case 4:
			path, kind = "/v1/workspaces?limit=1000", "list"
		case 5:
			path, kind = "/v1/status", "status"
		}
		_, _ = c.get(ctx, in, kind, path) // it has noted what is wrong
		sleep(ctx, time.Duration(random.IntN(40))*time.Millisecond)
	}
}

func escape(id string) string { return strings.ReplaceAll(url.PathEscape(id), ".", "%2E") }

// A feed is the state of a workspace's files as a reader of its changes knows it. It takes its cursor to the next
// instance whenever one refuses it or ends its stream.
type feed struct {
	*clients
	scope string

	mu       sync.Mutex
	in       *instance
	files    map[string]string // JSON by id
	versions map[string]int64
}

func newFeed(c *clients, in *instance, scope string) *feed {
	return &feed{clients: c, in: in, scope: scope, files: map[string]string{}, versions: map[string]int64{}}
}

// A change is one of a page, or the data of an event.
type change struct {
	Op      string
	Version int64
	FileID  string `json:"file_id"`
	File    json.RawMessage
}

// move continues at the next instance.
func (f *feed) move() {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.instances, f.in)
	f.in = f.instances[(i+1)%len(f.instances)]
}

// instance returns the one that is asked.
func (f *feed) instance() *instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.in
}

func (f *feed) take(ch change) error {
	id := ch.FileID
	if ch.File != nil {
		var file struct {
			FileID string `json:"file_id"`
		}
		if err := json.Unmarshal(ch.File, &file); err != nil {
			return err
		}
		id = file.FileID
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch.Version < f.versions[id] {
		f.violate("changes back in time", "%s, %q: file %q has version %d after %d", f.in.Name, f.scope, id, ch.Version,
			f.versions[id])
	}
	f.versions[id] = ch.Version
	if f.files[id] = string(ch.File); ch.Op == "delete" {
		delete(f.files, id)
	}
	return nil
}

// poll follows the changes by long polls, until ctx ends.
func (f *feed) poll(ctx context.Context) error {
	cursor := ""
	for ctx.Err() == nil {
		path := "/v1/workspaces/" + escape(f.scope) + "/changes?status=all&kind=all&limit=50&wait=1"
		if cursor != "" {
			path += "&cursor=" + url.QueryEscape(cursor)
		}
		in := f.instance()
		body, err := f.get(ctx, in, f.about(f.scope), path)
		if body == nil {
			f.move()
			sleep(ctx, 100*time.Millisecond)
			continue
		}
		var page struct {
			Changes []change
			Cursor  string
		}
		if err == nil {
			err = json.Unmarshal(body, &page)
		}
		for _, ch := range page.Changes {
			err = errors.Join(err, f.take(ch))
		}
		if err != nil {
			return fmt.Errorf("%s%s: %w", in.URL, path, err)
		}
		cursor = page.Cursor
	}
	return nil
}

// follow follows the changes by server-sent events, until ctx ends.
func (f *feed) follow(ctx context.Context) error {
	last := ""
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet,
			f.instance().URL+"/v1/workspaces/"+escape(f.scope)+"/changes?status=all&kind=all", nil)
		if err != nil {
			return err
		}
		request.Header.Set("Accept", "text/event-stream")
		if last != "" {
			request.Header.Set("Last-Event-ID", last)
		}
		response, err := f.http.Transport.RoundTrip(request)
		if err != nil { // that the instance does not answer is noted by the other clients
			f.move()
			sleep(ctx, 100*time.Millisecond)
			continue
		}
		last, err = f.readEvents(response, last)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
		f.move()
		sleep(ctx, 50*time.Millisecond)
	}
	return nil
}

// readEvents takes the events of a stream until it ends, and returns the id of the last one.
func (f *feed) readEvents(response *http.Response, last string) (string, error) {
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return last, nil
	default:
		f.violate("answers with a wrong status", "%s, events of %q: %s", f.instance().Name, f.scope, response.Status)
		return last, nil
	}
	lines := bufio.NewReader(response.Body)
	var id, event, data string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return last, nil //nolint:nilerr // the instance has given up the partition, or has ended
		}
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ": "); name {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = value
		case "":
			if event == "change" {
				var ch change
				if err := json.Unmarshal([]byte(data), &ch); err != nil {
					return last, err
				}
				if err := f.take(ch); err != nil {
					return last, err
				}
			}
			if id != "" {
				last = id
			}
			id, event, data = "", "", ""
		}
	}
}

// differs returns how the feed's state differs from a listing's; empty if it does not.
func (f *feed) differs(want map[string]string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, file := range want {
		if f.files[id] != file {
			return fmt.Sprintf("file %q: %s, and the listing has %s", id, f.files[id], file)
		}
	}
	if len(f.files) > len(want) {
		return fmt.Sprintf("%d files, and the listing has %d", len(f.files), len(want))
	}
	return ""
}

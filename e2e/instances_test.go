package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/provider"
	"tidemark/e2e/rig"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// TestInstances queries three instances of serve at random while traffic flows, and reads feeds from each of them. One
// instance is killed and comes back after the others have taken its share; another one leaves by SIGTERM and comes
// back; the first one is paused by SIGSTOP until it has lost its share. Refusals in between are 503 with Retry-After
// and end, and at the end all answers of each instance and the state of each feed are those of the model.
func TestInstances(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts and kills processes, and waits for a session to expire")
	}
	for _, hold := range []string{"share", "all"} {
		t.Run(hold, func(t *testing.T) {
			t.Parallel() // most of their time they wait
			r := &oracle.Report{Title: "instances that hold " + hold}
			serveTogether(t, build(t), hold, r)
			conclude(t, r)
		})
	}
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		path, err := rig.Mutants["answers what it gave up"].Build(builds.dir)
		if err != nil {
			t.Fatal(err)
		}
		r := &oracle.Report{Title: "instances that answer from partitions that they gave up"}
		serveTogether(t, path, "share", r)
		t.Log("\n" + r.String())
		if r.Count("answers wrong")+r.Count("answers missing") == 0 {
			t.Error("stale answers were not found: the test of instances proves less than it says")
		}
	})
}

// A recent position of each workspace that a webhook was answered with.
type positions struct {
	mu     sync.Mutex
	scopes []string
	of     map[string]string
	next   int
}

func (p *positions) saw(a provider.Attempt) {
	if a.Position == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.of[a.Workspace]; !known {
		p.scopes = append(p.scopes, a.Workspace)
	}
	p.of[a.Workspace] = a.Position
}

// any returns one workspace after the other with its position.
func (p *positions) any() (scope, position string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.scopes) == 0 {
		return "", ""
	}
	p.next++
	scope = p.scopes[p.next%len(p.scopes)]
	return scope, p.of[scope]
}

func serveTogether(t *testing.T, binary, hold string, r *oracle.Report) {
	t.Helper()
	f := newFixture(t, ackLatency)
	var instances []*instance
	for i := range 3 {
		p := f.role(fmt.Sprint("serve-", i), "serve", "--hold", hold).Listen("--api-addr").Store()
		p.Path = binary
		instances = append(instances, &instance{Program: p})
		f.start(p)
	}
	f.start(f.ingest, f.process)
	f.awaitReady(f.ingest, f.process)
	for _, in := range instances {
		took, err := in.AwaitReady(t.Context(), time.Minute)
		f.check(err)
		r.Fact(in.Name+": ready after, s", seconds(took))
	}
	recent := &positions{of: map[string]string{}}
	f.saw = recent.saw
	var c *clients
	var feeds []*feed
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	f.starts = func(h *gen.History) {
		var scopes []string
		for _, w := range h.Workspaces {
			scopes = append(scopes, w.ID)
		}
		c = newClients(instances, scopes, f.topics.Events, r)
		for i := range 4 {
			group.Go(func() error { c.query(ctx, h.Config.Seed+uint64(i), recent.any); return nil })
		}
		for i, in := range instances {
			for k, scope := range scopes[:4] {
				read := newFeed(c, in, scope)
				feeds = append(feeds, read)
				group.Go(func() error {
					if k == i {
						return read.follow(ctx)
					}
					return read.poll(ctx)
				})
			}
		}
	}
	sent := f.traffic(2200, plan{during: func(ctx context.Context, pace *rate.Limiter) error {
		return f.killInstances(ctx, instances, hold, r)
	}}, r)
	r.Fact("drained after the last event, s", seconds(f.drain(120*time.Second, true)))
	model := f.judge(oracle.Judge{Workspaces: true, Sent: sent}, r)
	for _, in := range instances {
		_, err := rig.AwaitView(t.Context(), in.Program, time.Minute)
		f.check(err)
	}
	awaitFeeds(t.Context(), c, feeds, r)
	stop()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	r.Fact("answers", fmt.Sprint(sum(c.answers)))
	r.Fact("longest refusal, s", seconds(c.longest)+" of "+c.which)
	for _, in := range instances {
		if err := model.JudgeAPI(t.Context(), c.http, in.URL, r); err != nil {
			t.Errorf("%v\n%s", err, in.Tail())
		}
	}
	c.compareLists(t.Context(), r)
	f.term(instances[0].Program, instances[1].Program, instances[2].Program, f.process, f.ingest)
}

func sum(counts map[string]int) (n int) {
	for _, k := range counts {
		n += k
	}
	return n
}

// killInstances kills the first instance, waits until the others have its share, and starts it again. Then it stops the
// second with SIGTERM, waits again, and starts it again. Of instances that share, the first one is then paused until
// the others have its share: when it continues, it does not know yet that it has lost it.
func (f *fixture) killInstances(ctx context.Context, instances []*instance, hold string, r *oracle.Report) error {
	sleep(ctx, 2*time.Second)
	start := func(in *instance) error { return in.Start() }
	for i, end := range []struct {
		how        string
		end, again func(in *instance) error
	}{
		{"killed", func(in *instance) error { return in.Kill() }, start},
		{"stopped", func(in *instance) error {
			_, err := in.Term(30 * time.Second)
			return err
		}, start},
		{
			"paused", func(in *instance) error { return pause(ctx, in) },
			func(in *instance) error { return in.Signal(syscall.SIGCONT) },
		},
	} {
		if end.how == "paused" && hold != "share" {
			break
		}
		in, other := instances[i%2], instances[2]
		in.set(true)
		if err := end.end(in); err != nil {
			return err
		}
		if hold == "share" && end.how != "stopped" && complete(ctx, other) {
			return errors.New("an instance was " + end.how + ", and another one says that all partitions are ready")
		}
		took, err := rig.Until(ctx, 60*time.Second, func() (bool, error) { return complete(ctx, other), nil })
		if err != nil {
			return fmt.Errorf("the share of the %s instance is not answered: %w\n%s", end.how, err, other.Tail())
		}
		r.Fact(end.how+": the others had its share after, s", seconds(took))
		sleep(ctx, time.Second)
		if err := end.again(in); err != nil {
			return err
		}
		took, err = in.AwaitReady(ctx, time.Minute)
		if err != nil {
			return err
		}
		r.Fact(end.how+": ready again after, s", seconds(took))
		in.set(false)
		sleep(ctx, 2*time.Second)
	}
	return nil
}

// pause stops an instance with SIGSTOP. It goes on running until one of its threads has received the signal, which
// takes a while on a machine under load.
func pause(ctx context.Context, in *instance) error {
	if err := in.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	_, err := rig.Until(ctx, 10*time.Second, func() (bool, error) { return in.Usage().Stopped, nil })
	sleep(ctx, 100*time.Millisecond) // the other threads
	return err
}

// complete reports whether an instance says that all partitions are ready.
func complete(ctx context.Context, in *instance) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, in.URL+"/v1/status", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	var status struct{ Ready bool }
	err = errors.Join(json.NewDecoder(response.Body).Decode(&status), response.Body.Close())
	return err == nil && status.Ready
}

// awaitFeeds waits until each feed's state is that of the listing.
func awaitFeeds(ctx context.Context, c *clients, feeds []*feed, r *oracle.Report) {
	differences := map[*feed]string{}
	took, err := rig.Until(ctx, 20*time.Second, func() (bool, error) {
		clear(differences)
		for _, read := range feeds {
			want, err := c.listing(ctx, read.instance(), read.scope)
			if err != nil && !errors.Is(err, errRefused) {
				return false, err
			}
			if difference := read.differs(want); difference != "" || err != nil {
				differences[read] = cmp.Or(difference, "the listing is refused")
			}
		}
		return len(differences) == 0, nil
	})
	for read, difference := range differences {
		c.violate("feeds that differ from the listing", "%s, %q: %s", read.instance().Name, read.scope, difference)
	}
	if err != nil && len(differences) == 0 {
		c.violate("feeds that differ from the listing", "%v", err)
	}
	r.Fact("feeds equal to the listings after, s", seconds(took))
}

// listing returns all files of a workspace, as JSON by id.
func (c *clients) listing(ctx context.Context, in *instance, scope string) (map[string]string, error) {
	files, cursor := map[string]string{}, ""
	for {
		body, err := c.get(ctx, in, c.about(scope),
			"/v1/workspaces/"+escape(scope)+"/files?status=all&kind=all&limit=200"+cursor)
		if err != nil || body == nil {
			return files, err
		}
		var page struct {
			Files      []json.RawMessage
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, err
		}
		for _, file := range page.Files {
			var id struct {
				FileID string `json:"file_id"`
			}
			if err := json.Unmarshal(file, &id); err != nil {
				return nil, err
			}
			files[id.FileID] = string(file)
		}
		if page.NextCursor == "" {
			return files, nil
		}
		cursor = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
}

// compareLists compares the list of workspaces, read in pages of three, and the positions of the status of all
// instances.
func (c *clients) compareLists(ctx context.Context, r *oracle.Report) {
	var first []string
	for i, in := range c.instances {
		var all []string
		cursor := ""
		for {
			body, err := c.get(ctx, in, "list", "/v1/workspaces?limit=3"+cursor)
			var page struct {
				Workspaces []json.RawMessage
				NextCursor string `json:"next_cursor"`
			}
			if err = errors.Join(err, json.Unmarshal(body, &page)); err != nil {
				r.Violate("lists that differ", "%s: %v", in.Name, err)
				return
			}
			for _, w := range page.Workspaces {
				all = append(all, string(w))
			}
			if page.NextCursor == "" {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(page.NextCursor)
		}
		body, err := c.get(ctx, in, "status", "/v1/status")
		var status struct {
			Partitions []struct {
				Partition int
				Position  string
				Ready     bool
			}
		}
		if err = errors.Join(err, json.Unmarshal(body, &status)); err != nil {
			r.Violate("lists that differ", "%s: %v", in.Name, err)
		}
		all = append(all, fmt.Sprint(status.Partitions))
		if i == 0 {
			first = all
		}
		if len(all) < len(c.scopes) || !slices.Equal(all, first) {
			r.Violate("lists that differ", "%s has %s\nand %s has %s", in.Name, strings.Join(all, "\n"),
				c.instances[0].Name, strings.Join(first, "\n"))
		}
	}
}

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tidemark/e2e/rig"
)

const (
	feedFiles   = 100_000
	feedChanged = 1000 // of them, before a resync
	feedRate    = 20   // changes a second
)

// feed measures the changes of one workspace of 100,000 files: readers of its server-sent events, and a resync as a
// listing and as a diff.
func feed(ctx context.Context, s setup) (_ result, err error) {
	s.workspaces, s.files, s.added, s.events = 1, feedFiles, 1, feedFiles*108/100 // some are repeats
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	if i.files != feedFiles {
		return nil, fmt.Errorf("the input has %d files, want %d", i.files, feedFiles)
	}
	process := rig.New(i.binary, i.dir, "process", append([]string{"process"}, i.flags()...)...).Store()
	if err := process.Start(); err != nil {
		return nil, err
	}
	defer process.Close()
	c := &contest{installation: i}
	serve := c.serve(noHistory)
	if err := serve.Start(); err != nil {
		return nil, err
	}
	defer serve.Close()
	f := &feeds{installation: i, in: newInput(s), serve: serve}
	f.in.at = f.in.at.AddDate(1, 0, 0) // after the input
	if err := f.settle(ctx); err != nil {
		return nil, err
	}
	resync, err := f.resync(ctx)
	if err != nil {
		return nil, err
	}
	readers := result{}
	for _, n := range []int{1, 100, 1000} {
		if readers[strconv.Itoa(n)], err = f.follow(ctx, n, time.Duration(s.seconds)*time.Second); err != nil {
			return nil, err
		}
	}
	figures := result{
		"measured": "feed", "files": i.files, "changes_per_s": feedRate, "readers": readers, "resync": resync,
	}
	return figures, errors.Join(stop(process), stop(serve), i.close(ctx))
}

type feeds struct {
	*installation
	in    *input
	serve *rig.Program
}

// settle waits until all events are in the answers.
func (f *feeds) settle(ctx context.Context) error {
	if err := f.awaitCommit(ctx, f.group()); err != nil {
		return err
	}
	_, err := rig.AwaitView(ctx, f.serve, patience)
	return err
}

// change updates a file, whose name is the time.
func (f *feeds) change(ctx context.Context, n int) error {
	f.in.at = f.in.at.Add(time.Second)
	e := event{workspace: f.in.workspaces[0], partition: f.in.partitions[0], id: "evt_" + f.in.id(26)}
	changed := f.in.file(0, n)
	changed.name = strconv.FormatInt(time.Now().UnixNano(), 10)
	e.value = f.in.body("updated", e, changed)
	return f.client.ProduceSync(ctx, e.record(f.topics.Events)).FirstErr()
}

func (f *feeds) path(rest string) string { return "/v1/workspaces/" + f.in.workspaces[0] + rest }

// follow measures the time from the production of a change to its event at each of n readers.
func (f *feeds) follow(ctx context.Context, n int, howLong time.Duration) (result, error) {
	before := f.serve.Usage()
	ctx, end := context.WithCancel(ctx)
	defer end()
	group, ctx := errgroup.WithContext(ctx)
	took := make([][]time.Duration, n)
	var ready sync.WaitGroup
	for r := range n {
		ready.Add(1)
		group.Go(func() error { return f.readEvents(ctx, sync.OnceFunc(ready.Done), &took[r]) })
	}
	ready.Wait()
	open, begin := f.serve.Usage(), time.Now()
	changes := 0
	for tick := time.NewTicker(time.Second / feedRate); time.Since(begin) < howLong && ctx.Err() == nil; changes++ {
		<-tick.C
		if err := f.change(ctx, changes); err != nil {
			return nil, err
		}
	}
	err := f.settle(ctx)
	used := f.serve.Usage()
	lasted := time.Since(begin).Seconds()
	time.Sleep(time.Second) // what is on its way to the readers
	end()
	if groupErr := group.Wait(); !errors.Is(groupErr, context.Canceled) {
		err = errors.Join(err, groupErr)
	}
	all := slices.Concat(took...)
	if err == nil && len(all) != n*changes {
		err = fmt.Errorf("%d readers had %d events of %d changes", n, len(all), changes)
	}
	say("%d readers: %d changes, p50 %.1f ms, p99 %.1f ms", n, changes, quantile(all, 0.5), quantile(all, 0.99))
	return result{
		"events": len(all), "p50_ms": quantile(all, 0.50), "p99_ms": quantile(all, 0.99), "max_ms": quantile(all, 1),
		"rss_mb": per(used.RSSMB, 1), "kb_each": per((open.RSSMB-before.RSSMB)*1000, float64(n)),
		"cpu_share": per((used.CPU - open.CPU).Seconds(), lasted),
	}, err
}

// readEvents follows the changes until ctx ends. The first heartbeat says that the reader is up to date.
func (f *feeds) readEvents(ctx context.Context, ready func(), took *[]time.Duration) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(f.serve.URL, "http://"))
	if err != nil {
		ready()
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
		f.path("/changes?cursor=latest"))
	lines := bufio.NewScanner(conn)
	for err == nil && lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte("event: heartbeat")) {
			ready()
		}
		if _, rest, ok := bytes.Cut(lines.Bytes(), []byte(`"name":"`)); ok {
			sent, _, _ := bytes.Cut(rest, []byte(`"`))
			var at int64
			at, err = strconv.ParseInt(string(sent), 10, 64)
			*took = append(*took, time.Since(time.Unix(0, at)))
		}
	}
	ready()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, lines.Err(), errors.New("a stream has ended"))
}

// A version is what a client has of a file.
type version struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
}

// resync measures what a client that has all files but the last changes transfers, as a listing and as a diff.
func (f *feeds) resync(ctx context.Context) (result, error) {
	var had []version
	if _, err := f.list(ctx, &had); err != nil {
		return nil, err
	}
	for n := range feedChanged {
		if err := f.change(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := f.settle(ctx); err != nil {
		return nil, err
	}
	listing, err := f.list(ctx, new([]version))
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"files": had})
	if err != nil {
		return nil, err
	}
	var answer struct{ Changed, Gone, New []json.RawMessage }
	diff, err := f.transfer(ctx, http.MethodPost, f.path("/changes/diff"), body, &answer)
	wrong := len(answer.Changed) != feedChanged || len(answer.Gone)+len(answer.New) > 0 || len(had) != feedFiles
	if err == nil && wrong {
		err = fmt.Errorf("the diff of %d files has %d, %d gone and %d new ones", len(had), len(answer.Changed),
			len(answer.Gone), len(answer.New))
	}
	return result{"listing": listing.figures(), "diff": diff.figures()}, err
}

// list reads all files, in pages of 1,000.
func (f *feeds) list(ctx context.Context, all *[]version) (sum transferred, err error) {
	for cursor := ""; err == nil; {
		var page struct {
			Files []struct {
				FileID  string `json:"file_id"`
				Version int64
			}
			Next string `json:"next_cursor"`
		}
		var t transferred
		t, err = f.transfer(ctx, http.MethodGet, f.path("/files?limit=1000&cursor="+cursor), nil, &page)
		sum.up, sum.down, sum.gzip, sum.took = sum.up+t.up, sum.down+t.down, sum.gzip+t.gzip, sum.took+t.took
		for _, file := range page.Files {
			*all = append(*all, version{file.FileID, file.Version})
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	return sum, err
}

// transferred are the bytes of bodies, and how long the server took to send them compressed.
type transferred struct {
	up, down, gzip int
	took           time.Duration
}

func (t transferred) figures() result {
	return result{
		"sent_mb": per(float64(t.up), 1e6), "received_mb": per(float64(t.down), 1e6),
		"received_gzip_mb": per(float64(t.gzip), 1e6), "s": per(t.took.Seconds(), 1),
	}
}

// transfer sends a request whose answer may be compressed, and decodes it.
func (f *feeds) transfer(ctx context.Context, method, path string, body []byte, answer any) (t transferred, err error) {
	request, err := http.NewRequestWithContext(ctx, method, f.serve.URL+path, bytes.NewReader(body))
	if err != nil {
		return t, err
	}
	request.Header.Set("Accept-Encoding", "gzip")
	begin := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return t, err
	}
	compressed, err := io.ReadAll(response.Body)
	t = transferred{up: len(body), gzip: len(compressed), took: time.Since(begin)}
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return t, err
	}
	content := compressed
	if response.Header.Get("Content-Encoding") == "gzip" {
		unzip, err := gzip.NewReader(bytes.NewReader(compressed))
		if err != nil {
			return t, err
		}
		if content, err = io.ReadAll(unzip); err != nil {
			return t, err
		}
	}
	if t.down = len(content); response.StatusCode != http.StatusOK {
		return t, fmt.Errorf("%s %s: %s %s", method, path, response.Status, content)
	}
	return t, json.Unmarshal(content, answer)
}

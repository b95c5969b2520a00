package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tidemark/e2e/rig"
)

// A readRun is a load of one kind of request on a serve that runs on one core.
type readRun struct {
	Kind        string  `json:"kind"` // point, or page: 100 files below a folder
	Files       int     `json:"files"`
	Repetition  int     `json:"repetition"`
	Connections int     `json:"connections"`
	PerS        float64 `json:"per_s"`
	CPUus       float64 `json:"cpu_us_each"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	span
}

// forgetReads removes the reads of more files than the input of throughput has, or of those.
func (r *comparison) forgetReads(many bool) {
	r.Reads = slices.DeleteFunc(r.Reads, func(x readRun) bool { return x.Files >= growthReads == many })
}

// A request has what must be in its answer so many times.
type request struct {
	path, want string
	times      int
}

const pageSize = 100

// readLoads are by kind. Points come as fast as one core answers them, pages one after another.
var readLoads = []struct {
	kind        string
	connections int
	requests    func(*input) []request
}{{"point", 16, points}, {"page", 1, pages}}

// points reads single files, each as often as any other.
func points(in *input) (all []request) {
	for range min(in.total, 200_000) {
		w := in.workspace()
		for in.files[w] == 0 {
			w = in.workspace()
		}
		id := in.file(w, in.random.IntN(in.files[w])).id
		all = append(all, request{"/v1/workspaces/" + in.workspaces[w] + "/files/" + id, `"file_id":"` + id + `"`, 1})
	}
	return all
}

// pages reads the first page of each folder of workspaces that have enough files to fill it.
func pages(in *input) (all []request) {
	for w, files := range in.files {
		if files < 3*pageSize*len(folders) {
			continue
		}
		for _, folder := range folders {
			path := fmt.Sprintf("/v1/workspaces/%s/files?limit=%d&path_prefix=/%s/", in.workspaces[w], pageSize, folder)
			all = append(all, request{path, `"file_id":`, pageSize})
		}
	}
	return all
}

// reads measures the query API on one core, which neither the client nor the broker uses. Its store is complete and was
// opened again, so that no cache is warm that a restart would empty.
func (u *suite) reads(ctx context.Context, c *contest, in *input) error {
	others := runtime.NumCPU() - 1
	for _, pid := range []int{os.Getpid(), c.brokerPID} {
		if err := confine(ctx, pid, fmt.Sprintf("1-%d", others)); err != nil {
			return err
		}
		defer confine(ctx, pid, fmt.Sprintf("0-%d", others)) //nolint:errcheck // as it could before
	}
	p := c.serve(noHistory)
	p.Path, p.Args = "taskset", append([]string{"-c", "0", c.binary}, p.Args...)
	if err := p.Start(); err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.AwaitReady(ctx, patience); err != nil {
		return err
	}
	for rep := range u.reps {
		for _, l := range readLoads {
			requests := l.requests(in)
			if len(requests) == 0 {
				return errors.New("no workspace has enough files for a page")
			}
			run, ok, err := counted(ctx, u, l.kind+" reads", rep+1, func() (readRun, error) {
				return c.read(ctx, p, requests, l.connections, u.phase()/2)
			})
			if err != nil {
				return err
			}
			if ok {
				run.Kind, run.Files, run.Repetition = l.kind, in.total, rep+1
				u.report.Reads = append(u.report.Reads, run)
				say("%s reads of %d files: %.0f/s, %.1f us, p50 %.2f ms, p99 %.2f ms", l.kind, in.total,
					run.PerS, run.CPUus, run.P50, run.P99)
			}
		}
	}
	return stop(p)
}

// confine moves all threads of a process to some cores.
func confine(ctx context.Context, pid int, cores string) error {
	out, err := exec.CommandContext(ctx, "taskset", "-a", "-c", "-p", cores, strconv.Itoa(pid)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("move process %d to cores %s: %w: %s", pid, cores, err, out)
	}
	return nil
}

// read sends requests over so many connections, each the next one when it has its answer, and checks all answers.
func (c *contest) read(
	ctx context.Context, p *rig.Program, requests []request, connections int, howLong time.Duration,
) (run readRun, err error) {
	if _, err = drive(ctx, p, requests, connections, time.Second); err != nil { // warm up
		return run, err
	}
	o, err := observe(c.brokerPID, p)
	if err != nil {
		return run, err
	}
	took, err := drive(ctx, p, requests, connections, howLong)
	if err != nil {
		return run, err
	}
	used, err := o.end()
	n := float64(len(took))
	return readRun{
		Connections: connections, PerS: per(n, used.Seconds), CPUus: per(used.CPU*1e6, n),
		P50: quantile(took, 0.50), P99: quantile(took, 0.99), span: used,
	}, err
}

// drive returns how long each request took.
func drive(
	ctx context.Context, p *rig.Program, requests []request, connections int, howLong time.Duration,
) ([]time.Duration, error) {
	all := make([][]time.Duration, connections)
	group, ctx := errgroup.WithContext(ctx)
	end := time.Now().Add(howLong)
	for i := range connections {
		group.Go(func() error {
			conn, err := dial(ctx, p.URL)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }() // it is over
			for n := i; time.Now().Before(end); n += connections {
				begin := time.Now()
				if err := conn.get(requests[n%len(requests)]); err != nil {
					return err
				}
				all[i] = append(all[i], time.Since(begin))
			}
			return nil
		})
	}
	err := group.Wait()
	return slices.Concat(all...), err
}

// A reader is a keep-alive connection. The client of net/http would use more of the CPU than the server.
type reader struct {
	net.Conn
	answers *bufio.Reader
	host    string
	body    bytes.Buffer
}

func dial(ctx context.Context, url string) (*reader, error) {
	host := strings.TrimPrefix(url, "http://")
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return &reader{Conn: conn, answers: bufio.NewReaderSize(conn, 64<<10), host: host}, nil
}

// get sends a request, and returns an error if its answer is not what it must be.
func (r *reader) get(q request) error {
	if _, err := io.WriteString(r, "GET "+q.path+" HTTP/1.1\r\nHost: "+r.host+"\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(r.answers, nil) //nolint:bodyclose // it is read to its end below
	if err != nil {
		return err
	}
	r.body.Reset()
	if _, err := r.body.ReadFrom(answer.Body); err != nil {
		return err
	}
	if n := bytes.Count(r.body.Bytes(), []byte(q.want)); n != q.times || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s has %s %d times, want %d", q.path, answer.Status, q.want, n, q.times)
	}
	return nil
}

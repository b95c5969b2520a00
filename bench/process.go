package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is a running tidemark.
type process struct {
	cmd   *exec.Cmd
	admin string
	log   string
	ended chan struct{} // closed when the process has ended, with err
	err   error
}

// start runs a tidemark command on the measurement's topics.
func (s setup) start(ctx context.Context, c *cluster, args ...string) (*process, error) {
	return s.launch(ctx, args[0], append(os.Environ(),
		"TIDEMARK_BROKERS="+strings.Join(s.brokers, ","),
		"TIDEMARK_TOPIC_PREFIX="+strings.TrimSuffix(c.streams.Events.Name, "-events"),
		fmt.Sprintf("TIDEMARK_PARTITIONS=%d", s.partitions), "TIDEMARK_REPLICATION=1", "TIDEMARK_MIN_INSYNC=1"), args...)
}

// process runs the groups as the flags say.
func (s setup) process(ctx context.Context, c *cluster) (*process, error) {
	return s.start(ctx, c, "process", "--groups", s.groups, "--data", filepath.Join(s.dir, "data"),
		"--guarantee", s.guarantee, "--instance-id", "bench", "--epoch", s.epoch.String())
}

// launch runs a tidemark command with an admin address and a log of its own.
func (s setup) launch(ctx context.Context, name string, env []string, args ...string) (*process, error) {
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &process{admin: admin, log: filepath.Join(s.dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	p.cmd = exec.CommandContext(ctx, s.binary, append(args, "--admin-addr", admin)...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = log, log, env
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start tidemark: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process as an operator does, and fails when it does not leave well.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop tidemark: %w", err)
	}
	<-p.ended
	return p.failure()
}

// failure says how the process ended, with the end of its log when it did not end well.
func (p *process) failure() error {
	if p.err == nil {
		return nil
	}
	tail, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Errorf("tidemark failed: %w, and its log cannot be read: %w", p.err, err)
	}
	return fmt.Errorf("tidemark failed: %w\n%s", p.err, tail[max(0, len(tail)-2000):])
}

// kill ends what an early return left behind.
func (p *process) kill() { _ = p.cmd.Process.Kill() } // it may have ended already

// ready says whether every role of the process is.
func (p *process) ready() (bool, error) {
	select {
	case <-p.ended:
		return false, errors.Join(errors.New("tidemark ended before it was ready"), p.failure())
	default:
	}
	answer, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return false, nil // not listening yet
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK, nil
}

// A usage is what the process has taken of the machine since its start.
type usage struct {
	cpu    time.Duration
	peakMB int
}

func (u usage) minus(before usage) usage { return usage{u.cpu - before.cpu, u.peakMB} }

// usage reads /proc: user and system time in ticks of 10 ms, and the peak of resident memory.
func (p *process) usage() usage {
	var u usage
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	if b, err := os.ReadFile(dir + "stat"); err == nil {
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, field := range fields[11:13] { // utime, stime: see proc(5)
			ticks, _ := strconv.Atoi(field) // the kernel writes numbers
			u.cpu += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	if b, err := os.ReadFile(dir + "status"); err == nil {
		_, peak, _ := strings.Cut(string(b), "VmHWM:")
		kb, _ := strconv.Atoi(strings.Fields(peak)[0]) // likewise
		u.peakMB = kb / 1024
	}
	return u
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

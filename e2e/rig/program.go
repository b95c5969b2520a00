// Package rig starts tidemark's processes on a cluster and observes them: the crash test, the fault harness and the
// benchmarks share it.
//
// It promises that a program gets no setting from its surroundings, that its log outlives its restarts, and that an
// address or an offset comes from the process or the cluster itself. It decides nothing about what was observed: that
// is package oracle's part.
package rig

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Program is a command line that can be started again after it has ended. All its runs append to one log.
type Program struct {
	Name, Path string
	Args, Env  []string
	Log        string
	Admin      string // address of /readyz and /metrics
	URL        string // of what it serves, if anything
	Data       string // folder of its local store, if it has one

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, once done is closed
}

// New returns a tidemark command with an admin address of its own; its log is name.log in dir.
func New(binary, dir, name string, command ...string) *Program {
	p := &Program{Name: name, Path: binary, Log: filepath.Join(dir, name+".log"), Admin: FreeAddr()}
	p.Args = append(append(p.Args, command...), "--admin-addr", p.Admin)
	return p
}

// Listen gives the program a free address by a flag.
func (p *Program) Listen(flag string) *Program {
	addr := FreeAddr()
	p.Args, p.URL = append(p.Args, flag, addr), "http://"+addr
	return p
}

// Store gives the program a folder for its local store, beside its log.
func (p *Program) Store() *Program {
	p.Data = filepath.Join(filepath.Dir(p.Log), "data-"+p.Name)
	p.Args = append(p.Args, "--data", p.Data)
	return p
}

// Start runs the program.
func (p *Program) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own copy
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	cmd.Env = append(cmd.Env, p.Env...)
	cmd.Dir = filepath.Dir(p.Log)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches the parent only, which ends its children
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.done, p.err = cmd, done, nil
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// running returns nil when the program does not run.
func (p *Program) running() (process *os.Process, done chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		return nil, nil
	}
	select {
	case <-p.done:
		return nil, nil
	default:
		return p.cmd.Process, p.done
	}
}

// Alive reports whether the program runs.
func (p *Program) Alive() bool {
	process, _ := p.running()
	return process != nil
}

// exit is how the last run ended.
func (p *Program) exit() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Signal sends a signal. It is an error that the program has ended before.
func (p *Program) Signal(s syscall.Signal) error {
	_, err := p.signal(s)
	return err
}

func (p *Program) signal(s syscall.Signal) (done chan struct{}, err error) {
	process, done := p.running()
	if process == nil {
		return nil, fmt.Errorf("%s had ended by itself: %w\n%s", p.Name, p.exit(), p.Tail())
	}
	return done, process.Signal(s)
}

// Kill ends the program with SIGKILL and waits until it has ended.
func (p *Program) Kill() error {
	done, err := p.signal(syscall.SIGKILL)
	if err == nil {
		<-done
	}
	return err
}

// Close kills a program that still runs.
func (p *Program) Close() {
	if p.Alive() {
		_ = p.Kill() // at worst it ended in between
	}
}

// Term ends the program with SIGTERM, and returns how long it took to drain.
func (p *Program) Term(limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	done, err := p.signal(syscall.SIGTERM)
	if err != nil {
		return 0, err
	}
	select {
	case <-done:
		if err := p.exit(); err != nil {
			return 0, fmt.Errorf("%s after SIGTERM: %w\n%s", p.Name, err, p.Tail())
		}
		return time.Since(begin), nil
	case <-time.After(limit):
		return limit, errors.Join(fmt.Errorf("%s did not end within %v\n%s", p.Name, limit, p.Tail()), p.Kill())
	}
}

// Tail returns the last lines of the log.
func (p *Program) Tail() string {
	data, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// AwaitReady waits until the admin address answers that the program is ready, and returns how long that took.
func (p *Program) AwaitReady(ctx context.Context, limit time.Duration) (time.Duration, error) {
	client := http.Client{Timeout: time.Second}
	last := "no answer yet"
	took, err := Until(ctx, limit, func() (bool, error) {
		if !p.Alive() {
			return false, fmt.Errorf("it ended: %w", p.exit())
		}
		resp, err := client.Get("http://" + p.Admin + "/readyz")
		if err != nil {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		last = resp.Status
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
	if err != nil {
		return 0, fmt.Errorf("%s is not ready (%s): %w\n%s", p.Name, last, err, p.Tail())
	}
	return took, nil
}

// Build builds a program of this module in dir.
func Build(dir, pkg string, flags ...string) (string, error) {
	path := filepath.Join(dir, filepath.Base(pkg))
	args := append(append([]string{"build", "-o", path}, flags...), pkg)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// returned are the addresses that FreeAddr has returned: one may be free while its program is restarted.
var returned sync.Map

// FreeAddr returns a loopback address without a listener that it has not returned before. Its port is below those that
// the kernel gives to clients' connections: one of these could take it while a program is restarted.
func FreeAddr() string {
	var last error
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(9000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			last = err
			continue
		}
		_ = l.Close()
		if _, again := returned.LoadOrStore(addr, true); !again {
			return addr
		}
	}
	panic(fmt.Sprintf("no free port on loopback, without which nothing can be tested: %v", last))
}

// Sleep waits for d, or for the end of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Until calls done every 50 ms until it returns true or an error, and returns how long that took.
func Until(ctx context.Context, limit time.Duration, done func() (bool, error)) (time.Duration, error) {
	for begin := time.Now(); ; {
		switch ok, err := done(); {
		case ok || err != nil:
			return time.Since(begin), err
		case time.Since(begin) > limit:
			return limit, fmt.Errorf("not within %v", limit)
		}
		if err := Sleep(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

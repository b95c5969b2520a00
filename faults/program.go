package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A program is a command line that is started, hurt and started again. It logs to one file over all its lives.
type program struct {
	name, path string
	args, env  []string
	log        string
	admin      string      // address of /readyz and /metrics
	url        string      // what it serves, if anything
	data       string      // folder of its local store, if it has one
	out        atomic.Bool // of rotation: it is to stop, and senders have noticed

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, once done is closed
}

func (p *program) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the child has its own copy
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}, p.env...)
	cmd.Dir = filepath.Dir(p.log)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches the harness, which ends its children itself
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done, p.err = cmd, done, nil
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

func (p *program) state() (cmd *exec.Cmd, done chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.done, p.err
}

func (p *program) alive() bool {
	_, done, _ := p.state()
	if done == nil {
		return false
	}
	select {
	case <-done:
		return false
	default:
		return true
	}
}

func (p *program) signal(s syscall.Signal) error {
	cmd, _, err := p.state()
	if !p.alive() {
		return fmt.Errorf("%s had ended by itself: %w\n%s", p.name, err, p.tail())
	}
	return cmd.Process.Signal(s)
}

// kill ends the program as a crash would, and waits for its end.
func (p *program) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	_, done, _ := p.state()
	<-done
	return nil
}

// drainLimit is how long the documentation gives a role that was told to leave.
const drainLimit = 90 * time.Second

// term asks the program to drain, and returns how long that took.
func (p *program) term() (time.Duration, error) {
	begin := time.Now()
	if err := p.signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	_, done, _ := p.state()
	select {
	case <-done:
		_, _, err := p.state()
		return time.Since(begin), err
	case <-time.After(drainLimit):
		return drainLimit, errors.Join(fmt.Errorf("%s did not end within %v", p.name, drainLimit), p.kill())
	}
}

func (p *program) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// ready asks the admin address.
func (p *program) ready() bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // only the status is asked for
	return resp.StatusCode == http.StatusOK
}

// rss is what the program holds in memory, in MB; 0 when it is not there.
func (p *program) rss() float64 {
	cmd, _, _ := p.state()
	if cmd == nil || !p.alive() {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == "VmRSS:" {
			kb, _ := strconv.ParseFloat(string(fields[1]), 64) // the kernel writes a number
			return kb / 1024
		}
	}
	return 0
}

// ports are the local ports of the program's TCP connections. They are not known where the kernel does not tell (/proc).
func (p *program) ports() (ports map[int]bool, known bool) {
	cmd, _, _ := p.state()
	if cmd == nil || !p.alive() {
		return nil, false
	}
	return portsOf(cmd.Process.Pid)
}

func portsOf(pid int) (ports map[int]bool, known bool) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		return nil, false
	}
	own := map[string]bool{} // inodes
	for _, file := range files {
		target, _ := os.Readlink(proc + "fd/" + file.Name()) // it may have been closed meanwhile
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	ports = map[int]bool{}
	for _, table := range []string{"net/tcp", "net/tcp6"} { // Java's sockets are of the second kind
		text, err := os.ReadFile(proc + table)
		if err != nil {
			continue // a kernel without it, or a process that has ended
		}
		known = true
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line) // see proc(5): the second is the local address in hexadecimal, the tenth the inode
			if len(fields) < 10 || !own[fields[9]] {
				continue
			}
			_, port, _ := strings.Cut(fields[1], ":")
			if n, err := strconv.ParseInt(port, 16, 32); err == nil {
				ports[int(n)] = true
			}
		}
	}
	return ports, known
}

// build makes a program of this module.
func build(dir, pkg string, flags ...string) (string, error) {
	path := filepath.Join(dir, filepath.Base(pkg))
	if out, err := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), pkg)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// handed are the addresses given out so far: the kernel may give one again as soon as it is free.
var handed sync.Map

// freeAddr returns a loopback address that nobody listens on at the moment, and that it has not returned before.
func freeAddr() string {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err) // without loopback there is nothing to test
		}
		addr := l.Addr().String()
		_ = l.Close() // ours
		if _, given := handed.LoadOrStore(addr, true); !given {
			return addr
		}
	}
}

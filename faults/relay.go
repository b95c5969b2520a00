package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tidemark/e2e/rig"
)

// A relay forwards the connections between the nodes of a cluster: they advertise its addresses to each other. It
// holds the bytes from and to an isolated node, as a broken network does: nothing is refused, and all bytes arrive in
// the end. It looks up the node of a connection in /proc, by the connection's port.
type relay struct {
	state string // folder of cluster.sh, with the nodes' pids

	mu     sync.Mutex
	gates  [nodes + 1]chan struct{} // by node; closed: bytes from and to it pass
	closed bool
	ends   map[io.Closer]struct{} // listeners and connections
}

// startRelay listens at the addresses that the nodes advertise with RELAYED=1: see cluster.sh.
func startRelay(base int, state string) (*relay, error) {
	r := &relay{state: state, ends: map[io.Closer]struct{}{}}
	for n := 1; n <= nodes; n++ {
		r.gates[n] = make(chan struct{})
		close(r.gates[n])
		for at, to := range map[int]int{base + 70 + n: base + 60 + n, base + 80 + n: base + 30 + n} {
			l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", at))
			if err != nil {
				return nil, errors.Join(err, r.close())
			}
			r.keep(l)
			go r.listen(l, n, fmt.Sprint("127.0.0.1:", to))
		}
	}
	return r, nil
}

// isolate holds all bytes between a node and the others until reconnect is called. Clients still reach it.
func (r *relay) isolate(n int) (reconnect func()) {
	gate := make(chan struct{})
	r.mu.Lock()
	r.gates[n] = gate
	r.mu.Unlock()
	return sync.OnceFunc(func() { close(gate) })
}

// close ends all connections. No node may be isolated.
func (r *relay) close() (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for end := range r.ends {
		if e := end.Close(); !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (r *relay) listen(l net.Listener, to int, addr string) {
	for {
		caller, err := l.Accept()
		if err != nil {
			return // closed
		}
		go r.serve(caller.(*net.TCPConn), to, addr)
	}
}

func (r *relay) serve(caller *net.TCPConn, to int, addr string) {
	callee, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		_ = caller.SetLinger(0) // a reset, as if the node itself were down
		_ = caller.Close()
		return
	}
	from := r.node(caller.RemoteAddr().(*net.TCPAddr).Port)
	if from == 0 || !r.keep(caller, callee) { // ended meanwhile
		_ = caller.Close()
		_ = callee.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.copy(callee, caller, from, to) })
	both.Go(func() { r.copy(caller, callee, from, to) })
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ends, caller)
	delete(r.ends, callee)
}

// keep registers connections to be closed with the relay, and reports whether the relay is still open.
func (r *relay) keep(ends ...io.Closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, end := range ends {
		r.ends[end] = struct{}{}
	}
	return !r.closed
}

// copy forwards bytes, and the end of the connection, while neither node is isolated.
func (r *relay) copy(to, from net.Conn, caller, callee int) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		r.pass(caller, callee)
		if _, e := to.Write(buffer[:n]); e != nil || err != nil {
			return
		}
	}
}

// pass waits until neither of two nodes is isolated. Connections of a node to itself always pass.
func (r *relay) pass(caller, callee int) {
	if caller == callee {
		return
	}
	r.mu.Lock()
	gates := []chan struct{}{r.gates[caller], r.gates[callee]}
	r.mu.Unlock()
	for _, gate := range gates {
		<-gate
	}
}

// node returns the node that has a connection from a local port, 0 if none.
func (r *relay) node(port int) int {
	for n := 1; n <= nodes; n++ {
		text, err := os.ReadFile(filepath.Join(r.state, strconv.Itoa(n), "pid"))
		if err != nil {
			continue // it is down
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue // it is being started
		}
		if ports, _ := rig.PortsOf(pid); ports[port] {
			return n
		}
	}
	return 0
}

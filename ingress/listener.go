package ingress

import (
	"net"
	"sync"
)

// DefaultMaxConnections is twice what may be in flight: the other half are being read, or idle.
const DefaultMaxConnections = 2 * DefaultMaxInFlight

// LimitConnections returns a listener with at most so many connections open; 0 is DefaultMaxConnections. Further ones wait
// where the kernel keeps them, until one is closed: each open one costs memory and a file, whoever is behind it, and the
// producer needs files as well.
func LimitConnections(l net.Listener, most int) net.Listener {
	if most <= 0 {
		most = DefaultMaxConnections
	}
	return &limited{Listener: l, places: make(chan struct{}, most), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	places chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a place and then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placed{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// Close also ends an Accept that waits for a place.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A placed connection gives its place back when it is closed, once.
type placed struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

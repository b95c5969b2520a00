package proxy

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An Effect is what a fault does to requests, answers or connections.
type Effect int

// The effects.
const (
	HoldAnswers  Effect = iota // answers wait until the fault is lifted
	HoldRequests               // requests wait until then
	CutAnswers                 // the broker has applied the request; the answer is lost with its connection
	DelayAnswers               // each answer is late by Delay
	Refuse                     // connections are reset, new ones too
	Silence                    // nothing passes, in either direction, and connections stay open: a network partition
	IdleOut                    // connections that were idle for Delay are closed, as by connections.max.idle.ms
)

// A Request is what a fault may match.
type Request struct {
	Broker string // the address behind the proxy
	Key    int16
	Topics []string // of a write
}

// A Fault is in effect from Inject on until it is lifted.
type Fault struct {
	Effect  Effect
	Brokers []string           // nil: all
	Match   func(Request) bool // nil: all
	Delay   time.Duration
	Hits    atomic.Int64 // requests, answers or connections that it matched
	// Forget drops held requests whose client has closed its connection when the fault is lifted, as if they had not
	// been sent. Else they arrive late, as from a slow network.
	Forget bool

	lifted chan struct{}
	mu     sync.Mutex
	held   []int // ports of the clients whose requests or answers wait
}

// Holds reports whether a request or an answer of a client with one of the ports is held.
func (f *Fault) Holds(client func(port int) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.held, client)
}

// hold waits until the fault is lifted.
func (f *Fault) hold(client int) {
	f.mu.Lock()
	f.held = append(f.held, client)
	f.mu.Unlock()
	<-f.lifted
}

func (f *Fault) on(broker string) bool { return f.Brokers == nil || slices.Contains(f.Brokers, broker) }

func (f *Fault) meets(r Request, effects ...Effect) bool {
	if !slices.Contains(effects, f.Effect) || !f.on(r.Broker) || f.Match != nil && !f.Match(r) {
		return false
	}
	f.Hits.Add(1)
	return true
}

// Inject begins a fault. A fault is injected once.
func (p *Proxy) Inject(f *Fault) (lift func()) {
	f.lifted = make(chan struct{})
	p.mu.Lock()
	p.faults = append(p.faults, f)
	var reset []*link
	for l := range p.links {
		if f.Effect == Refuse && f.on(l.broker) {
			reset = append(reset, l)
		}
	}
	p.mu.Unlock()
	for _, l := range reset {
		f.Hits.Add(1)
		l.end()
	}
	if f.Effect == IdleOut {
		go p.reap(f)
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		p.faults = slices.DeleteFunc(p.faults, func(g *Fault) bool { return g == f })
		p.mu.Unlock()
		close(f.lifted)
	})
}

// reap closes idle connections.
func (p *Proxy) reap(f *Fault) {
	for {
		select {
		case <-f.lifted:
			return
		case <-time.After(min(f.Delay/4, time.Second)):
		}
		p.mu.Lock()
		var idle []*link
		for l := range p.links {
			if f.on(l.broker) && time.Since(time.Unix(0, l.moved.Load())) > f.Delay {
				idle = append(idle, l)
			}
		}
		p.mu.Unlock()
		for _, l := range idle {
			f.Hits.Add(1)
			l.end()
		}
	}
}

// A link is one client's connection with the broker's.
type link struct {
	broker         string
	port           int // the client's
	client, server net.Conn
	moved          atomic.Int64 // when bytes passed last
	gone           atomic.Bool  // the client has closed it
}

func (l *link) end() { _, _ = l.client.Close(), l.server.Close() } // either may have ended already

func (p *Proxy) active() []*Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.faults)
}

// connecting holds or refuses a new connection.
func (p *Proxy) connecting(broker string) (allowed bool) {
	for _, f := range p.active() {
		switch {
		case f.meets(Request{Broker: broker}, Refuse):
			return false
		case f.Effect == Silence && f.meets(Request{Broker: broker}, Silence):
			<-f.lifted
		}
	}
	return true
}

// Serves reports whether a client with one of the ports is still connected.
func (p *Proxy) Serves(client func(port int) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if !l.gone.Load() && client(l.port) {
			return true
		}
	}
	return false
}

// forwarding holds a request.
func (p *Proxy) forwarding(l *link, r Request) (allowed bool) {
	for _, f := range p.active() {
		if !f.meets(r, HoldRequests, Silence) {
			continue
		}
		if f.hold(l.port); f.Forget && l.gone.Load() {
			return false
		}
	}
	return true
}

// answering holds, delays or drops an answer that arrived at a time.
func (p *Proxy) answering(l *link, r Request, came time.Time) (allowed bool) {
	for _, f := range p.active() {
		if !f.meets(r, HoldAnswers, DelayAnswers, CutAnswers, Silence) {
			continue
		}
		switch f.Effect {
		case CutAnswers:
			return false
		case DelayAnswers:
			select {
			case <-time.After(time.Until(came.Add(f.Delay))):
			case <-f.lifted:
			}
		default:
			f.hold(l.port)
		}
	}
	return true
}

package proxy

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An Effect is what a fault does to what it matches.
type Effect int

// The effects.
const (
	HoldAnswers  Effect = iota // answers wait until the fault is lifted
	HoldRequests               // requests wait until then
	CutAnswers                 // the broker has done it; the answer is lost with its connection
	DelayAnswers               // each answer is late by Delay
	Refuse                     // connections are reset, new ones too
	Silence                    // nothing passes, either way; nobody is told. Then it goes on, as after a healed partition
	IdleOut                    // connections that were silent for Delay are closed, as brokers do with connections.max.idle.ms
)

// A Request is what a fault may look at.
type Request struct {
	Broker string // the address behind the proxy
	Key    int16
	Topics []string // of a write
}

// A Fault is something that goes wrong from Inject on until it is lifted.
type Fault struct {
	Effect  Effect
	Brokers []string           // nil: all
	Match   func(Request) bool // nil: all
	Delay   time.Duration
	Hits    atomic.Int64 // requests, answers or connections that it met
	// Forget drops held requests whose client has gone when the fault is lifted: it had not sent them yet. Else they arrive, as
	// what a network delays does.
	Forget bool

	lifted chan struct{}
	mu     sync.Mutex
	held   []int // ports of the clients whose requests or answers wait
}

// Holds says whether anything of a client waits that has one of the ports.
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
	moved          atomic.Int64 // when anything passed last
	gone           atomic.Bool  // the client has closed it, or died
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

// Serves says whether a client that has one of the ports is still there.
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

// answering holds, delays or cuts an answer that came at a time.
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

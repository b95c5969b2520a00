// Package proxy is a Kafka proxy that injects faults between clients and a cluster.
//
// It promises that clients that bootstrap from it connect through it only, because it rewrites the brokers'
// advertised addresses. It changes nothing else, drops only what a Fault drops, and keeps the order of answers on a
// connection. It parses Kafka's frames, under TLS too when it has keys, so a fault can hold the acknowledgements of
// one topic and let heartbeats pass. A client certificate does not reach the broker through it.
package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Config has the brokers, where to listen for each of them, and which acknowledgements are late.
type Config struct {
	Brokers []string
	// Listen has the address to listen at by broker; a broker without one gets a free port. An advertised address
	// that is one of these is not rewritten.
	Listen map[string]string
	// Server is for the clients, Client for the brokers; nil is plaintext.
	Server, Client *tls.Config
	// Late reports whether writes to a topic are acknowledged late; nil is none.
	Late func(topic string) bool
	// Latency is added to each late acknowledgement.
	Latency time.Duration
}

// A Proxy is in front of one cluster. Close ends it and its connections.
type Proxy struct {
	conf Config

	mu     sync.Mutex
	local  map[string]*net.TCPAddr // where it listens for a broker's address
	topics map[[16]byte]string     // names by id, from metadata
	gate   chan struct{}           // closed: acknowledgements pass
	faults []*Fault
	links  map[*link]struct{}
	close  []io.Closer // listeners
	closed bool
}

// Start listens on loopback for each of the brokers.
func Start(c Config) (*Proxy, error) {
	open := make(chan struct{})
	close(open)
	p := &Proxy{
		conf: c, local: map[string]*net.TCPAddr{}, topics: map[[16]byte]string{}, gate: open,
		links: map[*link]struct{}{},
	}
	for _, broker := range c.Brokers {
		if _, err := p.listen(broker); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// Addrs returns the addresses to give to clients in place of the brokers'.
func (p *Proxy) Addrs() (addrs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, broker := range p.conf.Brokers {
		addrs = append(addrs, p.local[broker].String())
	}
	return addrs
}

// Hold holds all late acknowledgements until the returned function is called.
func (p *Proxy) Hold() (release func()) {
	gate := make(chan struct{})
	p.mu.Lock()
	p.gate = gate
	p.mu.Unlock()
	return sync.OnceFunc(func() { close(gate) })
}

// Close ends all connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.close {
		_ = c.Close() // a listener
	}
	for l := range p.links {
		l.end()
	}
}

// listen returns the address that replaces a broker's.
func (p *Proxy) listen(broker string) (*net.TCPAddr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr := p.local[broker]; addr != nil {
		return addr, nil
	}
	if p.closed {
		return nil, net.ErrClosed
	}
	for _, ours := range p.local {
		if ours.String() == broker {
			return ours, nil
		}
	}
	l, err := net.Listen("tcp", cmp.Or(p.conf.Listen[broker], "127.0.0.1:0"))
	if err != nil {
		return nil, err
	}
	p.close = append(p.close, l)
	addr := l.Addr().(*net.TCPAddr)
	p.local[broker] = addr
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			go p.serve(client, broker)
		}
	}()
	return addr, nil
}

// An exchange is a request whose answer is awaited.
type exchange struct {
	Request
	version int16
	late    bool
}

// serve copies one connection until either side ends it.
func (p *Proxy) serve(client net.Conn, broker string) {
	if !p.connecting(broker) {
		_ = client.Close() // refused
		return
	}
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", broker)
	if err != nil {
		_ = client.Close() // the client sees what it would see without a proxy: no broker
		return
	}
	port := client.RemoteAddr().(*net.TCPAddr).Port
	if p.conf.Server != nil {
		client = tls.Server(client, p.conf.Server)
	}
	if p.conf.Client != nil {
		server = tls.Client(server, p.conf.Client)
	}
	l := &link{broker: broker, port: port, client: client, server: server}
	l.moved.Store(time.Now().UnixNano())
	p.mu.Lock()
	p.links[l] = struct{}{}
	if p.closed {
		defer l.end()
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	pending := make(chan exchange, 4096)
	go func() {
		defer l.end()
		defer close(pending)
		p.requests(l, pending)
	}()
	defer l.end()
	p.answers(l, pending)
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 256<<20 {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	frame := make([]byte, 4+n)
	copy(frame, size[:])
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}

// frames reads what a client sends ahead of what is forwarded, so that its death is noticed while a request is held.
func (l *link) frames(until <-chan struct{}) <-chan []byte {
	const ahead = 64 // a client has a handful of requests in flight
	frames := make(chan []byte, ahead)
	go func() {
		defer close(frames)
		defer l.gone.Store(true)
		for {
			frame, err := readFrame(l.client)
			if err != nil || len(frame) < 14 {
				return
			}
			select {
			case frames <- frame:
			case <-until:
				return
			}
		}
	}()
	return frames
}

func (p *Proxy) requests(l *link, pending chan<- exchange) {
	done := make(chan struct{})
	defer close(done)
	for frame := range l.frames(done) {
		l.moved.Store(time.Now().UnixNano())
		x := exchange{version: int16(binary.BigEndian.Uint16(frame[6:]))}
		x.Broker, x.Key = l.broker, int16(binary.BigEndian.Uint16(frame[4:]))
		answered := true
		if x.Key == kmsg.Produce.Int16() {
			answered = p.produce(frame, &x)
		}
		if !p.forwarding(l, x.Request) {
			return
		}
		if answered {
			pending <- x
		}
		if _, err := l.server.Write(frame); err != nil {
			return
		}
	}
}

// produce notes the topics of a write and whether its acknowledgement is late, and says whether there will be one.
func (p *Proxy) produce(frame []byte, x *exchange) (answered bool) {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(x.version)
	body := frame[12:]
	if n := int16(binary.BigEndian.Uint16(body)); n > 0 {
		body = body[n:]
	}
	body = body[2:]
	if req.IsFlexible() {
		body = body[1:] // no client sends tags in a request's header
	}
	if err := req.ReadFrom(body); err != nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range req.Topics {
		name := t.Topic
		if x.version >= 13 {
			name = p.topics[t.TopicID]
		}
		x.Topics = append(x.Topics, name)
		x.late = x.late || p.conf.Late != nil && p.conf.Late(name)
	}
	return req.Acks != 0
}

type answer struct {
	frame []byte
	of    exchange
	came  time.Time
}

// answers forwards what the server says. A late answer waits, and the ones behind it with it: their order is kept.
func (p *Proxy) answers(l *link, pending <-chan exchange) {
	queue := make(chan answer, 4096)
	go func() {
		defer close(queue)
		for {
			frame, err := readFrame(l.server)
			if err != nil || len(frame) < 8 {
				return
			}
			x, ok := <-pending
			if !ok {
				return
			}
			a := answer{frame: frame, of: x, came: time.Now()}
			if a.frame, err = p.rewrite(frame, x); err != nil {
				return
			}
			queue <- a
		}
	}()
	broken := false
	for a := range queue {
		if broken {
			continue // drain, so that the reader can end
		}
		if a.of.late {
			time.Sleep(time.Until(a.came.Add(p.conf.Latency)))
			p.mu.Lock()
			gate := p.gate
			p.mu.Unlock()
			<-gate
		}
		if !p.answering(l, a.of.Request, a.came) {
			broken = true
			l.end()
			continue
		}
		l.moved.Store(time.Now().UnixNano())
		if _, err := l.client.Write(a.frame); err != nil {
			broken = true
			l.end() // unblocks the reader
		}
	}
}

var errAnswer = errors.New("answer not understood")

// rewrite replaces the brokers' addresses in an answer. Produce and Fetch may name brokers too, but only after a leader
// moved, and then a client asks for metadata as well.
func (p *Proxy) rewrite(frame []byte, x exchange) ([]byte, error) {
	switch kmsg.Key(x.Key) {
	case kmsg.Metadata, kmsg.FindCoordinator, kmsg.DescribeCluster:
	default:
		return frame, nil
	}
	resp := kmsg.ResponseForKey(x.Key)
	resp.SetVersion(x.version)
	head := 8
	if resp.IsFlexible() {
		head++
	}
	if len(frame) < head {
		return nil, errAnswer
	}
	if err := resp.ReadFrom(frame[head:]); err != nil {
		return nil, err
	}
	if err := p.readdress(resp); err != nil {
		return nil, err
	}
	out := resp.AppendTo(append([]byte(nil), frame[:head]...))
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out, nil
}

func (p *Proxy) readdress(resp kmsg.Response) error {
	move := func(host *string, port *int32) error {
		if *host == "" { // a coordinator that is not known
			return nil
		}
		addr, err := p.listen(net.JoinHostPort(*host, fmt.Sprint(*port)))
		if err != nil {
			return err
		}
		*host, *port = addr.IP.String(), int32(addr.Port)
		return nil
	}
	var failed error
	switch r := resp.(type) {
	case *kmsg.MetadataResponse:
		for i := range r.Brokers {
			failed = errors.Join(failed, move(&r.Brokers[i].Host, &r.Brokers[i].Port))
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, t := range r.Topics {
			if t.Topic != nil {
				p.topics[t.TopicID] = *t.Topic
			}
		}
	case *kmsg.FindCoordinatorResponse:
		failed = move(&r.Host, &r.Port)
		for i := range r.Coordinators {
			failed = errors.Join(failed, move(&r.Coordinators[i].Host, &r.Coordinators[i].Port))
		}
	case *kmsg.DescribeClusterResponse:
		for i := range r.Brokers {
			failed = errors.Join(failed, move(&r.Brokers[i].Host, &r.Brokers[i].Port))
		}
	}
	return failed
}

package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The steps of a connection, in their order.
const (
	StepDNS   = "dns"
	StepTCP   = "tcp"
	StepTLS   = "tls"
	StepKafka = "kafka" // the first request of the protocol
	StepLogin = "login"
)

// A ProbeResult is a connection to a broker for which every step succeeded.
type ProbeResult struct {
	TLS   string // version, or empty
	Login string // user and mechanism, or empty
	Took  time.Duration
}

// A Fault is the step at which a connection to a broker failed, with its cause and how to fix it.
type Fault struct {
	Address, Step, Cause, Fix string
	Err                       error
}

// Error names the step and the cause.
func (f *Fault) Error() string { return fmt.Sprintf("%s: %s: %s", f.Address, f.Step, f.Cause) }

// Unwrap returns the error of the step; nil when the broker refused in its protocol.
func (f *Fault) Unwrap() error { return f.Err }

// probeTimeout bounds a whole probe.
const probeTimeout = 5 * time.Second

// Probe connects to one broker step by step, and returns a *Fault for the step that failed. The clients' own errors
// only say that they ran out of brokers or of time. It changes nothing.
func Probe(ctx context.Context, c Config, address string) (ProbeResult, error) {
	var result ProbeResult
	if err := c.validate(); err != nil {
		return result, err
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	p := &probe{config: c, address: address}
	defer p.close()
	version, err := p.open(ctx)
	if err != nil {
		return result, err
	}
	result.TLS = version
	if c.SASL.Mechanism == "" {
		err = p.checkNoLogin(ctx)
	} else {
		result.Login, err = p.login(ctx)
	}
	result.Took = time.Since(begin)
	return result, err
}

// open connects up to the first answer, and returns the version of TLS.
func (p *probe) open(ctx context.Context) (version string, err error) {
	if p.conn, err = p.dial(ctx); err != nil {
		return "", err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := p.conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if p.config.TLS.Enabled {
		if version, err = p.handshake(ctx, p.conn); err != nil {
			return "", err
		}
	}
	if _, err := p.ask(kmsg.NewPtrApiVersionsRequest()); err != nil {
		return "", p.noAnswer(ctx, err)
	}
	return version, nil
}

func (p *probe) close() {
	if p.conn != nil {
		_ = p.conn.Close() // nothing is in flight
	}
}

// A probe is one connection.
type probe struct {
	config               Config
	address              string
	conn                 net.Conn
	certificateRequested bool // the broker requested a client certificate
	correlation          int32
}

func (p *probe) fault(step string, err error, fix, cause string, args ...any) *Fault {
	return &Fault{Address: p.address, Step: step, Cause: fmt.Sprintf(cause, args...), Fix: fix, Err: err}
}

// dial finds the host and connects to its port.
func (p *probe) dial(ctx context.Context) (net.Conn, error) {
	host, port, err := net.SplitHostPort(p.address)
	if err != nil {
		return nil, p.fault(StepDNS, err, "write the address as host:port", "%q is no address: %v", p.address, err)
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		cause := "the name server did not answer"
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			cause = "unknown host name"
		}
		return nil, p.fault(StepDNS, err, "correct --brokers or advertised.listeners, or make the name known here",
			"%s: %s", host, cause)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address)
	if err == nil {
		return conn, nil
	}
	if isTimeout(err) || ctx.Err() != nil {
		return nil, p.fault(StepTCP, err, "open the firewall to this port, or correct the address",
			"no answer from %v port %s: a firewall drops the packets, or the host is down", addresses, port)
	}
	return nil, p.fault(StepTCP, err, "start the broker, or correct the port",
		"%v port %s is closed: nothing listens there (%v)", addresses, port, rootCause(err))
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// rootCause returns the innermost error, which has the shortest text.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// noAnswer returns why a broker did not answer the first request, which needs no login.
func (p *probe) noAnswer(ctx context.Context, err error) error {
	switch {
	case p.certificateRequested && p.config.TLS.CertFile == "":
		return p.noCertificate(err)
	case p.config.TLS.Enabled && (p.certificateRequested || remoteAlert(err) != "") && !isTimeout(err):
		return p.refusedTLS(err)
	case !p.config.TLS.Enabled && (errors.Is(err, errTLSAnswer) || p.speaksTLS(ctx)):
		return p.fault(StepTLS, err, "set --kafka-tls, and --kafka-ca-file if the authority is your own",
			"this port speaks TLS, and TLS is off here")
	case errors.Is(err, errNotKafka):
		return p.fault(StepKafka, err, "correct the port: Kafka's is often 9092",
			"something else than Kafka answers on this port")
	case isTimeout(err) || ctx.Err() != nil:
		return p.fault(StepKafka, err, "look at the broker's log: it may hang, or this port may not be Kafka's",
			"connected, but no answer within %v", probeTimeout)
	}
	return p.fault(StepKafka, err, "look at the broker's log: it says why it hung up",
		"the broker hangs up on the first request (%v)", rootCause(err))
}

// speaksPlaintext reports whether a Kafka broker without TLS listens where a handshake failed.
func (p *probe) speaksPlaintext(ctx context.Context) bool {
	config := p.config
	config.TLS = TLSConfig{}
	other := &probe{config: config, address: p.address}
	defer other.close()
	_, err := other.open(ctx)
	return err == nil
}

// speaksTLS reports whether a TLS server listens where a plaintext client got no answer.
func (p *probe) speaksTLS(ctx context.Context) bool {
	conn, err := p.dial(ctx)
	if err != nil {
		return false
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok && conn.SetDeadline(deadline) != nil {
		return false
	}
	// nothing is sent over it
	other := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	err = other.HandshakeContext(ctx)
	return err == nil || remoteAlert(err) != ""
}

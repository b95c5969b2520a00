package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"time"
)

// handshake starts TLS on the connection, and returns its version.
func (p *probe) handshake(ctx context.Context, conn net.Conn) (string, error) {
	config, err := p.config.TLS.client()
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(p.address)
	if err != nil {
		return "", err
	}
	config.ServerName = host
	own := config.GetClientCertificate
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		p.certificateRequested = true
		if own == nil {
			return new(tls.Certificate), nil // none
		}
		return own(info)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		fault := p.refusedTLS(err)
		if !p.certificateRequested && remoteAlert(err) == "" && p.speaksPlaintext(ctx) {
			fault = p.plainPort(err)
		}
		return "", fault
	}
	p.conn = secure
	return tls.VersionName(secure.ConnectionState().Version), nil
}

// refusedTLS returns which side refused a handshake, and why. With TLS 1.3 the broker's refusal comes with its first
// answer.
func (p *probe) refusedTLS(err error) error {
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		plain     tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &plain):
		return p.plainPort(err)
	case errors.As(err, &authority):
		signer := "an authority that is not trusted here"
		if authority.Cert != nil {
			signer += ": " + authority.Cert.Issuer.String()
		}
		return p.fault(StepTLS, err, "name the authority's certificate with --kafka-ca-file",
			"unknown authority: the broker's certificate is signed by %s", signer)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		from, to := invalid.Cert.NotBefore, invalid.Cert.NotAfter
		if time.Now().Before(from) {
			return p.fault(StepTLS, err, "set the clocks, or wait",
				"the broker's certificate is valid from %s on only", from.Format(time.RFC3339))
		}
		return p.fault(StepTLS, err, "renew the broker's certificate", "the broker's certificate expired at %s",
			to.Format(time.RFC3339))
	case errors.As(err, &name):
		return p.fault(StepTLS, err, "address the broker by a name of its certificate, also in advertised.listeners, "+
			"or have it issued for this one",
			"wrong host name: the certificate is for %s, not for %s", namesOf(name.Certificate), name.Host)
	case errors.As(err, &invalid):
		return p.fault(StepTLS, err, "have the broker's certificate reissued",
			"the broker's certificate is not valid: %v", invalid)
	case p.certificateRequested && p.config.TLS.CertFile == "":
		return p.noCertificate(err)
	}
	switch alert := remoteAlert(err); {
	case p.certificateRequested && !isTimeout(err):
		if alert == "" { // the alert was lost with the connection
			alert = rootCause(err).Error()
		}
		return p.fault(StepTLS, err,
			"have the client certificate signed by an authority that the broker trusts, and look when it expires",
			"the broker refuses the client certificate %s: %s", p.config.TLS.CertFile, alert)
	case alert != "":
		return p.fault(StepTLS, err,
			"compare ssl.enabled.protocols and ssl.cipher.suites of the broker: TLS 1.2 is the least",
			"the broker refuses the handshake: %s", alert)
	}
	if isTimeout(err) {
		return p.fault(StepTLS, err, "leave --kafka-tls out, or take the port of the TLS listener",
			"no answer to the handshake: this port may not speak TLS")
	}
	return p.fault(StepTLS, err, "look at the broker's log, and whether this is the port of the TLS listener",
		"the broker hangs up during the handshake (%v)", rootCause(err))
}

func (p *probe) noCertificate(err error) error {
	return p.fault(StepTLS, err,
		"set --kafka-cert-file and --kafka-key-file, or take a listener that asks for a login in its place",
		"client certificate missing: the broker asks for one")
}

func (p *probe) plainPort(err error) error {
	return p.fault(StepTLS, err, "leave --kafka-tls out, or take the port of the TLS listener",
		"this port does not speak TLS")
}

// namesOf lists the hosts that a certificate is for.
func namesOf(c *x509.Certificate) string {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no host at all (it has no subjectAltName)"
	}
	return strings.Join(names, ", ")
}

// remoteAlert returns the text of the TLS alert that the other side sent; empty when there was none. For TCP
// connections Go does not export the type of the alert.
func remoteAlert(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return op.Err.Error()
	}
	return ""
}

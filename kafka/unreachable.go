package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Unreachable reports whether err says that no broker could be reached, so that waiting may help. An error that a
// broker answered, and a TLS handshake that one side refused, need an operator.
func Unreachable(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		unknown     x509.UnknownAuthorityError
		host        x509.HostnameError
		noTLS       tls.RecordHeaderError
		network     net.Error
		answered    *kerr.Error
	)
	switch {
	case err == nil,
		errors.As(err, &certificate), errors.As(err, &unknown), errors.As(err, &host),
		remoteAlert(err) != "", errors.As(err, &noTLS):
		return false
	case errors.As(err, &answered):
		return answered.Retriable // for example while a coordinator or leader is elected
	}
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF)
}

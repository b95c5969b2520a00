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

// Away reports whether err says that no broker could be talked to, which waiting may mend. Whatever a broker answered, and a
// handshake that one side refused, is for a person to mend.
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
		return answered.Retriable // for example a coordinator or a leader that is just being chosen
	}
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/topology"
)

func TestUnreachableIsNotRefused(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("ask for topics: %w", errors.Join(errors.New("last"), err)) }
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("topic t: partitions is 3, want 32"), false},
		{wrap(kerr.SaslAuthenticationFailed), false},
		{wrap(kerr.TopicAuthorizationFailed), false},
		{wrap(kerr.LeaderNotAvailable), true},
		{wrap(x509.UnknownAuthorityError{}), false},
		{wrap(&net.OpError{Op: "remote error", Err: tls.AlertError(42)}), false},
		{wrap(context.DeadlineExceeded), true},
		{wrap(&net.DNSError{Err: "no such host", Name: "kafka"}), true},
	} {
		if got := Unreachable(test.err); got != test.want {
			t.Errorf("Unreachable(%v) = %t, want %t", test.err, got, test.want)
		}
	}
}

func TestUnreachableWhenThePortIsClosed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close() // the port is free now, so a connection is refused
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	streams, err := topology.New("away", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckTopics(ctx, Config{Brokers: []string{addr}}, streams.Topics()); !Unreachable(err) {
		t.Errorf("CheckTopics without a listener: %v, which is not Unreachable", err)
	}
}

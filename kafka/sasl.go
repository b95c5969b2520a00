package kafka

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	franzscram "github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/xdg-go/scram"
)

// The mechanisms of SASLConfig. PLAIN sends the password itself: use it over TLS.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// SASLConfig has the credentials of the login. With an empty Mechanism there is none.
type SASLConfig struct {
	Mechanism string
	User      string
	Password  string `json:"-"`
}

// String keeps the password out of messages.
func (a SASLConfig) String() string { return fmt.Sprintf("{%s %s}", a.Mechanism, a.User) }

// LogValue keeps the password out of logs.
func (a SASLConfig) LogValue() slog.Value {
	return slog.GroupValue(slog.String("mechanism", a.Mechanism), slog.String("user", a.User))
}

func (a SASLConfig) validate() error {
	switch a.Mechanism {
	case "":
		if a.User != "" || a.Password != "" {
			return errors.New("a Kafka user or password is given but no SASL mechanism: want PLAIN, SCRAM-SHA-256 or " +
				"SCRAM-SHA-512")
		}
		return nil
	case Plain, ScramSHA256, ScramSHA512:
		if a.User == "" || a.Password == "" {
			return fmt.Errorf("SASL mechanism %s needs a user and a password", a.Mechanism)
		}
		return nil
	default:
		return fmt.Errorf("SASL mechanism %q is not known: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", a.Mechanism)
	}
}

func (a SASLConfig) franz() sasl.Mechanism {
	switch a.Mechanism {
	case ScramSHA256:
		return franzscram.Auth{User: a.User, Pass: a.Password}.AsSha256Mechanism()
	case ScramSHA512:
		return franzscram.Auth{User: a.User, Pass: a.Password}.AsSha512Mechanism()
	default:
		return plain.Auth{User: a.User, Pass: a.Password}.AsMechanism()
	}
}

func (a SASLConfig) sarama(s *sarama.Config) {
	if a.Mechanism == "" {
		return
	}
	s.Net.SASL.Enable = true
	s.Net.SASL.Mechanism = sarama.SASLMechanism(a.Mechanism)
	s.Net.SASL.User, s.Net.SASL.Password = a.User, a.Password
	hash := scram.SHA512
	if a.Mechanism == ScramSHA256 {
		hash = scram.SHA256
	}
	s.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &conversation{hash: hash} }
}

// A conversation is one SCRAM login for sarama, which has no client of its own.
type conversation struct {
	hash scram.HashGeneratorFcn
	*scram.ClientConversation
}

// Begin prepares the login of one connection.
func (c *conversation) Begin(user, password, authz string) error {
	client, err := c.hash.NewClient(user, password, authz)
	if err != nil {
		return fmt.Errorf("prepare the SCRAM login of %q: %w", user, err)
	}
	c.ClientConversation = client.NewConversation()
	return nil
}

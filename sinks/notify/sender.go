package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"strings"
)

// A Sender sends messages to one destination. It does not retry.
type Sender interface {
	// Send returns nil when the destination has accepted the message. A *sinks.Rejected says that it never will, a
	// *sinks.Later when to try again.
	Send(ctx context.Context, m *Message) error
	// Check finds wrong settings, as far as that is possible without a message.
	Check(ctx context.Context) error
}

// sender returns what sends to the channel. It reads the channel's secrets.
func (c Channel) sender(s Settings) (Sender, error) {
	switch {
	case c.Slack != nil:
		return newSlack(c.Slack, s.Out)
	case c.Email != nil:
		return newMail(c.Email, s)
	case c.Webhook != nil:
		return newWebhook(c.Webhook, s.Out)
	}
	return logSender{s.Log}, nil
}

type logSender struct{ log *slog.Logger }

func (l logSender) Check(context.Context) error { return nil }

func (l logSender) Send(ctx context.Context, m *Message) error {
	l.log.InfoContext(ctx, "notice", "rule", m.Rule, "subject", m.Subject, "id", m.ID)
	return nil
}

// refused is the error of a destination that works and has refused this message.
type refused struct {
	error
	content bool // because of its content
}

func (r *refused) Unwrap() error { return r.error }

// hashOf returns an id for destinations. An op id may be long and have any character.
func hashOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

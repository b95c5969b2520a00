package notify

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Settings are those of all rules, and what their sinks share.
type Settings struct {
	Link         string // --notify-link; see CheckLink
	Out          *Outbound
	SMTPURL      string // --smtp-url
	SMTPPassword string
	SMTPRoots    *x509.CertPool
	Store        Store
	Log          *slog.Logger
	Metrics      *Metrics
}

// Sink returns the sink of one of the rules. It reads the secrets of the rule's channel.
func (r *Rules) Sink(rule *Rule, c Settings) (*Sink, error) {
	at := slices.IndexFunc(r.Channels, func(to Channel) bool { return to.Name == rule.Channel })
	sender, err := r.Channels[at].sender(c)
	if err != nil {
		return nil, fmt.Errorf("channel %s: %w", rule.Channel, err)
	}
	config := Config{
		Rule: rule.Name, Sender: sender, Digest: rule.Digest > 0, Store: c.Store, Log: c.Log, Metrics: c.Metrics,
		Match: func(n *tidemarkv1.Notice) bool {
			matches, _ := rule.Match(n)
			return matches
		},
		Render: func(notices []*tidemarkv1.Notice) (*Message, error) { return rule.Message(notices, c.Link) },
		Hold: func(first, now time.Time) time.Time {
			until, _ := rule.When(now, first)
			return until
		},
	}
	if rule.Rate.Messages > 0 {
		every := rule.Rate.Per / time.Duration(rule.Rate.Messages)
		config.Rate = rate.NewLimiter(rate.Every(every), rule.Rate.Messages)
	}
	return New(config), nil
}

// sender returns what sends to the channel.
func (c Channel) sender(s Settings) (Sender, error) {
	switch {
	case c.Slack != nil && c.Slack.Token.Given():
		token, err := c.Slack.Token.Read()
		if err != nil {
			return nil, err
		}
		return NewSlack(SlackConfig{Token: token, Channel: c.Slack.Channel, Out: s.Out})
	case c.Slack != nil:
		to, err := c.Slack.WebhookURL.Read()
		if err != nil {
			return nil, err
		}
		return NewSlack(SlackConfig{WebhookURL: to, Out: s.Out})
	case c.Email != nil:
		return NewMail(MailConfig{
			URL: s.SMTPURL, Password: s.SMTPPassword, Roots: s.SMTPRoots, From: c.Email.From, To: c.Email.To,
		})
	case c.Webhook != nil:
		secrets, err := c.Webhook.Secret.Read() // several while they are rotated
		if err != nil {
			return nil, err
		}
		return NewWebhook(c.Webhook.URL, strings.Fields(secrets), s.Out)
	}
	return logSender{s.Log}, nil
}

// A logSender writes messages to the process log.
type logSender struct{ log *slog.Logger }

func (l logSender) Check(context.Context) error { return nil }

func (l logSender) Send(ctx context.Context, m *Message) error {
	l.log.InfoContext(ctx, "notice", "rule", m.Rule, "subject", m.Subject, "id", m.ID)
	return nil
}

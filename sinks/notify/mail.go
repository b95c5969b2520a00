package notify

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"tidemark/sinks"
)

// MailConfig says how to send e-mail. URL is smtp://user@host:587, with STARTTLS, or smtps://user@host:465; without a
// user there is no login. ?tls=off is for a server on loopback.
type MailConfig struct {
	URL      string
	Password string
	From     string
	To       []string
	Roots    *x509.CertPool // nil: the system's
}

// Mail sends messages over SMTP, each over a connection of its own. If the server refuses one of the recipients, none
// gets the message.
type Mail struct {
	MailConfig
	client *mail.Client
}

// NewMail checks the settings.
func NewMail(c MailConfig) (*Mail, error) {
	at, err := url.Parse(c.URL)
	if err != nil || at.Hostname() == "" || at.Scheme != "smtp" && at.Scheme != "smtps" {
		return nil, errors.New("--smtp-url: want smtp://host:587 (STARTTLS) or smtps://host:465")
	}
	_, inURL := at.User.Password()
	address, _ := netip.ParseAddr(at.Hostname())
	user, plain := at.User.Username(), at.Query().Get("tls") == "off"
	switch {
	case inURL:
		return nil, errors.New("--smtp-url has a password: use TIDEMARK_SMTP_PASSWORD or --smtp-password-file")
	case (user == "") != (c.Password == ""):
		return nil, errors.New("a login needs a user in --smtp-url (smtp://user@host:587) and a password")
	case plain && (at.Scheme != "smtp" || at.Hostname() != "localhost" && !address.IsLoopback()):
		return nil, errors.New("--smtp-url: tls=off is only for smtp:// to a server on loopback")
	case len(c.To) == 0:
		return nil, errors.New("e-mail needs a recipient")
	}
	m := &Mail{MailConfig: c}
	if _, err := m.compose(&Message{}); err != nil {
		return nil, err
	}
	standard, security := "587", mail.WithTLSPolicy(mail.TLSMandatory)
	if at.Scheme == "smtps" {
		standard, security = "465", mail.WithSSL()
	} else if plain {
		standard, security = "25", mail.WithTLSPolicy(mail.NoTLS)
	}
	port, _ := strconv.Atoi(cmp.Or(at.Port(), standard)) // url.Parse takes digits only
	options := []mail.Option{
		security, mail.WithPort(port), mail.WithTimeout(sendTimeout), mail.WithTLSConfig(
			&tls.Config{ServerName: at.Hostname(), RootCAs: c.Roots, MinVersion: tls.VersionTLS12}),
	}
	if user != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(user),
			mail.WithPassword(c.Password))
	}
	m.client, err = mail.NewClient(at.Hostname(), options...)
	return m, err
}

// compose returns a message that has the same Message-ID each time it is sent, so that a repeat is recognised.
func (c *Mail) compose(m *Message) (*mail.Msg, error) {
	message := mail.NewMsg()
	if err := errors.Join(message.From(c.From), message.To(c.To...)); err != nil {
		return nil, fmt.Errorf("sender or recipients of e-mail: %w", err)
	}
	sender := message.GetFrom()[0].Address
	domain := sender[strings.LastIndex(sender, "@")+1:]
	message.Subject(m.Subject)
	message.SetDate()
	message.SetMessageIDWithValue(hashOf(m.Rule, m.ID) + "@" + domain)
	message.SetGenHeader("Auto-Submitted", "auto-generated")
	message.SetGenHeader("List-Id", fmt.Sprintf("<%.8s.tidemark.%s>", hashOf(m.Rule), domain))
	message.SetBodyString(mail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		message.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	}
	return message, nil
}

// Check connects and logs in.
func (c *Mail) Check(ctx context.Context) error {
	client, err := c.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return loginError(err)
	}
	return c.client.CloseWithSMTPClient(client)
}

// Send sends the message to all recipients.
func (c *Mail) Send(ctx context.Context, m *Message) error {
	message, err := c.compose(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	client, err := c.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return loginError(err)
	}
	defer func() { _ = c.client.CloseWithSMTPClient(client) }() // what was accepted stays accepted
	defer context.AfterFunc(ctx, func() { _ = client.UpdateDeadline(time.Nanosecond) })()
	err = c.client.SendWithSMTPClient(client, message)
	failed, ok := errors.AsType[*mail.SendError](err)
	switch {
	case message.IsDelivered():
		return nil
	case !ok || failed.ErrorCode()/100 != 5:
		return err
	case failed.Reason == mail.ErrSMTPMailFrom:
		return fmt.Errorf("the mail server refuses the sender %s: correct it, or the user's rights: %w", c.From, err)
	}
	return &sinks.Rejected{Reason: "the mail server refuses the message or a recipient", Answer: err.Error()}
}

func loginError(err error) error {
	if answered, ok := errors.AsType[*textproto.Error](err); ok && answered.Code/100 == 5 {
		return fmt.Errorf("the mail server refuses the login: correct the user in --smtp-url and the password: %w", err)
	}
	return fmt.Errorf("connect to the mail server in --smtp-url: %w", err)
}

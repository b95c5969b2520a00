package notify

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"tidemark/sinks"
)

// A mailSender sends messages over SMTP, each over a connection of its own.
type mailSender struct {
	*Email
	host    string
	options []mail.Option
	dial    mail.DialContextFunc
}

// newMail reads --smtp-url: smtp://user@host:587, with STARTTLS, or smtps://user@host:465; without a user there is no
// login. ?tls=off is for a server on loopback.
func newMail(c *Email, s Settings) (*mailSender, error) {
	at, err := url.Parse(s.SMTPURL)
	if err != nil || at.Hostname() == "" || at.Scheme != "smtp" && at.Scheme != "smtps" {
		return nil, errors.New("--smtp-url: want smtp://host:587 (STARTTLS) or smtps://host:465")
	}
	_, inURL := at.User.Password()
	address, _ := netip.ParseAddr(at.Hostname())
	user, plain := at.User.Username(), at.Query().Get("tls") == "off"
	switch {
	case inURL:
		return nil, errors.New("--smtp-url has a password: use TIDEMARK_SMTP_PASSWORD or --smtp-password-file")
	case (user == "") != (s.SMTPPassword == ""):
		return nil, errors.New("a login needs a user in --smtp-url (smtp://user@host:587) and a password")
	case plain && (at.Scheme != "smtp" || at.Hostname() != "localhost" && !address.IsLoopback()):
		return nil, errors.New("--smtp-url: tls=off is only for smtp:// to a server on loopback")
	}
	config := &tls.Config{ServerName: at.Hostname(), RootCAs: s.SMTPRoots, MinVersion: tls.VersionTLS12}
	m := &mailSender{Email: c, host: at.Hostname(), dial: (&net.Dialer{}).DialContext}
	standard, policy := "587", mail.TLSMandatory
	if at.Scheme == "smtps" {
		standard, policy, m.dial = "465", mail.NoTLS, (&tls.Dialer{Config: config}).DialContext
	} else if plain {
		standard, policy = "25", mail.NoTLS
	}
	port, _ := strconv.Atoi(cmp.Or(at.Port(), standard)) // url.Parse takes digits only
	m.options = []mail.Option{
		mail.WithTLSPolicy(policy), mail.WithPort(port), mail.WithTimeout(sendTimeout), mail.WithTLSConfig(config),
	}
	if user != "" {
		m.options = append(m.options, mail.WithUsername(user), mail.WithPassword(s.SMTPPassword),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	return m, nil
}

// session connects, logs in and calls send. The connection is closed when ctx ends: the client's own timeouts are per
// command.
func (s *mailSender) session(ctx context.Context, send func(*mail.Client, *smtp.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	dial := func(dialing context.Context, network, address string) (net.Conn, error) {
		conn, err := s.dial(dialing, network, address)
		if err == nil {
			context.AfterFunc(ctx, func() { conn.Close() })
		}
		return conn, err
	}
	client, err := mail.NewClient(s.host, append(slices.Clone(s.options), mail.WithDialContextFunc(dial))...)
	if err != nil {
		return err
	}
	server, err := client.DialToSMTPClientWithContext(ctx)
	if answered, ok := errors.AsType[*textproto.Error](err); ok && answered.Code/100 == 5 {
		return fmt.Errorf("the mail server refuses the login or this host: correct --smtp-url or the password: %w", err)
	} else if err != nil {
		return fmt.Errorf("connect to the mail server in --smtp-url: %w", err)
	}
	defer func() { _ = client.CloseWithSMTPClient(server) }() // what was accepted stays accepted
	return send(client, server)
}

// compose returns a message that has the same Message-ID each time it is sent, so that a repeat is recognised.
func (s *mailSender) compose(m *Message) (*mail.Msg, error) {
	message := mail.NewMsg()
	if err := errors.Join(message.From(s.From), message.To(s.To...)); err != nil {
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
	message.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	return message, nil
}

// Check connects and logs in.
func (s *mailSender) Check(ctx context.Context) error {
	return s.session(ctx, func(*mail.Client, *smtp.Client) error { return nil })
}

// Send sends the message to all recipients.
func (s *mailSender) Send(ctx context.Context, m *Message) error {
	message, err := s.compose(m)
	if err != nil {
		return err
	}
	err = s.session(ctx, func(client *mail.Client, server *smtp.Client) error {
		return client.SendWithSMTPClient(server, message)
	})
	failed, ok := errors.AsType[*mail.SendError](err)
	switch {
	case message.IsDelivered():
		return nil
	case !ok || failed.ErrorCode()/100 != 5:
		return err
	}
	status := mailStatus.FindStringSubmatch(err.Error())
	switch code := failed.ErrorCode(); {
	case !slices.Contains(mailStages, failed.Reason) || code < 550 || code > 554:
	case status == nil && code < 554, status != nil && mailRejects.MatchString(status[1]):
		return &sinks.Rejected{Reason: "the mail server refuses the message or a recipient", Answer: err.Error()}
	case status == nil, status[1] == "7.1": // or it refuses this client, for example by a list of blocked addresses
		return &refused{err, true}
	}
	return fmt.Errorf("correct --smtp-url, its user and password, or the sender %s: %w", s.From, err)
}

// What the mail server refuses is the message or a recipient only at these stages, and with these codes of RFC 3463.
var (
	mailStages  = []mail.SendErrReason{mail.ErrSMTPRcptTo, mail.ErrSMTPData, mail.ErrSMTPDataClose}
	mailStatus  = regexp.MustCompile(`\b5\d\d "5\.(\d{1,3}\.\d{1,3})\b`)
	mailRejects = regexp.MustCompile(`^(1\.([1-6]|10)|2\.\d+|3\.4|6\.\d+)$`)
)

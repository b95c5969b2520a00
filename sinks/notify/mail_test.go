package notify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/sinks"
)

// certificate writes one for localhost that is its own authority.
func certificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	write := func(name, kind string, data []byte) string {
		path, text := filepath.Join(t.TempDir(), name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data})
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		roots.AppendCertsFromPEM(text)
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8), roots
}

// A received is a message that the mail server accepted.
type received struct {
	From, User string
	To         []string
	TLS        bool
	Content    []byte
}

// smtpd starts aiosmtpd.
func smtpd(t *testing.T, mode, password string) (port string, roots *x509.CertPool, messages func() received) {
	t.Helper()
	var why strings.Builder
	find := exec.Command("../../.ci/python")
	find.Stderr = &why
	python, err := find.Output()
	if err != nil {
		text := fmt.Sprintf("Python 3 with aiosmtpd: %v\n%s", err, why.String())
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s, and CI may not pass without it", text)
		}
		t.Skipf("NOT TESTED: %s", text)
	}
	cert, key, roots := certificate(t)
	args := []string{"testdata/smtpd.py", mode, cert, key}
	if password != "" {
		args = append(args, password)
	}
	server := exec.CommandContext(t.Context(), strings.TrimSpace(string(python)), args...)
	var log bytes.Buffer
	server.Stderr = &log
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Wait(); t.Failed() { // it was killed
			t.Logf("the mail server ended: %v\n%s", err, log.String())
		}
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		t.Fatal("the mail server has not started")
	}
	return lines.Text(), roots, func() (r received) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("the mail server has ended")
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// mailSettings are what e-mail needs, with the sender that all tests have.
type mailSettings struct {
	Settings
	To []string
}

func mailTo(t *testing.T, c mailSettings) *mailSender {
	t.Helper()
	m, err := newMail(&Email{c.To, "Tidemark <notify@example.com>"}, c.Settings)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMailOverSTARTTLS(t *testing.T) {
	port, roots, messages := smtpd(t, "starttls", "p4ss")
	c := mailSettings{
		Settings{SMTPURL: "smtp://user@localhost:" + port, SMTPPassword: "p4ss", SMTPRoots: roots},
		[]string{"a@example.com", "Bé <b@example.com>"},
	}
	m := message()
	m.Subject, m.Text = "naïve\r\nBcc: victim@example.com", "first\n.\nlast é"
	var ids []string
	for range 2 {
		to := mailTo(t, c)
		if err := to.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := to.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		got := messages()
		if got.From != "notify@example.com" || !cmp.Equal(got.To, []string{"a@example.com", "b@example.com"}) ||
			!got.TLS || got.User != "user" {
			t.Errorf("%+v", got)
		}
		parsed, err := mail.ReadMessage(bytes.NewReader(got.Content))
		if err != nil {
			t.Fatal(err)
		}
		h := parsed.Header
		subject, err := (&mime.WordDecoder{}).DecodeHeader(h.Get("Subject"))
		if err != nil || subject != m.Subject || h.Get("Bcc") != "" {
			t.Errorf("subject %q, %v, Bcc %q", subject, err, h.Get("Bcc"))
		}
		if h.Get("Auto-Submitted") != "auto-generated" ||
			!strings.HasSuffix(h.Get("List-Id"), ".tidemark.example.com>") ||
			!strings.HasSuffix(h.Get("Message-ID"), "@example.com>") {
			t.Errorf("headers %v", h)
		}
		ids = append(ids, h.Get("Message-ID"))
		want := []string{"text/plain first\r\n.\r\nlast é", "text/html <p>html</p>"}
		if diff := cmp.Diff(want, parts(t, parsed)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("Message-ID %v", ids)
	}
	for _, wrong := range []struct {
		change func(*mailSettings)
		want   string
	}{
		{func(c *mailSettings) { c.SMTPPassword = "wrong" }, "refuses the login"},
		{func(c *mailSettings) { c.SMTPRoots = nil }, "certificate"},
		{func(c *mailSettings) { c.SMTPURL = "smtps://user@localhost:" + port }, "connect to the mail server"},
		{func(c *mailSettings) { c.SMTPURL = "smtp://user@localhost:1" }, "connect to the mail server"},
	} {
		c := c
		wrong.change(&c)
		for _, err := range []error{mailTo(t, c).Check(t.Context()), mailTo(t, c).Send(t.Context(), m)} {
			_, isRejected := errors.AsType[*sinks.Rejected](err)
			if err == nil || isRejected || !strings.Contains(err.Error(), wrong.want) ||
				strings.Contains(err.Error(), "p4ss") {
				t.Errorf("%v, want %q", err, wrong.want)
			}
		}
	}
}

func parts(t *testing.T, m *mail.Message) (all []string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("%s: %v", kind, err)
	}
	for reader := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		text, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, kind+" "+strings.TrimSpace(string(text)))
	}
}

// A temporary refusal is no verdict; a permanent one of a recipient or the message is.
func TestMailRefusals(t *testing.T) {
	port, roots, messages := smtpd(t, "tls", "")
	c := mailSettings{Settings: Settings{SMTPURL: "smtps://localhost:" + port, SMTPRoots: roots}}
	c.To = []string{"busy@example.com"}
	err := mailTo(t, c).Send(t.Context(), message())
	_, isRejected := errors.AsType[*sinks.Rejected](err)
	if err == nil || isRejected || !strings.Contains(err.Error(), "451") {
		t.Errorf("at first: %v", err)
	}
	if err := mailTo(t, c).Send(t.Context(), message()); err != nil || messages().To[0] != "busy@example.com" {
		t.Errorf("then: %v", err)
	}
	for to, want := range map[string]string{"unknown@example.com": "550", "full@example.com": "552"} {
		c.To = []string{"a@example.com", to}
		err := mailTo(t, c).Send(t.Context(), message())
		rejected, ok := errors.AsType[*sinks.Rejected](err)
		if !ok || !strings.Contains(rejected.Answer, want) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// A server that hangs, or breaks off, at each point. It has accepted the message once it has answered its data.
func TestMailServerThatBreaks(t *testing.T) {
	for _, hang := range []bool{true, false} {
		for at := range accepting {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go scripted(listener, accepting[:at], hang)
			c := mailSettings{
				Settings{SMTPURL: "smtp://" + listener.Addr().String() + "?tls=off"}, []string{"a@example.com"},
			}
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			err = mailTo(t, c).Send(ctx, message())
			cancel()
			if (err == nil) != (at >= 7) {
				t.Errorf("hang %v before answer %d: %v", hang, at, err)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("hang %v before answer %d: took %v", hang, at, took)
			}
		}
	}
}

// Only what a server says about the message or a recipient ends the message. What it says about itself, the login or
// the sender is the settings' fault, and what may be about either is refused like a webhook.
func TestMailVerdicts(t *testing.T) {
	const greeting, hello, from, to, data, end = 0, 1, 3, 4, 5, 6
	for _, c := range []struct {
		at     int
		answer string
		want   string
	}{
		{greeting, "521 no mail here", "again"},
		{greeting, "554 5.7.1 blocked", "again"},
		{hello, "550 5.7.1 go away", "again"},
		{from, "530 5.7.0 must login", "again"},
		{from, "550 5.1.8 bad sender", "again"},
		{to, "451 4.7.1 greylisted", "again"},
		{to, "530 5.7.0 must login", "again"},
		{to, "535 5.7.8 bad login", "again"},
		{to, "550 5.7.8 bad login", "again"},
		{to, "550 5.1.8 bad sender", "again"},
		{to, "550 no such user", "rejected"},
		{to, "550 5.1.1 no such user", "rejected"},
		{to, "550 5.1.10 null MX", "rejected"},
		{to, "552 5.2.2 full", "rejected"},
		{to, "553 5.1.3 bad address", "rejected"},
		{to, "554 5.7.1 client host is blocked", "refused"},
		{data, "554 no valid recipients", "refused"},
		{data, "503 5.5.1 bad sequence", "again"},
		{end, "552 5.3.4 too large", "rejected"},
		{end, "554 5.6.0 bad content", "rejected"},
		{end, "550 5.7.1 spam", "refused"},
		{end, "554 5.3.0 no space", "again"},
		{end, "451 4.3.0 later", "again"},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		rest := []string{c.answer, "250 reset", "221 bye"}
		if c.at == hello { // then it tries HELO
			rest[1] = c.answer
		}
		go scripted(listener, slices.Concat(accepting[:c.at], rest), false)
		to := mailSettings{
			Settings{SMTPURL: "smtp://" + listener.Addr().String() + "?tls=off"}, []string{"a@example.com"},
		}
		err = mailTo(t, to).Send(t.Context(), message())
		listener.Close()
		_, isRejected := errors.AsType[*sinks.Rejected](err)
		refusal, isRefused := errors.AsType[*refused](err)
		got := "again"
		switch {
		case isRejected:
			got = "rejected"
		case isRefused && refusal.content:
			got = "refused"
		}
		if err == nil || got != c.want || !strings.Contains(err.Error(), c.answer[4:]) ||
			got == "again" && c.answer[0] == '5' && !strings.Contains(err.Error(), "correct --smtp-url") {
			t.Errorf("%d %s: %s: %v", c.at, c.answer, got, err)
		}
	}
}

// accepting is what a server answers that accepts a message.
var accepting = []string{"220 x", "250 x", "250 x", "250 ok", "250 ok", "354 go", "250 taken", "250 reset", "221 bye"}

// scripted gives the answers to one connection, and reports whether it gave all.
func scripted(listener net.Listener, answers []string, hang bool) bool {
	conn, err := listener.Accept()
	if err != nil {
		return false
	}
	defer conn.Close()
	in, data := bufio.NewReader(conn), false
	for i, answer := range answers {
		for i > 0 {
			line, err := in.ReadString('\n')
			if err != nil {
				return false
			}
			if !data || line == ".\r\n" {
				break
			}
		}
		data = strings.HasPrefix(answer, "354")
		fmt.Fprintf(conn, "%s\r\n", answer)
	}
	if hang {
		io.Copy(io.Discard, in)
	}
	return true
}

func TestMailSettings(t *testing.T) {
	email := &Email{[]string{"b@example.com"}, "a@example.com"}
	if _, err := newMail(email, Settings{SMTPURL: "smtp://mail.example.com"}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ url, password, want string }{
		{"", "", "--smtp-url: want"},
		{"mail.example.com:25", "", "--smtp-url: want"},
		{"smtp://u:secret@mail.example.com", "", "TIDEMARK_SMTP_PASSWORD"},
		{"smtp://u@mail.example.com", "", "a login needs"},
		{"smtp://mail.example.com", "secret", "a login needs"},
		{"smtp://mail.example.com?tls=off", "", "loopback"},
	} {
		_, err := newMail(email, Settings{SMTPURL: test.url, SMTPPassword: test.password})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// A server without STARTTLS gets neither the login nor the message.
func TestMailNeedsSTARTTLS(t *testing.T) {
	port, _, _ := smtpd(t, "plain", "")
	c := mailSettings{Settings{SMTPURL: "smtp://localhost:" + port}, []string{"a@example.com"}}
	if err := mailTo(t, c).Send(t.Context(), message()); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Error(err)
	}
	c.SMTPURL += "?tls=off"
	if err := mailTo(t, c).Send(t.Context(), message()); err != nil {
		t.Error(err)
	}
}

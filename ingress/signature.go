package ingress

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidemark/problem"
)

// The names of the signature schemes.
const (
	Fastio           = "fastio"            // Fastio-Signature: sha256=<hex> over the body
	FastioV1         = "fastio-v1"         // Fastio-Signature: t=<unix>,v1=<base64> over <t>.<body>
	FastioX          = "fastio-x"          // X-Fastio-Signature: sha256=<hex> and a timestamp header, over <ts>.<body>
	StandardWebhooks = "standard-webhooks" // webhook-id, webhook-timestamp and webhook-signature, over <id>.<ts>.<body>
)

// DefaultTimestampHeader carries the time of a fastio-x request. The vendor does not publish the name, hence a setting.
const DefaultTimestampHeader = "X-Fastio-Timestamp"

// Window is how far the signed time may differ from the receiver's, in either direction.
const Window = 5 * time.Minute

// maxSignatures bounds the work that one request's headers can ask for.
const maxSignatures = 16

var headerForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

// A Scheme is one way of signing a webhook. The zero Scheme is fastio.
type Scheme struct{ name, timestampHeader string }

// ParseScheme returns the scheme of that name. A timestampHeader is for fastio-x
// alone; empty means DefaultTimestampHeader.
func ParseScheme(name, timestampHeader string) (Scheme, error) {
	switch name {
	case Fastio, FastioV1, StandardWebhooks:
		if timestampHeader != "" {
			return Scheme{}, fmt.Errorf(
				"webhook scheme %s has no timestamp header of its own: leave it out, or choose %s", name, FastioX)
		}
		return Scheme{name: name}, nil
	case FastioX:
		if timestampHeader == "" {
			timestampHeader = DefaultTimestampHeader
		}
		if !headerForm.MatchString(timestampHeader) {
			return Scheme{}, fmt.Errorf("timestamp header %q is no header name", timestampHeader)
		}
		return Scheme{name, textproto.CanonicalMIMEHeaderKey(timestampHeader)}, nil
	}
	return Scheme{}, fmt.Errorf("webhook scheme %q: want %s, %s, %s or %s", name, Fastio, FastioV1, FastioX,
		StandardWebhooks)
}

// Name returns the scheme's name.
func (s Scheme) Name() string {
	if s.name == "" {
		return Fastio
	}
	return s.name
}

// Timed reports whether the scheme signs the time, so that old requests are refused.
func (s Scheme) Timed() bool { return s.Name() != Fastio }

// Sign returns the headers that a sender of that scheme adds to a request at the time now. Only standard-webhooks signs
// the id.
func Sign(scheme Scheme, secret Secret, body []byte, id string, now time.Time) http.Header {
	h := http.Header{}
	unix := strconv.FormatInt(now.Unix(), 10)
	switch scheme.Name() {
	case Fastio:
		h.Set("Fastio-Signature", "sha256="+hex.EncodeToString(mac(secret, "", body)))
	case FastioV1:
		h.Set("Fastio-Signature", "t="+unix+",v1="+base64.StdEncoding.EncodeToString(mac(secret, unix+".", body)))
	case FastioX:
		h.Set(scheme.timestampHeader, unix)
		h.Set("X-Fastio-Signature", "sha256="+hex.EncodeToString(mac(secret, unix+".", body)))
	case StandardWebhooks:
		h.Set("Webhook-Id", id)
		h.Set("Webhook-Timestamp", unix)
		h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac(secret, id+"."+unix+".", body)))
	}
	return h
}

func mac(secret Secret, prefix string, body []byte) []byte {
	m := hmac.New(sha256.New, secret.key)
	m.Write([]byte(prefix)) // a hash never fails to write
	m.Write(body)
	return m.Sum(nil)
}

// A claim is the signature as read from a request's headers.
type claim struct {
	prefix string   // signed before the body
	macs   [][]byte // one of them must match: a sender that rotates its secret signs twice
	timed  bool
	unix   int64
}

// add takes one entry of a header. It skips one that is not well-formed, as the reference libraries do: another may
// match. It returns false past maxSignatures.
func (c *claim) add(sum []byte, wellFormed bool) bool {
	if wellFormed {
		c.macs = append(c.macs, sum)
	}
	return len(c.macs) <= maxSignatures
}

// A grant is the set of workspaces that a valid signature covers.
type grant struct {
	all        bool
	workspaces []string
}

func (g grant) covers(workspace string) bool {
	return g.all || slices.Contains(g.workspaces, workspace)
}

// Verify checks a request's signature as the webhook endpoint does, at the time now. Its error is the *problem.Problem
// that the endpoint would answer.
func Verify(scheme Scheme, secrets []Secret, h http.Header, body []byte, now time.Time) error {
	if _, refused := verify(scheme, secrets, h, body, now); refused != nil {
		return refused
	}
	return nil
}

// verify checks a request against every secret, also after one has matched: neither the duration nor the answer reveals
// which secret nearly matched.
func verify(scheme Scheme, secrets []Secret, h http.Header, body []byte, now time.Time) (grant, *problem.Problem) {
	c, refused := scheme.claim(h)
	if refused != nil {
		return grant{}, refused
	}
	var g grant
	found := false
	for _, secret := range secrets {
		want, matches := mac(secret, c.prefix, body), false
		for _, got := range c.macs {
			matches = hmac.Equal(got, want) || matches
		}
		if !matches {
			continue
		}
		found = true
		if secret.workspace == "" {
			g.all = true
		} else {
			g.workspaces = append(g.workspaces, secret.workspace)
		}
	}
	if !found {
		return grant{}, unsigned("signature_mismatch", "no active secret gives this signature: sign the raw body, "+
			"byte for byte as sent, with the secret configured here")
	}
	if age := now.Unix() - c.unix; c.timed && (age > int64(Window/time.Second) || -age > int64(Window/time.Second)) {
		return grant{}, unsigned("signature_expired", "the signed time is more than 5 minutes from the time here: "+
			"sign each attempt again, and set the sender's clock")
	}
	return g, nil
}

func unsigned(code, detail string) *problem.Problem {
	return problem.New(http.StatusUnauthorized, code, detail).With("WWW-Authenticate", "Signature")
}

// claim reads the headers of the scheme. A header given twice is refused: proxies differ in which one they keep.
func (s Scheme) claim(h http.Header) (claim, *problem.Problem) {
	switch s.Name() {
	case FastioV1:
		return claimV1(h)
	case FastioX:
		unix, refused := timestamp(h, s.timestampHeader)
		if refused != nil {
			return claim{}, refused
		}
		c, refused := claimHex(h, "X-Fastio-Signature")
		c.prefix, c.timed, c.unix = only(h, s.timestampHeader)+".", true, unix
		return c, refused
	case StandardWebhooks:
		return claimStandard(h)
	}
	return claimHex(h, "Fastio-Signature")
}

func claimHex(h http.Header, name string) (claim, *problem.Problem) {
	const form = "sha256=<64 hexadecimal digits>"
	text, refused := header(h, name)
	if refused != nil {
		return claim{}, refused
	}
	var c claim
	for part := range strings.SplitSeq(text, ",") {
		algorithm, digits, _ := strings.Cut(strings.TrimSpace(part), "=")
		sum, err := hex.DecodeString(digits)
		if !c.add(sum, err == nil && len(sum) == sha256.Size && strings.EqualFold(algorithm, "sha256")) {
			return claim{}, malformed(name, form)
		}
	}
	if len(c.macs) == 0 {
		return claim{}, malformed(name, form)
	}
	return c, nil
}

func claimV1(h http.Header) (claim, *problem.Problem) {
	const name, form = "Fastio-Signature", "t=<unix seconds>,v1=<base64 of 32 bytes>"
	text, refused := header(h, name)
	if refused != nil {
		return claim{}, refused
	}
	var c claim
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "t":
			unix, ok := parseUnix(value)
			if !ok || c.timed {
				return claim{}, malformed(name, form)
			}
			c.prefix, c.timed, c.unix = value+".", true, unix
		case "v1":
			if !c.add(decodeMAC(value)) {
				return claim{}, malformed(name, form)
			}
		} // other keys are of later versions
	}
	if !c.timed || len(c.macs) == 0 {
		return claim{}, malformed(name, form)
	}
	return c, nil
}

func claimStandard(h http.Header) (claim, *problem.Problem) {
	const name, form = "Webhook-Signature", "v1,<base64 of 32 bytes>"
	id, refused := header(h, "Webhook-Id")
	if refused != nil {
		return claim{}, refused
	}
	unix, refused := timestamp(h, "Webhook-Timestamp")
	if refused != nil {
		return claim{}, refused
	}
	text, refused := header(h, name)
	if refused != nil {
		return claim{}, refused
	}
	c := claim{prefix: id + "." + only(h, "Webhook-Timestamp") + ".", timed: true, unix: unix}
	for part := range strings.FieldsSeq(text) {
		version, value, _ := strings.Cut(part, ",")
		if version != "v1" {
			continue // v1a is the asymmetric form; others are of later versions
		}
		if !c.add(decodeMAC(value)) {
			return claim{}, malformed(name, form)
		}
	}
	if len(c.macs) == 0 {
		return claim{}, malformed(name, form)
	}
	return c, nil
}

// only returns the header's trimmed value, or "" unless it is there exactly once.
func only(h http.Header, name string) string {
	if values := h[name]; len(values) == 1 {
		return textproto.TrimString(values[0])
	}
	return ""
}

func header(h http.Header, name string) (string, *problem.Problem) {
	if len(h[name]) > 1 {
		return "", unsigned("signature_malformed", "the header is there more than once: send it once").On(name)
	}
	text := only(h, name)
	if text == "" {
		return "", unsigned("signature_missing",
			"the header is missing: sign the request, or set the scheme that the sender uses").On(name)
	}
	return text, nil
}

func timestamp(h http.Header, name string) (int64, *problem.Problem) {
	text, refused := header(h, name)
	if refused != nil {
		return 0, refused
	}
	unix, ok := parseUnix(text)
	if !ok {
		return 0, malformed(name, "<unix seconds>")
	}
	return unix, nil
}

func malformed(name, form string) *problem.Problem {
	return unsigned("signature_malformed", "the header is not of the form "+form).On(name)
}

// parseUnix reads seconds since 1970. Only the canonical decimal form is accepted, since the text is part of what is
// signed.
func parseUnix(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 40)
	return int64(n), err == nil && strconv.FormatUint(n, 10) == s
}

func decodeMAC(s string) ([]byte, bool) {
	sum, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	return sum, err == nil && len(sum) == sha256.Size
}

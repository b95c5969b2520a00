package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"tidemark/sinks"
)

// An Outbound makes HTTP requests to URLs that other people choose. It connects to public addresses, and to those that
// the settings allow. The resolved address is checked as the connection is made, so a name may change its address
// meanwhile. It follows no redirect and uses no proxy.
type Outbound struct {
	allow  []netip.Prefix
	dialer *net.Dialer
	client *http.Client
}

const (
	sendTimeout = 20 * time.Second // Standard Webhooks asks for 15 to 30 s
	maxAnswer   = 64 << 10         // bytes that are read of an answer
	maxPause    = 24 * time.Hour   // the longest Retry-After that is honoured
)

// NewOutbound allows public addresses and those in allow. Roots are the certificate authorities; nil: the system's.
func NewOutbound(allow []netip.Prefix, roots *x509.CertPool) *Outbound {
	o := &Outbound{allow: allow}
	o.dialer = &net.Dialer{Timeout: 10 * time.Second, Control: o.control}
	o.client = &http.Client{
		Transport: &http.Transport{
			DialContext: o.dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: maxAnswer, MaxIdleConnsPerHost: 8,
			IdleConnTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return o
}

var errForbidden = errors.New(
	"the address is not public, or its port is neither 443 nor above 1023: --notify-allow-cidr can allow it")

func (o *Outbound) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := to.Addr().Unmap().WithZone("")
	if nat64.Contains(a) { // a translator connects to the IPv4 address in it
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	public := (a.Is4() || unicast.Contains(a)) && !contains(special, a) && (to.Port() == 443 || to.Port() > 1023)
	if public || contains(o.allow, a) {
		return nil
	}
	return errForbidden
}

var (
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	unicast = netip.MustParsePrefix("2000::/3")
	// special are the other addresses that IANA's registries of special purpose addresses name.
	special = prefixes(`0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
		192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3
		2001::/23 2001:db8::/32 2002::/16 3fff::/20`)
)

func prefixes(text string) (all []netip.Prefix) {
	for prefix := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParsePrefix(prefix))
	}
	return all
}

func contains(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseURL reads a URL to which requests go. Errors do not repeat it: it may have a secret.
func parseURL(raw string) (*url.URL, error) {
	to, err := url.Parse(raw)
	if err != nil || to.Scheme != "https" && to.Scheme != "http" || to.Hostname() == "" || to.User != nil {
		return nil, errors.New("want a URL like https://example.com/hook, without a password in it")
	}
	return to, nil
}

// parse takes plain http for receivers in the allowed networks only: elsewhere its port 80 is refused.
func (o *Outbound) parse(raw string) (*url.URL, error) {
	to, err := parseURL(raw)
	if err == nil && to.Scheme == "http" && len(o.allow) == 0 {
		err = errors.New("the URL must begin with https://; http:// is for receivers in --notify-allow-cidr")
	}
	return to, err
}

// check returns an error if the address of the host is not allowed.
func (o *Outbound) check(ctx context.Context, to *url.URL) error {
	conn, err := o.dialer.DialContext(ctx, "tcp", net.JoinHostPort(to.Hostname(), cmp.Or(to.Port(), to.Scheme)))
	if err == nil {
		return conn.Close()
	}
	if errors.Is(err, errForbidden) {
		return err
	}
	return nil
}

// An answer is what an HTTP destination answered. Of a body that is cut or slow it has what came in time: the status
// counts.
type answer struct {
	status int
	body   []byte
	pause  time.Duration // Retry-After
}

// failed returns an error with the answer's text, and the pause if it has one.
func (a answer) failed(who string) error {
	text := strings.ToValidUTF8(string(a.body[:min(len(a.body), 500)]), "")
	err := fmt.Errorf("%s answered %d %s: %q", who, a.status, http.StatusText(a.status), text)
	return sinks.LaterOf(a.status, a.pause, err)
}

// post sends JSON. Errors do not name the URL, which may have a secret.
func (o *Outbound) post(ctx context.Context, to *url.URL, body []byte, header http.Header) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, errors.New("the URL cannot be used")
	}
	maps.Copy(request.Header, header)
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	request.Header.Set("User-Agent", "tidemark")
	response, err := o.client.Do(request)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return answer{}, failed.Err
	} else if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // see answer
	return answer{response.StatusCode, text, sinks.RetryAfter(response.Header, maxPause)}, nil
}

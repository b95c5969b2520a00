package notify

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// An Outbound makes HTTP requests to URLs that other people choose. It connects to public addresses, and to those that
// the settings allow. The resolved address is checked as the connection is made, so a name may change its address
// meanwhile. It follows no redirect and uses no proxy.
type Outbound struct {
	allow  []netip.Prefix
	dialer *net.Dialer
	client *http.Client
}

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

// A forbidden is the error of an address to which nothing is sent.
type forbidden struct{ to netip.AddrPort }

func (f *forbidden) Error() string {
	return fmt.Sprintf("%v is not public, or its port is neither 443 nor above 1023: --notify-allow-cidr can allow it",
		f.to)
}

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
	if contains(o.allow, a) || public(a) && (to.Port() == 443 || to.Port() > 1023) {
		return nil
	}
	return &forbidden{to}
}

// parse checks a URL. Errors do not repeat it: it may have a secret. Plain http is for receivers in the allowed
// networks: elsewhere its port 80 is refused.
func (o *Outbound) parse(raw string) (*url.URL, error) {
	to, err := url.Parse(raw)
	switch {
	case err != nil || to.Hostname() == "":
		return nil, errors.New("the URL cannot be read: want https://host/path")
	case to.User != nil:
		return nil, errors.New("the URL has a user name: remove it")
	case to.Scheme != "https" && (to.Scheme != "http" || len(o.allow) == 0):
		return nil, errors.New("the URL must begin with https://; http:// is for receivers in --notify-allow-cidr")
	}
	return to, nil
}

func (o *Outbound) check(ctx context.Context, to *url.URL) error {
	port := cmp.Or(to.Port(), map[string]string{"http": "80", "https": "443"}[to.Scheme])
	conn, err := o.dialer.DialContext(ctx, "tcp", net.JoinHostPort(to.Hostname(), port))
	if err == nil {
		return conn.Close()
	}
	if refused, ok := errors.AsType[*forbidden](err); ok {
		return refused
	}
	return nil
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

func public(a netip.Addr) bool { return (a.Is4() || unicast.Contains(a)) && !contains(special, a) }

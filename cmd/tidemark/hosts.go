package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"tidemark/auth"
	"tidemark/problem"
)

// hostFlags are the settings of servers without tokens.
type hostFlags struct {
	AllowedHost []string `help:"Host names under which the query API and the admin address are used without tokens, beside localhost, IP addresses and the name in the address itself. Requests for other names are refused: a web site may have its name resolve to this address." placeholder:"NAME" group:"Auth"`
}

// allowHosts refuses requests for a name that nobody has configured. Without tokens, a web site whose name resolves to
// this address (DNS rebinding) could read the answers in its visitors' browsers. With tokens it has none, so nothing is
// refused.
func (f hostFlags) allowHosts(guard *auth.Guard, addr string, next http.Handler, further ...string) http.Handler {
	if guard != nil {
		return next
	}
	names := map[string]bool{"localhost": true, hostName(addr): true}
	for _, name := range append(further, f.AllowedHost...) {
		names[hostName(name)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostName(r.Host)
		if _, err := netip.ParseAddr(host); err != nil && !names[host] {
			problem.New(http.StatusMisdirectedRequest, "unknown_host", "requests for this host name are not answered "+
				"without tokens: use localhost or an IP address, or start tidemark with --allowed-host").Write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName returns the host of HOST:PORT or HOST, in lower case, of an IPv6 address without brackets.
func hostName(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

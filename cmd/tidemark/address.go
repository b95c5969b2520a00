package main

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// Values of the tag address of a flag.
const (
	listenAddress = "listen" // HOST:PORT, or :PORT for every interface
	dialAddress   = "dial"   // HOST:PORT
	urlAddress    = "url"
)

// checkAddresses refuses invalid addresses, wherever they were set, before the command creates a store, a topic or a
// secret.
func checkAddresses(ctx *kong.Context) error {
	for _, flag := range ctx.Flags() {
		kind := flag.Tag.Get("address")
		if kind == "" {
			continue
		}
		var values []string
		switch v := ctx.FlagValue(flag).(type) {
		case string:
			values = []string{v}
		case []string:
			values = v
		default: // not seen: such flags have these types
			return fmt.Errorf("--%s holds a %T", flag.Name, v)
		}
		for _, value := range values {
			if err := checkAddress(kind, value, flag.Default); err != nil {
				return usagef("--%s %w", flag.Name, err)
			}
		}
	}
	return nil
}

// checkAddress returns an error with a suggestion for a value that is no address of its kind. An empty one means the
// default, or none.
func checkAddress(kind, value, byDefault string) error {
	switch {
	case value == "" && kind != dialAddress:
		return nil
	case kind == urlAddress:
		return checkURL(value)
	}
	host, port, err := net.SplitHostPort(value)
	lowest := 0
	if kind == dialAddress {
		lowest = 1
	}
	_, standard, _ := net.SplitHostPort(byDefault) // a flag without a default leaves none
	standard = cmp.Or(standard, "9092")
	if err == nil && !strings.ContainsAny(value, "/ \t\n") {
		if n, err := strconv.Atoi(port); err == nil && n >= lowest && n <= 65535 {
			return nil
		}
		return fmt.Errorf("%q: port %q is not a number from %d to 65535: write %s", value, port, lowest,
			net.JoinHostPort(host, standard))
	}
	return fmt.Errorf("%q is not HOST:PORT: write %s", value, suggestAddress(kind, value, standard))
}

// suggestAddress returns the address that was probably meant.
func suggestAddress(kind, value, port string) string {
	if bare := strings.TrimSpace(value); bare != value { // space in a list
		if bare != "" && checkAddress(kind, bare, "") == nil {
			return bare
		}
		value = bare
	}
	if u, err := url.Parse(value); err == nil && u.Host != "" { // a URL
		return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
	}
	if _, err := strconv.ParseUint(value, 10, 16); err == nil { // a port
		if kind == listenAddress {
			return ":" + value
		}
		return "127.0.0.1:" + value
	}
	value = strings.Trim(value, "[]")
	last := strings.LastIndexByte(value, ':')
	if last > 0 && net.ParseIP(value[:last]) != nil { // IPv6 without its brackets, and a port
		if _, err := strconv.ParseUint(value[last+1:], 10, 16); err == nil {
			return net.JoinHostPort(value[:last], value[last+1:])
		}
	}
	if strings.Contains(value, ":") && net.ParseIP(value) == nil || strings.Contains(value, "/") || value == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return net.JoinHostPort(value, port) // a host
}

func checkURL(value string) error {
	u, err := url.Parse(value)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" {
		return nil
	}
	if host, port, err := net.SplitHostPort(value); err == nil && !strings.Contains(port, "/") {
		return fmt.Errorf("%q is not a URL: write http://%s", value, net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port))
	}
	return fmt.Errorf("%q is not a URL: write one that begins with http:// or https:// and a host", value)
}

// loopback reports whether only this host can reach a listener at addr. A name counts only as localhost: others may
// resolve to any address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	keysInterval    = 5 * time.Minute  // how long a key that the issuer has removed is accepted, if its URL answers
	minKeysInterval = 10 * time.Second // shortest time between two requests to the URL, also for unknown keys
	keysTimeout     = 5 * time.Second
	minRSABits      = 2048
	maxRedirects    = 3
)

// A keySet has the public keys of an issuer, by the JWKS of a file or URL.
type keySet struct {
	keys                  reloaded[[]jose.JSONWebKey]
	interval, minInterval time.Duration
}

// newKeySet reads the keys. Only a wrong location and a file that cannot be read are errors.
func newKeySet(ctx context.Context, location string, log *slog.Logger) (*keySet, error) {
	k := &keySet{interval: fileInterval, minInterval: fileInterval, keys: reloaded[[]jose.JSONWebKey]{
		name: location, read: readFile(location), parse: parseKeys, log: log, now: time.Now,
	}}
	if !strings.Contains(location, "://") {
		return k, k.keys.load(ctx)
	}
	address, err := url.Parse(location)
	if err != nil || safeURL(address) != nil || address.User != nil {
		return nil, errors.New("want a file, or a URL with https and without a password: http is for loopback only")
	}
	k.interval, k.minInterval = keysInterval, minKeysInterval
	k.keys.read = fetch(address.String())
	k.keys.get(ctx, k.minInterval, true) // logs a failure
	return k, nil
}

// find returns the key of a token. A token without a key id is accepted if only one key fits its algorithm.
func (k *keySet) find(ctx context.Context, id, algorithm string) (any, error) {
	for _, limit := range []time.Duration{k.interval, k.minInterval} {
		keys := k.keys.get(ctx, limit, limit == k.minInterval)
		if keys == nil {
			continue
		}
		var fit []any
		for _, key := range *keys {
			if (id == "" || key.KeyID == id) && fits(key, algorithm) {
				fit = append(fit, key.Key)
			}
		}
		if len(fit) == 1 {
			return fit[0], nil
		}
		if id == "" {
			return nil, badToken("the token names no key (kid)")
		}
		// The issuer may have a new key: once more.
	}
	if k.keys.value.Load() == nil {
		return nil, noKeys()
	}
	return nil, badToken("the token's key (kid) is not known")
}

// fits reports whether a key is for signatures with the algorithm.
func fits(key jose.JSONWebKey, algorithm string) bool {
	if key.Algorithm != "" && key.Algorithm != algorithm || key.Use != "" && key.Use != "sig" {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return algorithm == string(jose.RS256) && public.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		return algorithm == string(jose.ES256) && public.Curve == elliptic.P256()
	}
	return false
}

// parseKeys reads a JWKS. Keys of kinds that are not known are left out, as RFC 7517, section 5, wants it.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil || set.Keys == nil {
		return nil, errors.New("no JWKS: want a JSON object with keys")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && (fits(key, string(jose.RS256)) || fits(key, string(jose.ES256))) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, &emptyError{fmt.Errorf("the JWKS has no public key for RS256 (of %d bits at least) or ES256",
			minRSABits)}
	}
	return keys, nil
}

// safeURL refuses http but to this host: who can change the answer can sign tokens.
func safeURL(u *url.URL) error {
	ip := net.ParseIP(u.Hostname())
	if u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback()) {
		return nil
	}
	return errors.New("the keys must be at an https URL")
}

func fetch(address string) func(context.Context) ([]byte, error) {
	client := &http.Client{Timeout: keysTimeout, CheckRedirect: func(to *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		return safeURL(to.URL)
	}}
	return func(ctx context.Context) ([]byte, error) {
		// A client that leaves must not end a request that others wait for.
		request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the URL of the keys answered %s", response.Status)
		}
		return readBounded(response.Body, "the answer")
	}
}

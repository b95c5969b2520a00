package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

var testSecret = []byte(strings.Repeat("s", minSecret))

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// valid are claims of a token that is accepted.
func valid(edit ...map[string]any) map[string]any {
	claims := map[string]any{
		"iss": "https://id.example", "aud": []string{"other", "tidemark"}, "sub": "ann",
		"exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Unix(),
		"tidemark": map[string]any{"workspaces": []string{"123"}, "rights": []string{"read", "fly"}},
	}
	for _, e := range edit {
		for name, value := range e {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
	}
	return claims
}

func sign(t *testing.T, algorithm jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	signing := key
	if kid != "" {
		signing = jose.JSONWebKey{Key: key, KeyID: kid}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: signing}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func keySetOf(t *testing.T, keys ...jose.JSONWebKey) string {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func public(key crypto.Signer, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: kid, Use: "sig"}
}

func newJWT(t *testing.T, conf JWTConfig) *JWT {
	t.Helper()
	conf.Issuer, conf.Audience, conf.Log = "https://id.example", "tidemark", slog.New(slog.DiscardHandler)
	j, err := NewJWT(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func fileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	write(t, path, text)
	return path
}

func TestJWTClaims(t *testing.T) {
	j := newJWT(t, JWTConfig{Secret: testSecret})
	id, err := j.Verify(t.Context(), sign(t, jose.HS256, testSecret, "", valid()))
	if err != nil || id.Name != "ann" || !id.MayUse("123") || id.MayUse("1") || !id.Has(Read) || id.Has(Admin) {
		t.Fatalf("%+v, %v", id, err)
	}
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for what, claims := range map[string]map[string]any{
		"expired":                {"exp": at(-2 * time.Minute)},
		"without exp":            {"exp": nil},
		"not valid yet":          {"nbf": at(2 * time.Minute)},
		"issued in the future":   {"iat": at(2 * time.Minute)},
		"another issuer":         {"iss": "https://id.example.evil"},
		"no issuer":              {"iss": nil},
		"another audience":       {"aud": "tidemark2"},
		"no audience":            {"aud": nil},
		"an empty audience":      {"aud": []string{}},
		"exp is text":            {"exp": "tomorrow"},
		"workspaces is text":     {"tidemark": map[string]any{"workspaces": "123"}},
		"rights has a number":    {"tidemark": map[string]any{"rights": []int{1}}},
		"the claim is no object": {"tidemark": "*"},
	} {
		token := sign(t, jose.HS256, testSecret, "", valid(claims))
		if id, err := j.Verify(t.Context(), token); err == nil {
			t.Errorf("%s: accepted as %+v", what, id)
		} else {
			wantCode(t, err, codeBadToken, token)
		}
	}
	for what, claims := range map[string]map[string]any{
		"expired a moment ago": {"exp": at(-30 * time.Second)}, "valid in a moment": {"nbf": at(30 * time.Second)},
		"audience is text": {"aud": "tidemark"},
	} {
		if _, err := j.Verify(t.Context(), sign(t, jose.HS256, testSecret, "", valid(claims))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	id, err = j.Verify(t.Context(), sign(t, jose.HS256, testSecret, "", valid(map[string]any{"tidemark": nil})))
	if err != nil || id.Has(Read) || id.MayUse("") || id.MayUse("123") {
		t.Errorf("without the claim: %+v, %v", id, err)
	}
}

// A key is used with the algorithm of its kind only.
func TestNoAlgorithmConfusion(t *testing.T) {
	r, e := rsaKey(t), ecKey(t, elliptic.P256())
	keys := fileOf(t, keySetOf(t, public(r, "r"), public(e, "e")))
	both := newJWT(t, JWTConfig{Secret: testSecret, Keys: keys})
	onlyKeys, onlySecret := newJWT(t, JWTConfig{Keys: keys}), newJWT(t, JWTConfig{Secret: testSecret})
	der, err := x509.MarshalPKIXPublicKey(r.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	body, good := part(valid()), sign(t, jose.RS256, r, "r", valid())
	embedded, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey(t)},
		&jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	own, err := jwt.Signed(embedded).Claims(valid()).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	hmac := func(key []byte) string { return sign(t, jose.HS256, key, "r", valid()) }
	bad := map[string]string{
		"none":                         part(map[string]any{"alg": "none"}) + "." + body + ".",
		"None":                         part(map[string]any{"alg": "None", "kid": "r"}) + "." + body + ".",
		"without an algorithm":         part(map[string]any{}) + "." + body + ".",
		"HS256 by the public key, PEM": hmac(text),
		"HS256 by the public key, DER": hmac(der),
		"HS256 by the modulus":         hmac(r.N.Bytes()),
		"HS256 by an empty key":        part(map[string]any{"alg": "HS256"}) + "." + body + ".",
		"PS256":                        sign(t, jose.PS256, r, "r", valid()),
		"RS512":                        sign(t, jose.RS512, r, "r", valid()),
		"HS512":                        sign(t, jose.HS512, append(testSecret, testSecret...), "", valid()),
		"ES384":                        sign(t, jose.ES384, ecKey(t, elliptic.P384()), "e", valid()),
		"ES256 by the kid of RSA":      sign(t, jose.ES256, e, "r", valid()),
		"RS256 by the kid of EC":       sign(t, jose.RS256, r, "e", valid()),
		"RS256 by another key":         sign(t, jose.RS256, rsaKey(t), "r", valid()),
		"a key in the token":           own,
		"a signature of other claims":  good[:strings.Index(good, ".")+1] + body + "x" + good[strings.LastIndex(good, "."):],
		"without its signature":        good[:strings.LastIndex(good, ".")+1],
		"the JSON form":                `{"payload":"` + body + `","signatures":[]}`,
		"a dot":                        ".", "dots": "..", "four parts": good + ".x", "not base64": "a$.b.c",
		"a critical header": part(map[string]any{"alg": "RS256", "kid": "r", "crit": []string{"x"}, "x": 1}) + good[strings.Index(good, "."):],
		"long":              strings.Repeat("a", 1<<20),
	}
	for _, what := range slices.Sorted(maps.Keys(bad)) {
		for name, j := range map[string]*JWT{"both": both, "keys": onlyKeys, "secret": onlySecret} {
			if id, err := j.Verify(t.Context(), bad[what]); err == nil {
				t.Errorf("%s is accepted by %s as %+v", what, name, id)
			} else {
				wantCode(t, err, codeBadToken, "")
			}
		}
	}
	for name, c := range map[string]struct {
		token                  string
		both, keysOnly, secret bool
	}{
		"RS256": {good, true, true, false}, "ES256": {sign(t, jose.ES256, e, "e", valid()), true, true, false},
		"HS256": {hmac(testSecret), true, false, true},
	} {
		for j, want := range map[*JWT]bool{both: c.both, onlyKeys: c.keysOnly, onlySecret: c.secret} {
			if _, err := j.Verify(t.Context(), c.token); (err == nil) != want {
				t.Errorf("%s: %v, want accepted: %v", name, err, want)
			}
		}
	}
}

func TestKeyID(t *testing.T) {
	one, two, e := rsaKey(t), rsaKey(t), ecKey(t, elliptic.P256())
	for _, c := range []struct {
		what string
		set  string
		kid  string
		ok   bool
	}{
		{"no kid, one key of the kind", keySetOf(t, public(one, "1"), public(e, "2")), "", true},
		{"no kid, two keys of the kind", keySetOf(t, public(one, "1"), public(two, "2")), "", false},
		{"an unknown kid, one key", keySetOf(t, public(one, "1")), "3", false},
		{"the kid of another key", keySetOf(t, public(one, "1"), public(two, "2")), "2", false},
		{"the same kid for another kind", keySetOf(t, public(one, "1"), public(e, "1")), "1", true},
		{"a key for encryption", keySetOf(t, jose.JSONWebKey{Key: one.Public(), KeyID: "1", Use: "enc"}, public(e, "2")), "1", false},
		{"a key for another algorithm", keySetOf(t, jose.JSONWebKey{Key: one.Public(), KeyID: "1", Algorithm: "PS256"}, public(e, "2")), "1", false},
		{"beside keys of unknown kinds", `{"keys":[{"kty":"new","kid":"1"},{"kty":"oct","k":"czM","kid":"1"},` + keySetOf(t, public(one, "1"))[9:], "1", true},
	} {
		j := newJWT(t, JWTConfig{Keys: fileOf(t, c.set)})
		if _, err := j.Verify(t.Context(), sign(t, jose.RS256, one, c.kid, valid())); (err == nil) != c.ok {
			t.Errorf("%s: %v, want accepted: %v", c.what, err, c.ok)
		}
	}
}

// An issuer that withdraws its last key withdraws all tokens. What is no JWKS withdraws none.
func TestTheLastKeyIsWithdrawn(t *testing.T) {
	key := rsaKey(t)
	good := keySetOf(t, public(key, "1"))
	path, now := fileOf(t, good), time.Now()
	j := newJWT(t, JWTConfig{Keys: path})
	j.keys.keys.now = func() time.Time { return now }
	weak := keySetOf(t, public(ecKey(t, elliptic.P384()), "1"))
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{good, true},
		{"{}", true},
		{`{"keys":null}`, true},
		{`{"keys":[`, true},
		{`{"keys":[]}`, false},
		{good, true},
		{weak, false},
		{"{}", false},
	} {
		write(t, path, c.text)
		now = now.Add(fileInterval)
		token := sign(t, jose.RS256, key, "1", valid())
		if _, err := j.Verify(t.Context(), token); (err == nil) != c.ok {
			t.Errorf("%s: %v, want accepted: %v", c.text, err, c.ok)
		} else if !c.ok {
			wantCode(t, err, codeBadToken, token)
		}
	}
}

func TestSettingsOfJWT(t *testing.T) {
	weak, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public(ecKey(t, elliptic.P384()), "1")}})
	if err != nil {
		t.Fatal(err)
	}
	for what, conf := range map[string]JWTConfig{
		"no key": {Issuer: "i", Audience: "a"}, "no issuer": {Audience: "a", Secret: testSecret},
		"no audience": {Issuer: "i", Secret: testSecret}, "a short secret": {Issuer: "i", Audience: "a", Secret: []byte("x")},
		"no file": {Issuer: "i", Audience: "a", Keys: "/nothing"}, "no keys": {Issuer: "i", Audience: "a", Keys: fileOf(t, "{}")},
		"no JSON":            {Issuer: "i", Audience: "a", Keys: fileOf(t, "-----BEGIN")},
		"another curve":      {Issuer: "i", Audience: "a", Keys: fileOf(t, string(weak))},
		"http":               {Issuer: "i", Audience: "a", Keys: "http://id.example/keys"},
		"ftp":                {Issuer: "i", Audience: "a", Keys: "ftp://id.example/keys"},
		"a password":         {Issuer: "i", Audience: "a", Keys: "https://u:secret@id.example/keys"},
		"a URL without host": {Issuer: "i", Audience: "a", Keys: "https:///keys"},
	} {
		conf.Log = slog.New(slog.DiscardHandler)
		if _, err := NewJWT(t.Context(), conf); err == nil || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// An issuer serves keys, and counts requests.
type issuer struct {
	*httptest.Server
	body     atomic.Pointer[string] // nil: 500
	requests atomic.Int64
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.requests.Add(1)
		if body := i.body.Load(); body != nil {
			fmt.Fprint(w, *body)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) serve(body string) { i.body.Store(&body) }

// A new key is loaded when the first token with it arrives, at most once in a while; a removed one ends; an issuer that
// does not answer changes nothing.
func TestKeyRotation(t *testing.T) {
	old, young := rsaKey(t), rsaKey(t)
	i, now := newIssuer(t), time.Unix(2e9, 0)
	i.serve(keySetOf(t, public(old, "old")))
	j := newJWT(t, JWTConfig{Keys: i.URL})
	j.now = func() time.Time { return now }
	j.keys.keys.now = j.now
	j.keys.keys.tried.Store(new(now))
	exp := map[string]any{"exp": now.Add(1000 * time.Hour).Unix()}
	oldToken, youngToken := sign(t, jose.RS256, old, "old", valid(exp)), sign(t, jose.RS256, young, "young", valid(exp))
	check := func(what string, wantOld, wantYoung bool, requests int64) {
		t.Helper()
		_, oldErr := j.Verify(t.Context(), oldToken)
		_, youngErr := j.Verify(t.Context(), youngToken)
		if (oldErr == nil) != wantOld || (youngErr == nil) != wantYoung || i.requests.Load() != requests {
			t.Errorf("%s: old %v, young %v, %d requests, want %d", what, oldErr, youngErr, i.requests.Load(), requests)
		}
	}
	check("at first", true, false, 1)
	i.serve(keySetOf(t, public(old, "old"), public(young, "young")))
	check("within the bound of requests", true, false, 1)
	for range 100 {
		_, err := j.Verify(t.Context(), sign(t, jose.RS256, young, "made up", valid(exp)))
		wantCode(t, err, codeBadToken, "")
	}
	check("after many unknown keys", true, false, 1)
	now = now.Add(minKeysInterval)
	check("after it", true, true, 2)
	i.body.Store(nil)
	now = now.Add(keysInterval)
	check("without an answer", true, true, 3)
	i.serve(strings.Repeat(" ", maxSource+1))
	now = now.Add(keysInterval)
	check("an endless answer", true, true, 4)
	i.serve(`{"keys":[]}`)
	now = now.Add(keysInterval)
	check("without keys", false, false, 5)
	i.serve(keySetOf(t, public(young, "young")))
	now = now.Add(keysInterval)
	check("removed", false, true, 6)
}

// Before the keys were loaded once, a token is neither good nor bad.
func TestTheIssuerIsDown(t *testing.T) {
	key, i, now := rsaKey(t), newIssuer(t), time.Unix(2e9, 0)
	j := newJWT(t, JWTConfig{Keys: i.URL})
	j.now = func() time.Time { return now }
	j.keys.keys.now = j.now
	j.keys.keys.tried.Store(new(now))
	token := sign(t, jose.RS256, key, "1", valid(map[string]any{"exp": now.Add(time.Hour).Unix()}))
	for range 3 {
		_, err := j.Verify(t.Context(), token)
		wantCode(t, err, codeNoKeys, token)
	}
	i.serve(keySetOf(t, public(key, "1")))
	now = now.Add(minKeysInterval)
	if _, err := j.Verify(t.Context(), token); err != nil || i.requests.Load() != 2 {
		t.Errorf("%v after %d requests", err, i.requests.Load())
	}
}

// Keys are not read over a connection that others can change.
func TestKeysAreNotRedirectedToHTTP(t *testing.T) {
	i := newIssuer(t)
	i.serve("{}")
	redirect := httptest.NewServer(http.RedirectHandler("http://id.example/keys", http.StatusFound))
	defer redirect.Close()
	if _, err := fetch(redirect.URL)(context.Background()); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("redirected to http: %v", err)
	}
}

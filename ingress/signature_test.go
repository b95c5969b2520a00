package ingress

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var everyScheme = []string{Fastio, FastioV1, FastioX, StandardWebhooks}

// keyFor spells a key as the scheme's secrets are written.
func keyFor(scheme, key string) string {
	if scheme == StandardWebhooks {
		return whsec + base64.StdEncoding.EncodeToString([]byte(key))
	}
	return key
}

// The headers are spelled here from fastio.md's table, not by Sign: both sides of one mistake would agree.
func TestVerifyKnownHeaders(t *testing.T) {
	t.Parallel()
	sum := func(signed string) []byte {
		m := hmac.New(sha256.New, []byte(anyKey))
		m.Write([]byte(signed))
		return m.Sum(nil)
	}
	b64 := base64.StdEncoding.EncodeToString
	unix := fmt.Sprint(noon.Unix())
	wrong := b64(make([]byte, 32))
	tests := []struct {
		name, scheme string
		header       http.Header
	}{
		{"fastio", Fastio, http.Header{"Fastio-Signature": {"sha256=" + hex.EncodeToString(sum(minimal))}}},
		{"upper-case hex", Fastio, http.Header{"Fastio-Signature": {"sha256=" + strings.ToUpper(hex.EncodeToString(sum(minimal)))}}},
		{"upper-case algorithm", Fastio, http.Header{"Fastio-Signature": {"SHA256=" + hex.EncodeToString(sum(minimal))}}},
		{"space around", Fastio, http.Header{"Fastio-Signature": {" \tsha256=" + hex.EncodeToString(sum(minimal)) + " "}}},
		{"a malformed one, and the right one", Fastio, http.Header{"Fastio-Signature": {"sha256=abc,sha256=" + hex.EncodeToString(sum(minimal))}}},
		{"the right one, and a malformed one", Fastio, http.Header{"Fastio-Signature": {"sha256=" + hex.EncodeToString(sum(minimal)) + ", md5=zz,,"}}},
		{"signed twice", Fastio, http.Header{"Fastio-Signature": {"sha256=" + strings.Repeat("0", 64) + ",sha256=" + hex.EncodeToString(sum(minimal))}}},
		{"v1, a malformed one first", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=AAAA,v1=" + b64(sum(unix+"."+minimal))}}},
		{"v1, malformed ones last", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=" + b64(sum(unix+"."+minimal)) + ",v1=,v1=!,v1"}}},
		{"x, a malformed one first", FastioX, http.Header{"X-Fastio-Timestamp": {unix}, "X-Fastio-Signature": {"sha1=00,sha256=" + hex.EncodeToString(sum(unix+"."+minimal))}}},
		{"standard, a malformed one first", StandardWebhooks, http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {"v1,AAAA v1,!! v1 v1," + b64(sum("msg_1."+unix+"."+minimal))}}},
		{"many malformed ones", StandardWebhooks, http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {strings.Repeat("v1,AAAA ", 3*maxSignatures) + "v1," + b64(sum("msg_1."+unix+"."+minimal))}}},
		{"v1", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=" + b64(sum(unix+"."+minimal))}}},
		{"v1, other order, spaced, versions to come", FastioV1, http.Header{"Fastio-Signature": {"v2=zzz, v1=" + b64(sum(unix+"."+minimal)) + " , t=" + unix}}},
		{"v1, unpadded", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=" + strings.TrimRight(b64(sum(unix+"."+minimal)), "=")}}},
		{"v1, signed twice", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=" + wrong + ",v1=" + b64(sum(unix+"."+minimal))}}},
		{"x", FastioX, http.Header{"X-Fastio-Timestamp": {unix}, "X-Fastio-Signature": {"sha256=" + hex.EncodeToString(sum(unix+"."+minimal))}}},
		{"standard", StandardWebhooks, http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {"v1," + b64(sum("msg_1."+unix+"."+minimal))}}},
		{"standard, signed thrice", StandardWebhooks, http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {"v1a,zz v1," + wrong + "  v1," + b64(sum("msg_1."+unix+"."+minimal))}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			scheme := schemeOf(t, test.scheme)
			g, refused := verify(scheme, secretsOf(t, scheme, keyFor(test.scheme, anyKey)), test.header,
				[]byte(minimal), noon)
			if refused != nil || !g.covers("123") {
				t.Errorf("refused: %+v", refused)
			}
		})
	}
}

// The vector that the Standard Webhooks libraries test themselves with.
func TestStandardWebhooksVector(t *testing.T) {
	t.Parallel()
	scheme := schemeOf(t, StandardWebhooks)
	secrets := secretsOf(t, scheme, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	body := []byte(`{"test": 2432232314}`)
	header := http.Header{
		"Webhook-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Webhook-Timestamp": {"1614265330"},
		"Webhook-Signature": {"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	}
	if _, refused := verify(scheme, secrets, header, body, time.Unix(1614265330, 0)); refused != nil {
		t.Errorf("refused: %+v", refused)
	}
}

func TestRefusedSignatures(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("0", 64)
	unix := fmt.Sprint(noon.Unix())
	b64 := base64.StdEncoding.EncodeToString(make([]byte, 32))
	many := strings.Repeat("v1,"+b64+" ", maxSignatures+1)
	tests := []struct {
		name, scheme string
		header       http.Header
		code, field  string
	}{
		{"none", Fastio, http.Header{}, "signature_missing", "Fastio-Signature"},
		{"empty", Fastio, http.Header{"Fastio-Signature": {""}}, "signature_missing", "Fastio-Signature"},
		{"another scheme's", Fastio, http.Header{"X-Fastio-Signature": {"sha256=" + zeros}}, "signature_missing", "Fastio-Signature"},
		{"twice", Fastio, http.Header{"Fastio-Signature": {"sha256=" + zeros, "sha256=" + zeros}}, "signature_malformed", "Fastio-Signature"},
		{"joined by a proxy", Fastio, http.Header{"Fastio-Signature": {"sha256=" + zeros + ", sha256=" + zeros}}, "signature_mismatch", ""},
		{"malformed twice", Fastio, http.Header{"Fastio-Signature": {"sha256=" + zeros[2:] + ",sha1=" + zeros}}, "signature_malformed", "Fastio-Signature"},
		{"a malformed one and a wrong one", Fastio, http.Header{"Fastio-Signature": {"sha256=abc,sha256=" + zeros}}, "signature_mismatch", ""},
		{"too many", Fastio, http.Header{"Fastio-Signature": {strings.Repeat("sha256="+zeros+",", maxSignatures+1)}}, "signature_malformed", "Fastio-Signature"},
		{"v1, too many", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + strings.Repeat(",v1="+b64, maxSignatures+1)}}, "signature_malformed", "Fastio-Signature"},
		{"v1, only malformed ones", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=AAAA,v1="}}, "signature_malformed", "Fastio-Signature"},
		{"standard, only malformed ones", StandardWebhooks, http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {"v1,AAAA v1, v1"}}, "signature_malformed", "Webhook-Signature"},
		{"no algorithm", Fastio, http.Header{"Fastio-Signature": {zeros}}, "signature_malformed", "Fastio-Signature"},
		{"sha1", Fastio, http.Header{"Fastio-Signature": {"sha1=" + zeros}}, "signature_malformed", "Fastio-Signature"},
		{"short", Fastio, http.Header{"Fastio-Signature": {"sha256=" + zeros[2:]}}, "signature_malformed", "Fastio-Signature"},
		{"long", Fastio, http.Header{"Fastio-Signature": {"sha256=" + zeros + "00"}}, "signature_malformed", "Fastio-Signature"},
		{"no hex", Fastio, http.Header{"Fastio-Signature": {"sha256=" + zeros[1:] + "g"}}, "signature_malformed", "Fastio-Signature"},
		{"v1 header", Fastio, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=" + b64}}, "signature_malformed", "Fastio-Signature"},
		{"wrong", Fastio, http.Header{"Fastio-Signature": {"sha256=" + zeros}}, "signature_mismatch", ""},
		{"v1 without t", FastioV1, http.Header{"Fastio-Signature": {"v1=" + b64}}, "signature_malformed", "Fastio-Signature"},
		{"v1 without v1", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v2=" + b64}}, "signature_malformed", "Fastio-Signature"},
		{"v1, two times", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",t=" + unix + ",v1=" + b64}}, "signature_malformed", "Fastio-Signature"},
		{"v1, signed time", FastioV1, http.Header{"Fastio-Signature": {"t=+" + unix + ",v1=" + b64}}, "signature_malformed", "Fastio-Signature"},
		{"v1, zero-led time", FastioV1, http.Header{"Fastio-Signature": {"t=0" + unix + ",v1=" + b64}}, "signature_malformed", "Fastio-Signature"},
		{"v1, time over all bounds", FastioV1, http.Header{"Fastio-Signature": {"t=99999999999999999999,v1=" + b64}}, "signature_malformed", "Fastio-Signature"},
		{"v1, hex", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=" + zeros}}, "signature_malformed", "Fastio-Signature"},
		{"v1 wrong", FastioV1, http.Header{"Fastio-Signature": {"t=" + unix + ",v1=" + b64}}, "signature_mismatch", ""},
		{"x without time", FastioX, http.Header{"X-Fastio-Signature": {"sha256=" + zeros}}, "signature_missing", "X-Fastio-Timestamp"},
		{"x, two times", FastioX, http.Header{"X-Fastio-Timestamp": {unix, unix}, "X-Fastio-Signature": {"sha256=" + zeros}}, "signature_malformed", "X-Fastio-Timestamp"},
		{"x, a date", FastioX, http.Header{"X-Fastio-Timestamp": {"2026-09-25"}, "X-Fastio-Signature": {"sha256=" + zeros}}, "signature_malformed", "X-Fastio-Timestamp"},
		{"x without signature", FastioX, http.Header{"X-Fastio-Timestamp": {unix}}, "signature_missing", "X-Fastio-Signature"},
		{"standard without id", StandardWebhooks, http.Header{"Webhook-Timestamp": {unix}, "Webhook-Signature": {"v1," + b64}}, "signature_missing", "Webhook-Id"},
		{"standard without time", StandardWebhooks, http.Header{"Webhook-Id": {"m"}, "Webhook-Signature": {"v1," + b64}}, "signature_missing", "Webhook-Timestamp"},
		{"standard without signature", StandardWebhooks, http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {unix}}, "signature_missing", "Webhook-Signature"},
		{"standard, only others", StandardWebhooks, http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {"v1a," + b64}}, "signature_malformed", "Webhook-Signature"},
		{"standard, too many", StandardWebhooks, http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {many}}, "signature_malformed", "Webhook-Signature"},
		{"standard wrong", StandardWebhooks, http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {unix}, "Webhook-Signature": {"v1," + b64}}, "signature_mismatch", ""},
	}
	for _, test := range tests {
		t.Run(test.scheme+" "+test.name, func(t *testing.T) {
			t.Parallel()
			scheme := schemeOf(t, test.scheme)
			s, events := newTestServer(t, func(c *Config) {
				c.Scheme, c.Secrets = scheme, secretsOf(t, scheme, keyFor(test.scheme, anyKey))
			})
			r := post(t, minimal)
			r.Header = test.header
			w := serve(s, r)
			refused(t, w, http.StatusUnauthorized, test.code, test.field)
			if w.Header().Get("WWW-Authenticate") == "" {
				t.Error("a 401 without WWW-Authenticate")
			}
			if len(events.all()) != 0 {
				t.Error("a refused event reached the log")
			}
		})
	}
}

// Every part that is signed, and nothing else, must be as it was signed.
func TestTamperedParts(t *testing.T) {
	t.Parallel()
	for _, name := range everyScheme {
		scheme := schemeOf(t, name)
		secret := secretsOf(t, scheme, keyFor(name, anyKey))
		signed := Sign(scheme, secret[0], []byte(minimal), "msg_1", noon)
		if _, refused := verify(scheme, secret, signed, []byte(minimal), noon); refused != nil {
			t.Errorf("%s: as signed: %+v", name, refused)
		}
		if _, refused := verify(scheme, secret, signed, []byte(minimal+" "), noon); refused == nil ||
			refused.Code != "signature_mismatch" {
			t.Errorf("%s: another body: %+v", name, refused)
		}
		if _, refused := verify(scheme, secretsOf(t, scheme, keyFor(name, otherKey)), signed, []byte(minimal),
			noon); refused == nil || refused.Code != "signature_mismatch" {
			t.Errorf("%s: another secret: %+v", name, refused)
		}
		for _, header := range []string{"X-Fastio-Timestamp", "Webhook-Timestamp", "Webhook-Id"} {
			if signed.Get(header) == "" {
				continue
			}
			changed := signed.Clone()
			changed.Set(header, fmt.Sprint(noon.Unix()+1)) // within the window, but not what was signed
			if _, refused := verify(scheme, secret, changed, []byte(minimal), noon); refused == nil ||
				refused.Code != "signature_mismatch" {
				t.Errorf("%s: another %s: %+v", name, header, refused)
			}
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for _, name := range everyScheme {
		scheme := schemeOf(t, name)
		secrets := secretsOf(t, scheme, keyFor(name, anyKey))
		for _, age := range []time.Duration{
			-24 * time.Hour, -Window - time.Second, -Window, 0, Window,
			Window + time.Second, 24 * time.Hour,
		} {
			header := Sign(scheme, secrets[0], []byte(minimal), "m", noon.Add(-age))
			_, refused := verify(scheme, secrets, header, []byte(minimal), noon)
			want := name == Fastio || age.Abs() <= Window // fastio signs no time
			if (refused == nil) != want || refused != nil && refused.Code != "signature_expired" {
				t.Errorf("%s signed %v ago: %+v, want accepted %v", name, age, refused, want)
			}
		}
	}
}

func TestRotationAndBinding(t *testing.T) {
	t.Parallel()
	for _, name := range everyScheme {
		scheme := schemeOf(t, name)
		any, other, bound := keyFor(name, anyKey), keyFor(name, otherKey), keyFor(name, boundKey)
		secrets := secretsOf(t, scheme, any, other, "123="+bound)
		for _, test := range []struct {
			signer     string
			ws         string
			wantStatus int
		}{
			{any, "123", 200},
			{any, "456", 200},
			{other, "456", 200},
			{bound, "123", 200},
			{bound, "1234", 403},
			{bound, "12", 403},
			{keyFor(name, "some-secret-that-was-retired-long-ago"), "123", 401},
		} {
			s, events := newTestServer(t, func(c *Config) { c.Scheme, c.Secrets = scheme, secrets })
			body := fmt.Sprintf(`{"event":"e","workspace_id":%q,"event_id":"e1"}`, test.ws)
			r := post(t, body)
			r.Header = Sign(scheme, secretsOf(t, scheme, test.signer)[0], []byte(body), "m", noon)
			w := serve(s, r)
			switch test.wantStatus {
			case 200:
				took(t, w, "e1", "0:0")
			case 403:
				refused(t, w, 403, "workspace_not_allowed", "workspace_id")
			default:
				refused(t, w, 401, "signature_mismatch", "")
			}
			if got := len(events.all()) == 1; got != (test.wantStatus == 200) {
				t.Errorf("%s, %s: appended %v", name, test.ws, got)
			}
		}
	}
}

// One key may be bound to two workspaces, and to all besides.
func TestOneKeyBoundTwice(t *testing.T) {
	t.Parallel()
	secrets := secretsOf(t, Scheme{}, "1="+anyKey, "2="+anyKey)
	header := Sign(Scheme{}, secrets[0], []byte("x"), "", noon)
	g, refused := verify(Scheme{}, secrets, header, []byte("x"), noon)
	if refused != nil || !g.covers("1") || !g.covers("2") || g.covers("3") {
		t.Errorf("grant %+v, problem %+v", g, refused)
	}
	g, refused = verify(Scheme{}, append(slices.Clone(secrets), secretsOf(t, Scheme{}, anyKey)...), header,
		[]byte("x"), noon)
	if refused != nil || !g.covers("3") {
		t.Errorf("grant %+v, problem %+v", g, refused)
	}
}

func TestParseScheme(t *testing.T) {
	t.Parallel()
	for _, name := range everyScheme {
		if scheme, err := ParseScheme(name, ""); err != nil || scheme.Name() != name {
			t.Errorf("%s: %+v, %v", name, scheme, err)
		}
	}
	if (Scheme{}).Name() != Fastio {
		t.Error("the zero scheme is not fastio")
	}
	for _, bad := range [][2]string{
		{"", ""},
		{"FASTIO", ""},
		{"hmac", ""},
		{Fastio, "X-Time"},
		{FastioX, "no name"},
		{FastioX, "x:y"},
	} {
		if scheme, err := ParseScheme(bad[0], bad[1]); err == nil {
			t.Errorf("%q taken as %+v", bad, scheme)
		}
	}
	scheme, err := ParseScheme(FastioX, "x-sent-AT")
	if err != nil {
		t.Fatal(err)
	}
	secrets := secretsOf(t, scheme, anyKey)
	header := Sign(scheme, secrets[0], []byte(minimal), "", noon)
	if _, refused := verify(scheme, secrets, header, []byte(minimal), noon); refused != nil ||
		header.Get("X-Sent-At") == "" {
		t.Errorf("header %v: %+v", header, refused)
	}
}

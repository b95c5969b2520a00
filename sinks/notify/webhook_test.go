package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/rulefile"
	"tidemark/sinks"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func loopbackOut() *Outbound { return NewOutbound(prefixes("127.0.0.0/8 ::1/128"), nil) }

func webhookTo(t *testing.T, url string, secrets ...string) *webhookSender {
	t.Helper()
	w, err := newWebhook(&Webhook{url, secretFor(t, append(secrets, secret)...)}, loopbackOut())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// secretFor returns where secrets are.
func secretFor(t *testing.T, secrets ...string) rulefile.Secret {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	var rules struct {
		Secret rulefile.Secret `yaml:"secret"`
	}
	err := errors.Join(os.WriteFile(path, []byte(strings.Join(secrets, " ")+"\n"), 0o600),
		rulefile.Read("test", []byte("secret_file: "+path), &rules).Err())
	if err != nil {
		t.Fatal(err)
	}
	return rules.Secret
}

func message() *Message {
	n := &tidemarkv1.Notice{
		OpId: "1/e 1/f", Event: "workspace_storage_file_updated", At: 1_700_000_000_123_456, WorkspaceId: "1",
		EventId: "e 1", FileId: "f", Position: &tidemarkv1.Position{}, After: &tidemarkv1.FileState{Name: "<q3>.pdf"},
	}
	return &Message{
		ID: n.GetOpId(), Rule: "r", Notices: []*tidemarkv1.Notice{n}, Subject: "q3.pdf was updated",
		Text: "text", HTML: "<p>html</p>",
	}
}

// The vector is that of the reference library for Go of Standard Webhooks.
func TestSignatureVector(t *testing.T) {
	w := webhookTo(t, "https://example.com", "whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 24)))
	got := w.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	first, second, found := strings.Cut(got, " ")
	if second != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" || !found || !strings.HasPrefix(first, "v1,") {
		t.Error(got)
	}
}

func TestWebhookRequest(t *testing.T) {
	notice, err := codecs.Notice{}.Encode(message().Notices[0])
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		id, at := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
		ids = append(ids, id)
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + at + "." + string(body)))
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); r.Header.Get("webhook-signature") != want {
			t.Errorf("signature %s, want %s", r.Header.Get("webhook-signature"), want)
		}
		var payload struct {
			Type, Timestamp string
			Data            json.RawMessage
		}
		if err := json.Unmarshal(body, &payload); err != nil {
			t.Error(err)
		}
		if payload.Type != "workspace_storage_file_updated" || payload.Timestamp != "2023-11-14T22:13:20.123456Z" ||
			string(payload.Data) != string(notice) || !strings.Contains(string(notice), "<q3>.pdf") {
			t.Errorf("%+v", payload)
		}
	}))
	defer server.Close()
	w := webhookTo(t, server.URL)
	for range 2 {
		if err := w.Send(t.Context(), message()); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != 2 || ids[0] != ids[1] || strings.ContainsAny(ids[0], "./ %") || len(ids[0]) > 64 {
		t.Errorf("ids %q", ids)
	}
}

// A digest is one request with a list, also a digest of one notice.
func TestWebhookDigest(t *testing.T) {
	type payload struct {
		Type, Timestamp string
		Data            []struct {
			OpID string `json:"op_id"`
		}
	}
	var ids []string
	var got []payload
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var p payload
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Error(err)
		}
		got, ids = append(got, p), append(ids, r.Header.Get("webhook-id"))
	}))
	defer server.Close()
	first, second := message().Notices[0], message().Notices[0]
	second.OpId, second.At = "1/e2/f", second.GetAt()+1_000_000
	r := &Rule{Name: "r", Digest: time.Minute}
	for _, notices := range [][]*tidemarkv1.Notice{{first, second}, {first}} {
		if err := webhookTo(t, server.URL).Send(t.Context(), onlyMessage(t, r, "", notices...)); err != nil {
			t.Fatal(err)
		}
	}
	want := `[{digest 2023-11-14T22:13:21.123456Z [{1/e 1/f} {1/e2/f}]} {digest 2023-11-14T22:13:20.123456Z [{1/e 1/f}]}]`
	if diff := cmp.Diff(want, fmt.Sprint(got)); diff != "" || ids[0] == ids[1] {
		t.Errorf("ids %v (-want +got):\n%s", ids, diff)
	}
}

// A hostile receiver gets no more than a request, and no attempt lasts long.
func TestHostileReceiver(t *testing.T) {
	var metadata atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { metadata.Add(1) }))
	defer target.Close()
	date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	raw := func(text string, pause time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			for _, c := range []byte(text) {
				if _, err := conn.Write([]byte{c}); err != nil {
					break
				}
				time.Sleep(pause)
			}
			conn.Close()
		}
	}
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			fmt.Fprint(w, "no")
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    string // refused, content, gone, later, other, or accepted
		pause   time.Duration
	}{
		{"ok", status(204), "accepted", 0},
		{"huge body", func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 20 {
				if _, err := w.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}, "accepted", 0},
		{"cut body", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", 0), "accepted", 0},
		{"slow headers", raw("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 10_000), 50*time.Millisecond), "other", 0},
		{"huge headers", raw("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 100_000), 0), "other", 0},
		{"no answer", raw("", 0), "other", 0},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
		}, "other", 0},
		{"redirect to metadata", status(302, "Location", "http://169.254.169.254/latest/meta-data/"), "refused", 0},
		{"redirect", status(307, "Location", target.URL), "refused", 0},
		{"500", status(500), "refused", 0},
		{"500 seconds", status(500, "Retry-After", "60"), "refused", time.Minute},
		{"401", status(401), "refused", 0},
		{"422", status(422), "content", 0},
		{"410", status(410), "gone", 0},
		{"503", status(503), "other", 0},
		{"429 seconds", status(429, "Retry-After", "120"), "later", 120 * time.Second},
		{"503 date", status(503, "Retry-After", date), "later", 90 * time.Second},
		{"429 too long", status(429, "Retry-After", "9999999"), "later", 24 * time.Hour},
		{"429 not readable", status(429, "Retry-After", "-5"), "other", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := webhookTo(t, server.URL).Send(ctx, message())
			got, pause := "other", time.Duration(0)
			if later, ok := errors.AsType[*sinks.Later](err); ok {
				pause = later.Pause
			}
			refusal, isRefused := errors.AsType[*refused](err)
			switch {
			case err == nil:
				got = "accepted"
			case isRefused && refusal.content:
				got = "content"
			case isRefused:
				got = "refused"
			case pause > 0:
				got = "later"
			case errors.Is(err, errGone):
				got = "gone"
			}
			if got != test.want || (pause-test.pause).Abs() > 10*time.Second {
				t.Errorf("%s, pause %v: %v", got, pause, err)
			}
			if err != nil && strings.Contains(err.Error(), server.URL) {
				t.Errorf("the error has the URL: %v", err)
			}
		})
	}
	if metadata.Load() > 0 {
		t.Error("a redirect was followed")
	}
}

func TestWebhookSettings(t *testing.T) {
	none, internal := NewOutbound(nil, nil), loopbackOut()
	for _, test := range []struct {
		url     string
		out     *Outbound
		secrets []string
		want    string // of the error of New or Check; empty: none
	}{
		{"https://example.com/hook", none, []string{secret}, ""},
		{"http://example.com/hook", none, []string{secret}, "must begin with https://"},
		{"ftp://example.com/hook", internal, []string{secret}, "want a URL"},
		{"https://u:p@example.com/", none, []string{secret}, "without a password"},
		{"https:///hook", none, []string{secret}, "want a URL"},
		{"https://127.0.0.1/", none, []string{secret}, "127.0.0.1:443: the address is not public"},
		{"https://localhost:8443/", none, []string{secret}, "is not public"},
		{"https://[fe80::1%25lo]/", none, []string{secret}, "is not public"},
		{"https://[::ffff:169.254.169.254]/", none, []string{secret}, "is not public"},
		{"https://example.com/", none, nil, "is empty"},
		{"https://example.com/", none, []string{"whsec_c2hvcnQ="}, "want whsec_"},
		{"https://example.com/", none, []string{secret, "not base64!"}, "want whsec_"},
	} {
		w, err := newWebhook(&Webhook{test.url, secretFor(t, test.secrets...)}, test.out)
		if err == nil && test.want != "" {
			err = w.Check(t.Context())
		}
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.url, err, test.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	o := NewOutbound([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")}, nil)
	got := map[string]bool{}
	want := map[string]bool{}
	for verdict, addresses := range map[bool]string{
		true: `1.1.1.1:443 8.8.8.8:8443 [2606:4700::1111]:443 10.1.2.3:80 10.1.2.3:22 [fd00::1]:80 [::ffff:1.1.1.1]:443
			[64:ff9b::808:808]:443 [::ffff:10.1.2.3]:9`,
		false: `127.0.0.1:443 127.9.9.9:443 10.2.0.1:443 172.16.0.1:443 172.31.255.255:443 192.168.1.1:443
			169.254.169.254:80 169.254.169.254:443 100.64.0.1:443 100.127.255.255:443 198.18.0.1:443 198.19.255.255:443
			0.0.0.0:443 0.1.2.3:443
			224.0.0.1:443 239.255.255.255:443 255.255.255.255:443 240.0.0.1:443 192.0.0.8:443
			192.0.2.1:443 203.0.113.9:443
			[::1]:443 [::]:443 [fe80::1]:443 [fe80::1%eth0]:443 [fec0::1]:443 [fc00::1]:443 [ff02::1]:443 [::ffff:127.0.0.1]:443
			[::ffff:169.254.169.254]:443 [::127.0.0.1]:443 [64:ff9b::a9fe:a9fe]:443 [64:ff9b::7f00:1]:443 [64:ff9b:1::a00:1]:443
			[2002:7f00:1::]:443 [2002:a9fe:a9fe::]:443 [2001:0:1::1]:443 [2001:2::1]:443 [2001:db8::1]:443 [100::1]:443
			1.1.1.1:22 1.1.1.1:25 1.1.1.1:80 1.1.1.1:1023`,
	} {
		for address := range strings.FieldsSeq(addresses) {
			want[address], got[address] = verdict, o.control("tcp", address, nil) == nil
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Other spellings of loopback do not reach it, whatever the resolver makes of them.
func TestSpellingsOfLoopback(t *testing.T) {
	var reached atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for host := range strings.FieldsSeq(`localhost localhost. 2130706433 0177.0.0.1 0x7f.0.0.1 0x7f000001 127.1 0
		[::ffff:7f00:1] [::1%25lo]`) {
		w, err := newWebhook(&Webhook{"https://" + host + ":" + port, secretFor(t, secret)}, NewOutbound(nil, roots))
		if err == nil {
			err = w.Send(t.Context(), message())
		}
		if err == nil || reached.Load() > 0 {
			t.Errorf("%s: reached %d times, error %v", host, reached.Load(), err)
		}
	}
}

// A name that first resolves to an allowed address and then to a private one does not reach the private one.
func TestRebinding(t *testing.T) {
	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	o := NewOutbound(prefixes("127.0.0.1/32"), nil)
	addresses := make(chan byte, 16) // the last byte of 127.0.0.x that the DNS server answers
	o.dialer.Resolver = resolver(t, addresses)
	o.client.Transport.(*http.Transport).DisableKeepAlives = true
	w, err := newWebhook(&Webhook{"http://rebind.example:" + port, secretFor(t, secret)}, o)
	if err != nil {
		t.Fatal(err)
	}
	addresses <- 1
	if err := w.Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	o.allow = prefixes("127.0.0.2/32") // now 127.0.0.1, where the server is, is not allowed
	addresses <- 1
	err = w.Send(t.Context(), message())
	if !errors.Is(err, errForbidden) || reached.Load() != 1 {
		t.Errorf("reached %d times: %v", reached.Load(), err)
	}
}

// resolver asks a DNS server whose answers are 127.0.0.x.
func resolver(t *testing.T, addresses <-chan byte) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		last := byte(0)
		for buffer := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			end := 12 // of the question
			for buffer[end] != 0 {
				end += int(buffer[end]) + 1
			}
			question := buffer[12 : end+5]
			answer := append([]byte{buffer[0], buffer[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			if question[len(question)-3] == 1 && n > 0 { // type A
				select {
				case last = <-addresses:
				default:
				}
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, last)
			}
			server.WriteTo(answer, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

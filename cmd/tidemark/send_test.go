package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A sink is an ingress that takes everything and remembers it.
type sink struct {
	header http.Header
	body   []byte
}

func newSink(t *testing.T) (*sink, string) {
	t.Helper()
	s := &sink{}
	url, _ := api(t, func(w http.ResponseWriter, r *http.Request) {
		var err error
		if s.body, err = io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		s.header = r.Header
		io.WriteString(w, `{"event_id":"e1","position":"7:1234"}`)
	})
	return s, url
}

// What the vendor's documentation and `openssl dgst -sha256 -hmac` give for this secret and body.
const (
	testSecret = "0123456789abcdef0123456789abcdef"
	testBody   = `{"event":"workspace_storage_file_added","workspace_id":"123","event_id":"evt1"}`
	testHex    = "sha256=a25bdb3db4ebd946bc51042162a2cde7ee99aa02da0bc091a4b2ac6b5817f97e"
)

func TestSendSignsWhatItPosts(t *testing.T) {
	t.Setenv(secretsVariable, testSecret)
	got, url := newSink(t)
	out := succeed(t, "send", "--url", url, "--body", testBody)
	if string(got.body) != testBody || got.header.Get("Fastio-Signature") != testHex {
		t.Errorf("posted %s with %q, want the body as given and %q", got.body, got.header.Get("Fastio-Signature"),
			testHex)
	}
	if want := "event_id  e1\nposition  7:1234\n"; out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
}

func TestSendKnowsTheOtherSchemes(t *testing.T) {
	got, url := newSink(t)
	for scheme, headers := range map[string][]string{
		"fastio-v1":         {"Fastio-Signature"},
		"fastio-x":          {"X-Fastio-Signature", "X-Fastio-Timestamp"},
		"standard-webhooks": {"Webhook-Signature", "Webhook-Timestamp", "Webhook-Id"},
	} {
		secrets := writeFile(t, "secrets", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
		succeed(t, "send", "--url", url, "--body", "@"+writeFile(t, "body.json", testBody), "--scheme", scheme,
			"--webhook-secrets-file", secrets)
		for _, name := range headers {
			if got.header.Get(name) == "" {
				t.Errorf("%s: no header %s", scheme, name)
			}
		}
		if string(got.body) != testBody {
			t.Errorf("%s: posted %s", scheme, got.body)
		}
	}
}

func TestSendBuildsTheEvent(t *testing.T) {
	t.Setenv(secretsVariable, testSecret)
	got, url := newSink(t)
	succeed(t, "send", "--url", url, "--workspace", "w", "--file", "f", "--event", "workspace_storage_file_updated",
		"--event-id", "e9",
		"--name", "q3.pdf", "--path", "/r/q3.pdf", "--size", "0", "--mime", "application/pdf",
		"--at", "2026-01-31T10:30:00+01:00")
	const want = `{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"e9","object_id":"f","name":"q3.pdf",` +
		`"path":"/r/q3.pdf","size":0,"mime":"application/pdf","created":"2026-01-31T09:30:00Z"}`
	if diff := cmp.Diff(want, string(got.body)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var first, second struct {
		ID   string `json:"event_id"`
		Size *int   `json:"size"`
	}
	for _, e := range []any{&first, &second} {
		succeed(t, "send", "--url", url)
		if err := json.Unmarshal(got.body, e); err != nil {
			t.Fatal(err)
		}
	}
	if first.ID == "" || first.ID == second.ID || first.Size != nil {
		t.Errorf("ids %q and %q, size %v: want two ids and no size", first.ID, second.ID, first.Size)
	}
}

func TestSendFailsOnAnyAnswerBut200(t *testing.T) {
	t.Setenv(secretsVariable, testSecret)
	url, _ := api(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "later")
	})
	if out, errs, code := tidemark(t, "send", "--url", url); code != exitFailed || out != "" ||
		errs != "tidemark: 202 Accepted: later\n" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

func TestSendChoosesTheSecretOfTheWorkspace(t *testing.T) {
	got, url := newSink(t)
	file := writeFile(t, "secrets",
		"\nfirst-secret-of-everybody-0000\nw=secret-of-the-workspace-w-000\nother=secret-of-another-0000000000\n")
	sign := func(args ...string) string {
		succeed(t, append([]string{"send", "--url", url, "--body", testBody, "--webhook-secrets-file", file},
			args...)...)
		return got.header.Get("Fastio-Signature")
	}
	everybody := sign()
	bound := sign("--body", strings.Replace(testBody, "123", "w", 1))
	t.Setenv(secretsVariable, "secret-of-the-workspace-w-000")
	file = ""
	if want := sign("--body", strings.Replace(testBody, "123", "w", 1)); bound != want {
		t.Errorf("workspace w is signed with %s, want its own secret's %s", bound, want)
	}
	t.Setenv(secretsVariable, "first-secret-of-everybody-0000")
	if want := sign(); everybody != want {
		t.Errorf("workspace 123 is signed with %s, want the unbound secret's %s", everybody, want)
	}
}

func TestSendUsesTheSecretThatDevMade(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	dev := devCommand{Data: data}
	dev.WebhookScheme = "fastio"
	made, err := dev.signer()
	if err != nil {
		t.Fatal(err)
	}
	again, err := dev.signer()
	if err != nil || again.generated != made.generated || len(made.generated) < 24 {
		t.Errorf("secret %q, then %q, %v: want one secret, kept", made.generated, again.generated, err)
	}
	if info, err := os.Stat(made.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s: %v, %v; want 0600", made.path, info.Mode(), err)
	}
	got, url := newSink(t)
	succeed(t, "send", "--url", url, "--data", data, "--body", testBody)
	byDev := got.header.Get("Fastio-Signature")
	t.Setenv(secretsVariable, made.generated)
	succeed(t, "send", "--url", url, "--body", testBody)
	if byDev != got.header.Get("Fastio-Signature") {
		t.Errorf("signed with %s, want dev's secret", byDev)
	}
}

func TestSendWaitsUntilTheAPIHoldsTheEvent(t *testing.T) {
	t.Setenv(secretsVariable, testSecret)
	_, url := newSink(t)
	behind := false
	query, asked := api(t, func(w http.ResponseWriter, _ *http.Request) {
		if behind {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, `{}`)
	})
	if _, errs, code := tidemark(t, "send", "--url", url, "--api-url", query); code != exitOK || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	if want := []string{"/v1/status?at_least=7%3A1234&wait=5000ms"}; !cmp.Equal(want, *asked) {
		t.Errorf("asked %q, want %q", *asked, want)
	}
	behind = true
	if out, errs, code := tidemark(t, "send", "--url", url, "--api-url", query); code != exitOK || out == "" ||
		!strings.Contains(errs, "does not include it yet: 503") {
		t.Errorf("an API that is behind: exit %d, %q, %q", code, out, errs)
	}
	if _, errs, code := tidemark(t, "send", "--url", url, "--api-url", "http://127.0.0.1:1"); code != exitOK ||
		errs != "" {
		t.Errorf("without an API: exit %d, %s", code, errs)
	}
	succeed(t, "send", "--url", url, "--api-url", query, "--wait", "0")
	if len(*asked) != 2 {
		t.Errorf("--wait 0 asks the API all the same: %q", *asked)
	}
}

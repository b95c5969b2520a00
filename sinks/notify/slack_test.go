package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tidemark/sinks"
)

// What Slack answers, and what becomes of the message.
func TestSlackAnswers(t *testing.T) {
	for _, test := range []struct {
		token  bool
		status int
		body   string
		want   string
	}{
		{true, 200, `{"ok":true,"ts":"1.2"}`, "sent"},
		{true, 200, `{"ok":false,"error":"ratelimited"}`, "later 1s"},
		{true, 429, `{"ok":false,"error":"ratelimited"}`, "later 30s"},
		{true, 200, `{"ok":false,"error":"msg_too_long"}`, "rejected"},
		{true, 200, `{"ok":false,"error":"invalid_auth"}`, "refused"},
		{true, 200, `{"ok":false,"error":"channel_not_found"}`, "refused"},
		{true, 200, `{"ok":false,"error":"internal_error"}`, "refused"},
		{true, 200, `{"ok":false,"error":"something_new"}`, "refused"},
		{true, 200, `<html>`, "again"},
		{true, 503, ``, "later 0s"},
		{false, 200, `ok`, "sent"},
		{false, 400, "invalid_payload\n", "rejected"},
		{false, 403, `action_prohibited`, "refused"},
		{false, 404, `no_service`, "refused"},
		{false, 410, `channel_is_archived`, "refused"},
		{false, 429, `rate_limited`, "later 30s"},
		{false, 500, `rollup_error`, "later 0s"},
		{false, 302, ``, "again"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if test.status == 429 {
				w.Header().Set("Retry-After", "30")
			}
			if test.token != (r.Header.Get("Authorization") == "Bearer xoxb-secret") {
				t.Errorf("token %q", r.Header.Get("Authorization"))
			}
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.body)
		}))
		err := slackTo(t, server.URL, test.token).Send(t.Context(), message())
		server.Close()
		_, isRejected := errors.AsType[*sinks.Rejected](err)
		_, isRefused := errors.AsType[*refused](err)
		later, isLater := errors.AsType[*sinks.Later](err)
		got := "again"
		switch {
		case err == nil:
			got = "sent"
		case isRejected:
			got = "rejected"
		case isLater:
			got = "later " + later.Pause.Round(time.Second).String()
		case isRefused && strings.Contains(err.Error(), "correct the token"):
			got = "refused"
		}
		if got != test.want {
			t.Errorf("%d %s: %s: %v", test.status, test.body, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "xoxb") || strings.Contains(err.Error(), "/services/")) {
			t.Errorf("the error has a secret: %v", err)
		}
	}
}

func slackTo(t *testing.T, server string, token bool) *slackSender {
	t.Helper()
	c := &Slack{WebhookURL: secretFor(t, server+"/services/T/B/secret")}
	if token {
		c = &Slack{Token: secretFor(t, "xoxb-secret"), Channel: "C1"}
	}
	s, err := newSlack(c, loopbackOut())
	if err != nil {
		t.Fatal(err)
	}
	if token {
		if s.to.String() != "https://slack.com/api/chat.postMessage" {
			t.Errorf("messages go to %s", s.to)
		}
		s.to, err = url.Parse(server + "/api/chat.postMessage")
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestSlackRequestAndCheck(t *testing.T) {
	var paths []string
	var last map[string]any
	known := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		body, _ := io.ReadAll(r.Body)
		last = nil
		if err := json.Unmarshal(body, &last); err != nil {
			t.Error(err)
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/") && known:
			fmt.Fprint(w, `{"ok":true}`)
		case strings.HasPrefix(r.URL.Path, "/api/"):
			fmt.Fprint(w, `{"ok":false,"error":"invalid_auth"}`)
		case known:
			w.WriteHeader(400)
			fmt.Fprint(w, "no_text")
		default:
			w.WriteHeader(404)
			fmt.Fprint(w, "no_service")
		}
	}))
	defer server.Close()
	m := message()
	m.Text = "<!channel> a & b_c"
	if err := slackTo(t, server.URL, true).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"channel": "C1", "text": "&lt;!channel&gt; a &amp; b_c", "mrkdwn": false, "unfurl_links": false, "unfurl_media": false,
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, token := range []bool{true, false} {
		known = true
		if err := slackTo(t, server.URL, token).Check(t.Context()); err != nil {
			t.Error(err)
		}
		known = false
		if err := slackTo(t, server.URL, token).Check(t.Context()); err == nil ||
			!strings.Contains(err.Error(), "correct the token") {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{
		"/api/chat.postMessage", "/api/auth.test", "/api/auth.test", "/services/T/B/secret", "/services/T/B/secret",
	}, paths); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A long text is cut by characters, not within an entity.
func TestSlackText(t *testing.T) {
	for _, unit := range []string{"x", "é", "&", "👍", "a<"} {
		short := slackText(strings.Repeat(unit, 5))
		if strings.Contains(short, "(cut)") {
			t.Errorf("%q is cut", short)
		}
		long := slackText(strings.Repeat(unit, 50_000))
		text, found := strings.CutSuffix(long, "\n… (cut)")
		n := utf8.RuneCountInString(long)
		if !found || n > 40_000 || n < 39_990 || strings.Count(text, "&") != strings.Count(text, ";") {
			t.Errorf("%q: %d characters, ends with %q", unit, n, long[len(long)-20:])
		}
	}
	if slackText(strings.Repeat("x", 40_000)) != strings.Repeat("x", 40_000) {
		t.Error("a text of 40,000 characters is cut")
	}
}

func TestSlackSettings(t *testing.T) {
	for _, url := range []string{"http://hooks.slack.com/x", "hooks.slack.com/x", "https://u:p@hooks.slack.com/x"} {
		if _, err := newSlack(&Slack{WebhookURL: secretFor(t, url)}, NewOutbound(nil, nil)); err == nil {
			t.Errorf("%s is accepted", url)
		}
	}
}

package views

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"

	"tidemark/auth"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// oddIDs are ids that path handling may confuse with others.
var oddIDs = []string{
	"theirs", "..", ".", "/", "../theirs", "%", "%2f", "%2F", "%2e%2e", "ü", "日本", "a b", "+", "?", "#", ";", "&x=1", "*",
	"mine/theirs", "mine/../theirs", "mine ", "MINE", "mine\x00", "\x00", "a:b", "~", "\"", "\\",
}

const workspaceOfToken = "mine"

// adminOfAll is the name of a token that sees the dead letters, which are those of every workspace, and nothing else.
const adminOfAll = "all-admin"

// The tenants of the matrix. full has workspaces of others too, reduced only the token's own.
type tenants struct {
	stopAtFirst   bool // leaks returns at the first one
	full, reduced *httptest.Server
	tokens        map[string]string
	metrics       []*prometheus.Registry
	cursor, feed  string // of a listing and of the changes of a workspace of others
}

func newTenants(t *testing.T, verifier auth.Verifier, tokens map[string]string) *tenants {
	t.Helper()
	x := &tenants{tokens: tokens}
	serve := func(workspaces ...string) *httptest.Server {
		f := newFixture(t, func(c *Config) {
			metrics := prometheus.NewRegistry()
			x.metrics = append(x.metrics, metrics)
			c.Metrics = metrics
			guard := auth.NewGuard(verifier, slog.New(slog.DiscardHandler), metrics)
			c.Authorize, c.Workspaces, c.Session = guard.Authorize, guard.Workspaces, guard.SessionHandler()
			c.AuthorizeAdmin, c.DeadLetters = guard.AuthorizeAdmin, everyonesDeadLetters(workspaces)
		})
		f.beginHistory()
		for _, w := range workspaces {
			f.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: w, Files: 1})
			for _, id := range append(oddIDs, "a") {
				f.put(fileRow(w, id, "/"+id, isActive, 1))
			}
		}
		server := httptest.NewServer(f.Handler())
		t.Cleanup(server.Close)
		return server
	}
	x.full, x.reduced = serve(append(oddIDs, workspaceOfToken)...), serve(workspaceOfToken)
	for path, cursor := range map[string]*string{"files": &x.cursor, "changes": &x.feed} {
		target := "/v1/workspaces/theirs/" + path + "?limit=1"
		_, _, page := send(t, x.full, http.MethodGet, target, "Authorization: Bearer "+tokens["all"])
		var p struct {
			Next   string `json:"next_cursor"`
			Cursor string
		}
		if err := json.Unmarshal([]byte(page), &p); err != nil || p.Next+p.Cursor == "" {
			t.Fatalf("no cursor of another workspace: %s", page)
		}
		*cursor = cmp.Or(p.Next, p.Cursor)
	}
	return x
}

// forms returns the headers with which a request is sent: the changes also as events, and a diff with a body.
func (x *tenants) forms(method, target string) [][]string {
	const body = `{"files":[{"id":"a","version":0}]}`
	switch {
	case method == http.MethodGet && strings.Contains(target, "/changes"):
		events := "Accept: text/event-stream"
		return [][]string{nil, {events}, {events, "Last-Event-ID: " + x.feed}, {events, "Last-Event-ID: x"}}
	case method == http.MethodPost:
		length := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
		return [][]string{nil, {"Content-Type: application/json", length}}
	}
	return [][]string{nil}
}

// everyonesDeadLetters has a file of each workspace.
func everyonesDeadLetters(workspaces []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"file_id":"a","of":%q}`, workspaces)
	})
}

// age is in the status of the installation, and the hour in a usage.
var age = regexp.MustCompile(`"lag_seconds":[0-9.]+|"from":"[^"]+"`)

// send writes a request as it is: no client may clean the path.
func send(t *testing.T, server *httptest.Server, method, target string, header ...string) (status int, h http.Header,
	body string,
) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", method, target)
	for _, line := range header {
		fmt.Fprint(conn, line+"\r\n")
	}
	fmt.Fprint(conn, "\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer response.Body.Close()
	h = response.Header
	h.Del("Date")
	h.Del(headerLag)
	if strings.HasPrefix(target, "/v1/status") { // has ages, whose lengths differ
		h.Del("Content-Length")
	}
	if h.Get("Content-Type") == "text/event-stream" {
		_ = conn.Close() // Close of the body would read a stream to its end
		return response.StatusCode, h, "a stream"
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, h, age.ReplaceAllString(string(data), "")
}

// targets returns the requests of the matrix: every route and method, with every id in every form.
func (x *tenants) targets(f *fixture) (all [][2]string) {
	add := func(method, target string) { all = append(all, [2]string{method, target}) }
	escape := func(id string) string {
		var b strings.Builder
		for _, c := range []byte(id) {
			fmt.Fprintf(&b, "%%%02x", c)
		}
		return b.String()
	}
	raw := []string{
		"theirs", "..", ".", "", "%2f", "%2F", "%252f", "%2e%2e", "%2e%2e%2ftheirs", "mine/../theirs", "mine%2f..%2ftheirs",
		"mine//theirs", "%6dine/../theirs", "mine%00", "mine;theirs", "mine%20", "*", "%2a", "mine,theirs", "%ff",
	}
	for _, id := range oddIDs {
		raw = append(raw, escape(id))
	}
	for _, r := range f.routeList() {
		for _, method := range append(slices.Clone(r.methods), http.MethodPut, http.MethodOptions) {
			for _, workspace := range raw {
				for _, file := range []string{"a", "..", "%2f", "%2e%2e%2ftheirs", ""} {
					target := strings.NewReplacer("{workspace}", workspace, "{file}", file, "{position}", "0:0",
						"{entry}", workspace, "{job}", workspace).Replace(r.template)
					add(method, target)
					if !strings.Contains(r.template, "{file}") {
						break
					}
				}
			}
			for _, query := range []string{
				"cursor=" + x.cursor, "cursor=" + x.feed, "at_least=0:99&wait=0", "at_least=9:9", "x=1", "limit=0", "%zz",
			} {
				add(method, targetOf(r, "theirs")+"?"+query)
			}
		}
	}
	add("GET", "/v1/workspaces/mine/files?cursor="+x.cursor)
	add("GET", "/v1/workspaces/mine/changes?cursor="+x.feed)
	slices.SortFunc(all, func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) })
	return slices.Compact(all)
}

// leaks sends all requests with the tokens of these names. A request that a token must not see the answer of is a leak
// where the full server answers otherwise than one that has no workspace but the token's own.
func (x *tenants) leaks(t *testing.T, f *fixture, names ...string) (found []string, sent int) {
	t.Helper()
	for _, name := range names {
		var header []string
		if token := x.tokens[name]; token != "" {
			header = []string{"Authorization: Bearer " + token}
		}
		for _, r := range x.targets(f) {
			if x.stopAtFirst && len(found) > 0 {
				return found, sent
			}
			for _, form := range x.forms(r[0], r[1]) {
				sent++
				if complaint := x.compare(t, name, r, append(slices.Clone(header), form...)); complaint != "" {
					found = append(found, fmt.Sprintf("%s %s with %s, %q: %s", r[0], r[1], name, form, complaint))
				}
			}
		}
	}
	return found, sent
}

// compare sends a request with the token of that name to both servers, and returns what is wrong with the answer.
func (x *tenants) compare(t *testing.T, name string, request [2]string, header []string) string {
	t.Helper()
	method, target := request[0], request[1]
	status, h, body := send(t, x.full, method, target, header...)
	wantStatus, wantH, wantBody := send(t, x.reduced, method, target, header...)
	everyones := name == adminOfAll && strings.HasPrefix(target, "/v1/dlq") && status == http.StatusOK
	if !everyones && (status != wantStatus || body != wantBody || !maps.EqualFunc(h, wantH, slices.Equal)) {
		return fmt.Sprintf("%d %s, and %d %s where nothing is", status, body, wantStatus, wantBody)
	}
	if complaint := judge(name, method, target, status, body); complaint != "" {
		return fmt.Sprintf("%d %s: %s", status, body, complaint)
	}
	return ""
}

// checkMetrics fails if a label has a part of what was requested: metrics are open to everyone.
func (x *tenants) checkMetrics(t *testing.T) {
	t.Helper()
	for _, registry := range x.metrics {
		families, err := registry.Gather()
		if err != nil || len(families) == 0 {
			t.Fatalf("%d metrics, %v", len(families), err)
		}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				for _, label := range metric.GetLabel() {
					if strings.Contains(label.GetValue(), "theirs") || strings.Contains(label.GetValue(), "mine") {
						t.Errorf("%s has the label %s=%q", family.GetName(), label.GetName(), label.GetValue())
					}
				}
			}
		}
	}
}

// judge returns what is wrong with an answer to the token of that name.
func judge(name, method, target string, status int, body string) string {
	own := strings.HasPrefix(name, "mine") && strings.HasPrefix(target, "/v1/workspaces/mine")
	open := method == "OPTIONS" && status == http.StatusNoContent || strings.HasPrefix(target, "/openapi.json") ||
		method == "DELETE" && strings.HasPrefix(target, "/v1/session")
	switch {
	case open:
	case strings.HasPrefix(name, "no ") && status != http.StatusUnauthorized:
		return "want 401"
	case name == adminOfAll && strings.HasPrefix(target, "/v1/dlq"):
		if status == http.StatusUnauthorized {
			return "want an answer"
		}
	case strings.HasPrefix(target, "/v1/dlq") && !slices.Contains([]int{401, 403, 404, 405}, status):
		return "want 403"
	case strings.HasSuffix(name, "admin") && status != http.StatusForbidden:
		return "want 403"
	case strings.HasPrefix(target, "/v1/workspaces/") && !own &&
		!slices.Contains([]int{401, 403, 404, 405}, status):
		return "want the answer of a workspace that does not exist"
	case strings.Contains(body, `"file_id":"`) && !own:
		return "it has a file"
	}
	return ""
}

func tokensVerifier(t *testing.T) (auth.Verifier, map[string]string) {
	t.Helper()
	var list strings.Builder
	tokens := map[string]string{"no token": "", "no valid token": "x" + strings.Repeat("y", 40)}
	for name, scope := range map[string]string{
		"mine":       `{workspaces: [mine], rights: [read]`,
		"mine-both":  `{workspaces: [mine], rights: [read, admin]`,
		"mine-admin": `{workspaces: [mine], rights: [admin]`,
		"other":      `{workspaces: ["nobody's"], rights: [read]`,
		"escaped":    `{workspaces: ["mine%2f..%2ftheirs", "nobody"], rights: [read]`,
		adminOfAll:   `{workspaces: ["*"], rights: [admin]`,
		"all":        `{workspaces: ["*"], rights: [read, admin]`,
	} {
		tokens[name] = auth.NewToken()
		fmt.Fprintf(&list, "- %s, name: %s, sha256: %x}\n", scope, name, sha256.Sum256([]byte(tokens[name])))
	}
	path := filepath.Join(t.TempDir(), "tokens.yml")
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return verifier, tokens
}

func jwtVerifier(t *testing.T) (auth.Verifier, map[string]string) {
	t.Helper()
	secret := []byte(strings.Repeat("s", 32))
	verifier, err := auth.NewJWT(t.Context(), auth.JWTConfig{Issuer: "i", Audience: "a", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(workspace, audience string, after time.Duration) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Signed(signer).Claims(map[string]any{
			"iss": "i", "aud": audience, "sub": "s", "exp": time.Now().Add(after).Unix(),
			"tidemark": map[string]any{"workspaces": []string{workspace}, "rights": []string{"read"}},
		}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	return verifier, map[string]string{
		"mine": sign("mine", "a", time.Hour), "other": sign("nobody", "a", time.Hour), "all": sign("*", "a", time.Hour),
		"no token that is valid still": sign("*", "a", -time.Hour), "no token for us": sign("*", "b", time.Hour),
	}
}

// Row 23 of the faults: every token, every endpoint and method, odd ids.
func TestNoTenantSeesAnother(t *testing.T) {
	for name, verifier := range map[string]func(*testing.T) (auth.Verifier, map[string]string){
		"tokens": tokensVerifier, "jwt": jwtVerifier,
	} {
		t.Run(name, func(t *testing.T) {
			v, tokens := verifier(t)
			x := newTenants(t, v, tokens)
			limited := slices.Sorted(maps.Keys(tokens))
			limited = slices.DeleteFunc(limited, func(name string) bool { return name == "all" })
			found, sent := x.leaks(t, newFixture(t), limited...)
			for _, leak := range found[:min(len(found), 20)] {
				t.Error(leak)
			}
			t.Logf("%d tokens, %d requests, %d leaks", len(limited), sent, len(found))
			x.checkMetrics(t)
			for id, token := range map[string]string{"mine": "mine", "theirs": "all", "%2e%2e": "all", "%2f": "all"} {
				status, _, body := send(t, x.full, "GET", "/v1/workspaces/"+id+"/files",
					"Authorization: Bearer "+tokens[token])
				if status != 200 || !strings.Contains(body, `"file_id":"`) {
					t.Errorf("%s with the token %s: %d %s", id, token, status, body)
				}
			}
		})
	}
}

// The matrix finds a route whose guard is missing, whatever it answers.
func TestTheMatrixFindsAMissingGuard(t *testing.T) {
	v, tokens := tokensVerifier(t)
	f := newFixture(t)
	for _, rule := range slices.Sorted(maps.Keys(accessRules)) {
		was := accessRules[rule]
		if was != ofWorkspace && was != forAdmin || !slices.ContainsFunc(f.routeList(), func(r route) bool {
			return strings.HasSuffix(rule, " "+r.template)
		}) {
			continue
		}
		t.Run(rule, func(t *testing.T) { // closes its servers
			accessRules[rule] = everyone
			defer func() { accessRules[rule] = was }()
			x := newTenants(t, v, tokens)
			x.stopAtFirst = true
			if found, _ := x.leaks(t, f, "other"); len(found) == 0 {
				t.Error("no leak was found")
			}
		})
	}
}

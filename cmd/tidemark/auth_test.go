package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidemark/auth"
)

// tokensFile returns a file of tokens, by the rest of their entries.
func tokensFile(t *testing.T, entries map[string]string) string {
	t.Helper()
	var list strings.Builder
	for token, rest := range entries {
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(token)))
		fmt.Fprintf(&list, "- {name: n%s, sha256: %s, %s}\n", sum[:8], sum, rest)
	}
	return writeFile(t, "tokens.yml", list.String())
}

// ask sends a request and returns its status and body.
func ask(t *testing.T, method, url, token string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// The query API is not open to other hosts unless somebody said so.
func TestStartIsRefusedWithoutAuth(t *testing.T) {
	data := t.TempDir()
	for _, args := range [][]string{
		{"serve"},
		{"serve", "--api-addr", "0.0.0.0:8080"},
		{"serve", "--api-addr", "example.com:8080"},
		{"serve", "--api-addr", "[::]:8080"},
		{"dev", "--api-addr", ":8080", "--data", data},
		{"dev", "--api-addr", "192.0.2.1:8080", "--data", data},
	} {
		_, errs, code := tidemark(t, args...)
		if code != exitUsage || !strings.Contains(errs, "--auth tokens with --tokens-file") {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
		t.Errorf("a refused start has created %v, %v", left, err)
	}
}

func TestAuthFlagsFitTogether(t *testing.T) {
	tokens := tokensFile(t, map[string]string{auth.NewToken(): `workspaces: ["*"], rights: [read]`})
	secret := writeFile(t, "secret", strings.Repeat("s", 32))
	for want, args := range map[string][]string{
		"--auth tokens needs --tokens-file":       {"--auth", "tokens"},
		"--tokens-file needs --auth tokens":       {"--tokens-file", tokens},
		"--jwks and --jwt-… need --auth jwt":      {"--auth", "tokens", "--tokens-file", tokens, "--jwks", "x"},
		"needs --jwt-issuer and --jwt-audience":   {"--auth", "jwt", "--jwt-secret-file", secret, "--jwt-issuer", "i"},
		"needs --jwks, --jwt-secret-file or":      {"--auth", "jwt", "--jwt-issuer", "i", "--jwt-audience", "a"},
		"shorter than 32 bytes":                   {"--auth", "jwt", "--jwt-issuer", "i", "--jwt-audience", "a", "--jwt-secret-file", writeFile(t, "short", "x")},
		"https":                                   {"--auth", "jwt", "--jwt-issuer", "i", "--jwt-audience", "a", "--jwks", "http://id.example"},
		"tokens.yml:1: want a list":               {"--auth", "tokens", "--tokens-file", writeFile(t, "tokens.yml", "{}")},
		"no such file":                            {"--auth", "tokens", "--tokens-file", "/nothing"},
		`--auth must be one of "","none","tokens`: {"--auth", "basic"},
	} {
		for _, role := range []string{"process", "serve"} {
			command := append([]string{
				role, "--admin-addr", "127.0.0.1:0", "--brokers", "127.0.0.1:1", "--data", t.TempDir(),
			}, args...)
			if role == "serve" {
				command = append(command, "--api-addr", "127.0.0.1:0")
			}
			if _, errs, code := tidemark(t, command...); code == exitOK || !strings.Contains(errs, want) {
				t.Errorf("%s: exit %d, %s", want, code, errs)
			}
		}
	}
}

// What the admin address serves depends on --auth and on who can reach it.
func TestAdminAddress(t *testing.T) {
	reader, admin := auth.NewToken(), auth.NewToken()
	tokens := tokensFile(t, map[string]string{
		reader: `workspaces: ["*"], rights: [read]`, admin: `workspaces: ["*"], rights: [admin]`,
	})
	for name, c := range map[string]struct {
		flags                      adminFlags
		without, withRead, withAll int
		says, logs                 string
	}{
		"loopback":            {adminFlags{AdminAddr: "127.0.0.1:0"}, 200, 200, 200, "", ""},
		"elsewhere":           {adminFlags{AdminAddr: ":0"}, 401, 401, 401, "--auth is not set", ""},
		"elsewhere, none":     {adminFlags{AdminAddr: ":0", authFlags: authFlags{Auth: authNone}}, 200, 200, 200, "", "--auth none"},
		"elsewhere, tokens":   {adminFlags{AdminAddr: ":0", authFlags: authFlags{Auth: authTokens, TokensFile: tokens}}, 401, 403, 200, "", ""},
		"on loopback, tokens": {adminFlags{AdminAddr: "127.0.0.1:0", authFlags: authFlags{Auth: authTokens, TokensFile: tokens}}, 401, 403, 200, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			h, err := newHost(context.Background(), slog.New(slog.NewTextHandler(&log, nil)), c.flags)
			if err != nil {
				t.Fatal(err)
			}
			defer h.admin.Close()
			h.dlq = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})
			w := httptest.NewRecorder()
			h.adminHandler().ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/debug/pprof/", nil))
			if c.withAll == 200 && c.without == 200 && w.Code != 404 {
				t.Errorf("/debug/pprof/ without --pprof: %d", w.Code)
			}
			h.flags.Pprof = true
			server := httptest.NewServer(h.adminHandler())
			defer server.Close()
			for _, path := range []string{"/dlq", "/dlq/replay", "/dlq/drop", "/dlq/1:2", "/debug/pprof/symbol"} {
				for token, want := range map[string]int{"": c.without, reader: c.withRead, admin: c.withAll} {
					if status, body := ask(t, "POST", server.URL+path, token); status != want ||
						!strings.Contains(body, c.says) {
						t.Errorf("%s: %d %s, want %d %s", path, status, body, want, c.says)
					}
				}
			}
			for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
				if status, body := ask(t, "GET", server.URL+path, ""); status != 200 {
					t.Errorf("%s: %d %s", path, status, body)
				}
			}
			text := log.String()
			if !strings.Contains(text, c.logs) || c.logs == "" && strings.Contains(text, "WARN") ||
				strings.Contains(text, admin) {
				t.Errorf("the log: %s", text)
			}
		})
	}
}

// The whole process with tokens: the API, the commands, the admin address, and no token in the log.
func TestDevWithTokens(t *testing.T) {
	mine, all, data := auth.NewToken(), auth.NewToken(), t.TempDir()
	tokens := tokensFile(t, map[string]string{
		mine: `workspaces: [mine], rights: [read]`, all: `workspaces: ["*"], rights: [read, admin]`,
	})
	d := startDev(t, data, "tokens", "--auth", "tokens", "--tokens-file", tokens, "--log-level", "debug")
	if !strings.Contains(d.said, `curl -sS -H "Authorization: Bearer $TIDEMARK_TOKEN" '`) &&
		!strings.Contains(d.said, `curl -sS -H "Authorization: Bearer $TIDEMARK_TOKEN" http`) {
		t.Errorf("the introduction has no token: %s", d.said)
	}
	file := func(ws string) string { return d.api + "/v1/workspaces/" + ws + "/files/f" }
	t.Setenv(tokenVariable, all)
	for _, ws := range []string{"mine", "theirs"} {
		at := d.send(t, data, "--workspace", ws, "--file", "f")
		if out := succeed(t, "get", ws, "f", "--at-least", at, "--api-url", d.api); !strings.Contains(out, "active") {
			t.Errorf("get with $%s: %s", tokenVariable, out)
		}
	}
	t.Setenv(tokenVariable, "")
	mineFile := writeFile(t, "token", mine+"\n")
	succeed(t, "ls", "mine", "--api-url", d.api, "--token-file", mineFile)
	for want, args := range map[string][]string{
		"unknown_workspace": {"get", "theirs", "f", "--api-url", d.api, "--token-file", mineFile},
		"TIDEMARK_TOKEN":    {"get", "mine", "f", "--api-url", d.api},
	} {
		if _, errs, code := tidemark(t, args...); code != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d %s", args, code, errs)
		}
	}
	for _, c := range []struct {
		url, token string
		status     int
	}{
		{file("mine"), "", 401},
		{file("mine"), "wrong", 401},
		{file("mine"), mine, 200},
		{file("theirs"), all, 200},
		{file("theirs"), mine, 404},
		{d.api + "/v1/status", "", 401},
		{d.api + "/v1/status", mine, 200},
		{d.api + "/openapi.json", "", 200},
		{d.admin + "/dlq", "", 401},
		{d.admin + "/dlq", mine, 403},
		{d.admin + "/dlq", all, 200},
		{d.admin + "/metrics", "", 200},
		{d.admin + "/readyz", "", 200},
	} {
		if status, body := ask(t, "GET", c.url, c.token); status != c.status {
			t.Errorf("%s with %q: %d %s, want %d", c.url, c.token, status, body, c.status)
		}
	}
	testSession(t, d.api, mine)
	_, metrics := ask(t, "GET", d.admin+"/metrics", "")
	if !strings.Contains(metrics, `tidemark_auth_decisions_total{decision="foreign_workspace"} 3`) {
		t.Error("no count of foreign workspaces")
	}
	if err := os.WriteFile(tokens, []byte("- {name: x}\n"), 0o600); err != nil { // keeps the tokens
		t.Fatal(err)
	}
	d.stop(t)
	for _, token := range []string{mine, all} {
		if strings.Contains(d.log.String(), token) || strings.Contains(metrics, token) {
			t.Errorf("a token is in the log or the metrics")
		}
	}
}

// testSession does what a page does: it has the token as a cookie, and opens an event stream.
func testSession(t *testing.T, api, token string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	send := func(method, path, token string) int {
		request, err := http.NewRequestWithContext(t.Context(), method, api+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", api)
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := browser.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	for _, c := range []struct {
		method, path, token string
		status              int
	}{
		{"GET", "/v1/workspaces/mine/notices", "", 401},
		{"POST", "/v1/session", "", 401},
		{"POST", "/v1/session", token, 204},
		{"GET", "/v1/workspaces/mine/notices", "", 200},
		{"GET", "/v1/workspaces/mine", "", 200},
		{"GET", "/v1/workspaces/theirs/notices", "", 404},
		{"DELETE", "/v1/session", "", 204},
		{"GET", "/v1/workspaces/mine", "", 401},
	} {
		if status := send(c.method, c.path, c.token); status != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, status, c.status)
		}
	}
}

func TestTokenHash(t *testing.T) {
	entry, token, code := tidemark(t, "token", "hash", "--name", "ci", "--workspace", "123", "--right", "read,admin")
	token = strings.TrimSpace(token)
	if code != exitOK || strings.Contains(entry, token) || len(token) < auth.MinToken {
		t.Fatalf("exit %d: %s", code, entry)
	}
	path := filepath.Join(t.TempDir(), "tokens.yml")
	if err := os.WriteFile(path, []byte(entry), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.NewTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id, err := tokens.Verify(t.Context(), token)
	if err != nil || id.Name != "ci" || !id.Has(auth.Admin) || id.MayUse("1") {
		t.Error(id, err)
	}
	var out, errs bytes.Buffer
	code = run(t.Context(), []string{"token", "hash", "--name", "ci", "--workspace", "*", "--stdin"},
		console{in: strings.NewReader(token + "\n"), out: &out, err: &errs})
	if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(token))); code != exitOK || !strings.Contains(out.String(), sum) ||
		errs.Len() > 0 || strings.Contains(out.String(), token) {
		t.Errorf("--stdin: exit %d: %s%s", code, &out, &errs)
	}
	for _, args := range [][]string{
		{"--name", "Not a name", "--workspace", "*"},
		{"--workspace", "*"},
		{"--name", "x"},
		{"--name", "x", "--workspace", "*", "--right", "write"},
		{"--name", "x", "--workspace", "*,1"},
	} {
		if out, _, code := tidemark(t, append([]string{"token", "hash"}, args...)...); code != exitUsage || out != "" {
			t.Errorf("%v: exit %d %s", args, code, out)
		}
	}
}

func TestDoctorChecksTokens(t *testing.T) {
	tokens := tokensFile(t, map[string]string{auth.NewToken(): `workspaces: ["*"], rights: [read]`})
	secret := writeFile(t, "secret", strings.Repeat("s", 32))
	jwt := authFlags{Auth: authJWT, JWTIssuer: "i", JWTAudience: "a", JWTSecretFile: secret}
	keys := jwt
	keys.JWKS = "http://127.0.0.1:1/keys"
	for want, flags := range map[string]authFlags{
		"1 tokens in " + tokens: {Auth: authTokens, TokensFile: tokens},
		"want a list":           {Auth: authTokens, TokensFile: writeFile(t, "tokens.yml", "{}")},
		"HS256: true":           jwt,
		"connection refused":    keys,
		"needs --auth tokens":   {TokensFile: tokens},
	} {
		if what, err := flags.tokens()(t.Context()); !strings.Contains(fmt.Sprint(what, err), want) {
			t.Errorf("%+v: %s, %v", flags, what, err)
		}
	}
	if (authFlags{}).tokens() != nil || (authFlags{Auth: authNone}).tokens() != nil {
		t.Error("there is nothing to check")
	}
}

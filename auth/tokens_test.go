package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/problem"
)

// write replaces a file as editors and Kubernetes do.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// entryOf returns an entry of the file.
func entryOf(token, name, rest string) string {
	return fmt.Sprintf("- {name: %s, sha256: %x, %s}\n", name, sha256.Sum256([]byte(token)), rest)
}

// wantCode checks the code of a refusal, and that it does not repeat the token.
func wantCode(t *testing.T, err error, code, token string) {
	t.Helper()
	p, ok := err.(*problem.Problem) //nolint:errorlint // the guard wants it so
	if !ok || p.Code != code {
		t.Errorf("got %v, want %s", err, code)
		return
	}
	if text := p.Error() + fmt.Sprint(p.Header()); token != "" && strings.Contains(text, token) {
		t.Errorf("the refusal has the token: %s", text)
	}
}

func TestTokensOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yml")
	write(t, path, entryOf("one", "first", `workspaces: ["123", a/b], rights: [read]`)+
		entryOf("two", "second", `workspaces: ["*"], rights: [read, admin]`))
	tokens, err := NewTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, err := tokens.Verify(t.Context(), "one")
	if diff := cmp.Diff(&Identity{"first", []string{"123", "a/b"}, []Right{Read}}, first); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if second, err := tokens.Verify(t.Context(), "two"); err != nil || !second.Has(Admin) || !second.MayUse("x") {
		t.Error(second, err)
	}
	for _, bad := range []string{"", "One", "one ", "onetwo", fmt.Sprintf("%x", sha256.Sum256([]byte("one")))} {
		_, err := tokens.Verify(t.Context(), bad)
		wantCode(t, err, codeBadToken, bad)
	}
	if first.MayUse("*") || first.MayUse("12") || first.MayUse("1234") || first.MayUse("a") || first.Has(Admin) {
		t.Errorf("%+v may too much", first)
	}
}

func TestTokensAreReloaded(t *testing.T) {
	var log bytes.Buffer
	path, now := filepath.Join(t.TempDir(), "tokens.yml"), time.Unix(1e9, 0)
	all := `workspaces: ["*"], rights: [read]`
	write(t, path, entryOf("one", "first", all))
	tokens, err := NewTokens(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	tokens.entries.now = func() time.Time { return now }
	tokens.entries.tried.Store(new(now))
	check := func(what string, valid ...string) {
		t.Helper()
		for _, token := range []string{"one", "two"} {
			_, err := tokens.Verify(t.Context(), token)
			want := len(valid) > 0 && strings.Contains(strings.Join(valid, " "), token)
			if (err == nil) != want {
				t.Errorf("%s: %s: %v", what, token, err)
			}
		}
	}
	check("at first", "one")
	write(t, path, entryOf("two", "second", all))
	check("within a second", "one")
	now = now.Add(fileInterval)
	check("after it", "two")
	write(t, path, "# all withdrawn\n[]\n")
	now = now.Add(fileInterval)
	check("the last one is withdrawn")
	if !strings.Contains(log.String(), "level=ERROR msg=\"reloaded, nothing is valid any more\"") {
		t.Errorf("an empty list is not logged:\n%s", log.String())
	}
	write(t, path, entryOf("two", "second", all))
	now = now.Add(fileInterval)
	check("given again", "two")
	for what, text := range map[string]string{"broken": "- {name: [}", "empty": "", "a wrong setting": "- {nome: x}"} {
		write(t, path, text)
		now = now.Add(fileInterval)
		check(what, "two")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		now = now.Add(fileInterval)
		check("removed", "two")
	}
	if n := strings.Count(log.String(), "no such file"); n != 1 {
		t.Errorf("the missing file is logged %d times:\n%s", n, log.String())
	}
	write(t, path, entryOf("one", "first", all))
	now = now.Add(fileInterval)
	check("written again", "one")
}

// The age is by the monotonic clock, which is not set back.
func TestAClockSetBackDoesNotStopReloads(t *testing.T) {
	r := reloaded[string]{
		read:  func(context.Context) ([]byte, error) { return nil, nil },
		parse: func([]byte) (string, error) { return "", nil }, now: time.Now,
	}
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tried := fmt.Sprint(*r.tried.Load()); !strings.Contains(tried, " m=") {
		t.Errorf("%s has no monotonic time", tried)
	}
}

// Requests verify while the file changes, and see the old tokens or the new ones.
func TestTokensAreReloadedConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yml")
	all := `workspaces: ["*"], rights: [read]`
	write(t, path, entryOf("one", "first", all))
	tokens, err := NewTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var clock atomic.Int64
	tokens.entries.now = func() time.Time { return time.Unix(2e9+clock.Add(1), 0) } // each request finds them too old
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				_, one := tokens.Verify(t.Context(), "one")
				_, two := tokens.Verify(t.Context(), "two")
				if one != nil && two != nil { // the change is from one to two only
					t.Errorf("neither is valid: %v, %v", one, two)
					return
				}
			}
		})
	}
	write(t, path, entryOf("two", "second", all))
	group.Wait()
	if _, err := tokens.Verify(t.Context(), "two"); err != nil {
		t.Error(err)
	}
}

func TestTokensFileIsStrict(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"tokens: []": `t.yml:1: want a list`,
		"[]":         `t.yml:1: want a list`,
		"- {name: a, sha256: " + sum + ", workspaces: ['*'], rights: [write]}":      `t.yml:1: [0].rights[0]: "write" is no right`,
		"- {name: a, sha256: abc, workspaces: ['*'], rights: [read]}":               `t.yml:1: [0].sha256: want the SHA-256`,
		"- {name: a, sha256: " + sum + "ab, workspaces: ['*'], rights: [read]}":     `t.yml:1: [0].sha256: want the SHA-256`,
		"- {name: a, sha256: " + sum + ", workspaces: ['*', b], rights: [read]}":    `[0].workspaces: "*" means all workspaces`,
		"- {name: a, sha256: " + sum + ", rights: [read]}":                          `[0].workspaces: want ids`,
		"- {name: a, sha256: " + sum + ", workspaces: ['*']}":                       `[0].rights: want read, admin or both`,
		"- {sha256: " + sum + ", workspaces: ['*'], rights: [read]}":                `[0].name: want a name`,
		"- {name: a, workspaces: ['*'], rights: [read]}":                            `[0].sha256: want the SHA-256`,
		"- {name: a, sha256: " + sum + ", workspaces: ['*'], rights: [read], x: 1}": `[0].x: unknown setting`,
		"\n- {name: a, sha256: " + sum + ", workspaces: ['*'], rights: [read]}\n" +
			"- {name: a, sha256: " + sum + ", workspaces: ['*'], rights: [read]}": `t.yml:3: [1].name: the name a is taken`,
		"- {name: a, sha256: " + sum + ", workspaces: ['*'], rights: [read]}\n" +
			"- {name: b, sha256: " + sum + ", workspaces: ['*'], rights: [read]}": `t.yml:2: [1].sha256: this is the token of a`,
	} {
		if _, err := parseTokens("t.yml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
	// A token in the place of its hash is not repeated.
	_, err := parseTokens("t.yml", []byte("- {name: a, sha256: tmk_SECRET}"))
	if strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
}

func TestEntry(t *testing.T) {
	token := NewToken()
	data, err := Entry(token, "ci", []string{"123", "a: b"}, []string{"read"})
	if err != nil || bytes.Contains(data, []byte(token)) || token == NewToken() || len(token) < MinToken {
		t.Fatalf("%s: %v", data, err)
	}
	path := filepath.Join(t.TempDir(), "tokens.yml")
	write(t, path, string(data))
	tokens, err := NewTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := tokens.Verify(t.Context(), token); err != nil || id.Name != "ci" || !id.MayUse("a: b") {
		t.Error(id, err)
	}
	for _, bad := range []string{
		"", "short", strings.Repeat("a b", 20), strings.Repeat("a;b", 20), strings.Repeat("ü", 20),
		strings.Repeat("x", maxToken+1),
	} {
		if _, err := Entry(bad, "ci", []string{"*"}, []string{"read"}); err == nil {
			t.Errorf("a token of %d characters is accepted", len(bad))
		}
	}
}

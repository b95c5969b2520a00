package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"tidemark/rulefile"
)

// MinToken is the length of the shortest token of a list. Its hash has no salt, so it must be random and long.
const MinToken = 24

// Tokens verifies tokens of a file: a list of entries with the hash of each.
type Tokens struct {
	entries reloaded[[]entry]
}

// An entry is one token.
type entry struct {
	Name       string   `yaml:"name"`
	SHA256     hash     `yaml:"sha256"`
	Workspaces []string `yaml:"workspaces"`
	Rights     []Right  `yaml:"rights"`
}

// A hash is the SHA-256 of a token.
type hash [sha256.Size]byte

// UnmarshalText reads 64 hexadecimal digits. The error does not repeat the text, which may be the token itself.
func (h *hash) UnmarshalText(text []byte) error {
	if n, err := hex.Decode(h[:], text[:min(len(text), 2*len(h))]); err != nil || n != len(h) || len(text) != 2*len(h) {
		return errors.New("want the SHA-256 of the token in 64 hexadecimal digits: see `tidemark token hash`")
	}
	return nil
}

// UnmarshalText reads the name of a right.
func (r *Right) UnmarshalText(text []byte) error {
	*r = Right(text)
	if *r != Read && *r != Admin {
		return fmt.Errorf("%q is no right: want read or admin", text)
	}
	return nil
}

// NewTokens reads the file. It is read again when it has changed.
func NewTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{reloaded[[]entry]{
		name: path, read: readFile(path), log: log, now: time.Now,
		parse: func(data []byte) ([]entry, error) { return parseTokens(path, data) },
	}}
	return t, t.entries.load(context.Background())
}

// Len returns how many tokens there are.
func (t *Tokens) Len() int { return len(*t.entries.value.Load()) }

// Verify compares the hash with all entries in constant time.
func (t *Tokens) Verify(ctx context.Context, token string) (*Identity, error) {
	sum := sha256.Sum256([]byte(token))
	var found *entry
	entries := *t.entries.get(ctx, fileInterval, false)
	for i := range entries {
		if subtle.ConstantTimeCompare(entries[i].SHA256[:], sum[:]) == 1 {
			found = &entries[i]
		}
	}
	if found == nil {
		return nil, badToken("the token is not valid")
	}
	return &Identity{found.Name, found.Workspaces, found.Rights}, nil
}

// NewToken returns a random token. Its prefix lets scanners of secrets find it.
func NewToken() string { return "tmk_" + rand.Text() + rand.Text() }

// Entry returns an entry of the file of tokens, in YAML.
func Entry(token, name string, workspaces, rights []string) ([]byte, error) {
	if len(token) < MinToken || len(token) > maxToken || !validToken.MatchString(token) {
		return nil, fmt.Errorf("the token must have %d to %d characters, of A-Z, a-z, 0-9 and -._~+/, and = at its end",
			MinToken, maxToken)
	}
	sum := sha256.Sum256([]byte(token))
	data, err := yaml.Marshal([]any{struct {
		Name       string
		SHA256     string
		Workspaces []string `yaml:",flow"`
		Rights     []string `yaml:",flow"`
	}{name, hex.EncodeToString(sum[:]), workspaces, rights}})
	if err != nil {
		return nil, err
	}
	_, err = parseTokens("entry", data)
	return data, err
}

func parseTokens(path string, data []byte) ([]entry, error) {
	var entries []entry
	f := rulefile.Read(path, data, &entries)
	var all []yaml.Node
	if yaml.Unmarshal(data, &all) == nil && all != nil && len(all) == 0 { // [], not an empty file
		return nil, &emptyError{f.Err()}
	}
	var names []string
	seen := map[hash]string{}
	for i, e := range entries {
		at := fmt.Sprintf("[%d]", i)
		names = f.Name(names, at+".name", e.Name)
		switch other, twice := seen[e.SHA256]; {
		case e.SHA256 == hash{}:
			f.Failf(at+".sha256", "want the SHA-256 of the token in 64 hexadecimal digits: see `tidemark token hash`")
		case twice:
			f.Failf(at+".sha256", "this is the token of %s: remove one", other)
		}
		seen[e.SHA256] = e.Name
		if len(e.Workspaces) == 0 {
			f.Failf(at+".workspaces", `want ids of workspaces, or ["*"] for all`)
		}
		if len(e.Rights) == 0 {
			f.Failf(at+".rights", "want read, admin or both")
		}
		if slices.Contains(e.Workspaces, allWorkspaces) && len(e.Workspaces) > 1 {
			f.Failf(at+".workspaces", `"*" means all workspaces: remove the others`)
		}
	}
	return entries, f.Err()
}

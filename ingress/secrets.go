package ingress

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"tidemark/codecs"
)

const (
	minSecretBytes = 24
	whsec          = "whsec_" // prefix of a standard-webhooks secret
)

// A Secret is one active signing secret, of one workspace or of all.
type Secret struct {
	workspace string // empty: for all
	key       []byte
}

// Workspace returns the workspace that the secret is bound to; empty for none.
func (s Secret) Workspace() string { return s.workspace }

// Format prints the secret's scope whatever the verb, so that a stray %v cannot print its key.
func (s Secret) Format(f fmt.State, _ rune) {
	text := "secret for every workspace"
	if s.workspace != "" {
		text = fmt.Sprintf("secret for workspace %q", s.workspace)
	}
	_, _ = io.WriteString(f, text) // Format cannot report, and the fmt package's buffer does not fail
}

func (s Secret) check() error {
	if len(s.key) < minSecretBytes {
		return fmt.Errorf("is of %d bytes, want at least %d: make a longer one", len(s.key), minSecretBytes)
	}
	return nil
}

// ParseSecrets reads a comma-separated list of secrets for all workspaces. Space around an entry is ignored. An entry
// that begins with "#" is refused, since it may be meant as a comment and would be an active secret. Errors name the
// entry by number and never quote it.
func ParseSecrets(scheme Scheme, list string) ([]Secret, error) {
	switch list = strings.TrimSpace(list); {
	case list == "":
		return nil, errors.New("no webhook secret given: set at least one")
	case quoted(list):
		return nil, fmt.Errorf("the list of webhook secrets %w", errQuoted)
	}
	var secrets []Secret
	for i, entry := range strings.Split(list, ",") {
		secret, err := parseSecret(scheme, "", entry)
		if strings.HasPrefix(strings.TrimSpace(entry), "#") {
			err = errors.New(`begins with "#": a list has no comments, so take it out, or write the secrets into a file`)
		}
		if err != nil {
			return nil, fmt.Errorf("webhook secret %d of the list %w", i+1, err)
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// ReadSecretsFile reads secrets from a file, one a line: `secret`, or `workspace=secret` for one bound to a workspace.
// A line splits at its first "=" unless only "=" follows it, as base64 ends so. Blank lines, lines that begin with "#",
// and space around a line or around the "=" are ignored. Errors name the line by number and never quote it.
func ReadSecretsFile(scheme Scheme, path string) ([]Secret, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the webhook secrets file: %w", err)
	}
	var secrets []Secret
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		secret, err := parseLine(scheme, line)
		if err != nil {
			return nil, fmt.Errorf("webhook secrets file %s, line %d: the secret %w", path, n, err)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("webhook secrets file %s holds no secret: write one a line", path)
	}
	return secrets, nil
}

func parseLine(scheme Scheme, line string) (Secret, error) {
	if quoted(line) {
		return Secret{}, errQuoted
	}
	workspace, rest, found := strings.Cut(line, "=")
	if !found || strings.Trim(rest, "=") == "" {
		return parseSecret(scheme, "", line)
	}
	workspace = strings.TrimSpace(workspace)
	if workspace == "" || len(workspace) > codecs.MaxID || !utf8.ValidString(workspace) ||
		strings.ContainsFunc(workspace, unicode.IsControl) {
		return Secret{}, fmt.Errorf("has no workspace id of 1 to %d bytes before its \"=\"", codecs.MaxID)
	}
	return parseSecret(scheme, workspace, rest)
}

var errQuoted = errors.New("is in quotes, which would be part of it: write it without them")

// quoted reports whether text is in quotes, which a shell or YAML would have removed.
func quoted(text string) bool {
	for _, pair := range [...][2]string{{`"`, `"`}, {"'", "'"}, {"`", "`"}, {"\u201c", "\u201d"}, {"\u2018", "\u2019"}} {
		if rest, found := strings.CutPrefix(text, pair[0]); found && strings.HasSuffix(rest, pair[1]) {
			return true
		}
	}
	return false
}

// parseSecret returns errors that continue the words "the secret".
func parseSecret(scheme Scheme, workspace, text string) (Secret, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return Secret{}, errors.New("is empty: remove it or write one")
	case quoted(text):
		return Secret{}, errQuoted
	}
	secret := Secret{workspace: workspace, key: []byte(text)}
	if scheme.Name() == StandardWebhooks {
		encoded, found := strings.CutPrefix(text, whsec)
		if !found {
			return Secret{}, fmt.Errorf("does not begin with %q, as those of %s do", whsec, StandardWebhooks)
		}
		key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
		if err != nil { // the error would quote a byte of the secret
			return Secret{}, fmt.Errorf("is not base64 after %q", whsec)
		}
		secret.key = key
	}
	return secret, secret.check()
}

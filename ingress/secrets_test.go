package ingress

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shown makes secrets comparable: "workspace|key".
func shown(secrets []Secret) []string {
	var out []string
	for _, s := range secrets {
		out = append(out, s.workspace+"|"+string(s.key))
	}
	return out
}

func TestParseSecrets(t *testing.T) {
	t.Parallel()
	const k = "0123456789abcdefghijklmn" // 24 bytes
	coded := func(key string) string { return whsec + base64.StdEncoding.EncodeToString([]byte(key)) }
	tests := []struct {
		name, scheme, list string
		want               []string
		err                string
	}{
		{"one", Fastio, k, []string{"|" + k}, ""},
		{"two, spaced", Fastio, " " + k + " ,\t" + k + "2\n", []string{"|" + k, "|" + k + "2"}, ""},
		{"an = does not bind", Fastio, "ws=" + k, []string{"|ws=" + k}, ""},
		{"bytes are counted, not letters", Fastio, strings.Repeat("é", 12), []string{"|" + strings.Repeat("é", 12)}, ""},
		{"whsec_ is text elsewhere", Fastio, coded(k), []string{"|" + coded(k)}, ""},
		{"whsec_", StandardWebhooks, coded(k), []string{"|" + k}, ""},
		{"whsec_ without padding", StandardWebhooks, strings.TrimRight(coded(k+"x"), "="), []string{"|" + k + "x"}, ""},
		{"empty", Fastio, "", nil, "no webhook secret given"},
		{"blank", Fastio, " \n", nil, "no webhook secret given"},
		{"empty entry", Fastio, k + ",", nil, "secret 2 of the list is empty"},
		{"blank entry", Fastio, k + ", ," + k, nil, "secret 2 of the list is empty"},
		{"in quotes", Fastio, `"` + k + `"`, nil, "is in quotes"},
		{"in single quotes", Fastio, k + ", '" + k + "'", nil, "secret 2 of the list is in quotes"},
		{"in typographic quotes", Fastio, "\u201c" + k + "\u201d", nil, "is in quotes"},
		{"the list in quotes", Fastio, `"` + k + "," + k + `2"`, nil, "the list of webhook secrets is in quotes"},
		{"whsec_ in quotes", StandardWebhooks, coded(k) + `,"` + coded(k) + `"`, nil, "secret 2 of the list is in quotes"},
		{"a quote inside", Fastio, k + `"x`, []string{"|" + k + `"x`}, ""},
		{"a comment", Fastio, k + ",# " + k, nil, `secret 2 of the list begins with "#"`},
		{"a # inside", Fastio, k + "#", []string{"|" + k + "#"}, ""},
		{"23 bytes", Fastio, k[1:], nil, "secret 1 of the list is of 23 bytes, want at least 24"},
		{"23 bytes in 32 letters", StandardWebhooks, coded(k[1:]), nil, "is of 23 bytes, want at least 24"},
		{"no whsec_", StandardWebhooks, k, nil, `does not begin with "whsec_"`},
		{"no base64", StandardWebhooks, whsec + "!" + k, nil, "is not base64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseSecrets(schemeOf(t, test.scheme), test.list)
			check(t, got, err, test.want, test.err)
		})
	}
}

func TestReadSecretsFile(t *testing.T) {
	t.Parallel()
	const k = "0123456789abcdefghijklmn"
	tests := []struct {
		name, file string
		want       []string
		err        string
	}{
		{"plain", k + "\n", []string{"|" + k}, ""},
		{"no newline, several", k + "\n\n123=" + k + "\r\n \n" + k + "2", []string{"|" + k, "123|" + k, "|" + k + "2"}, ""},
		{"byte order mark", "\ufeff" + k, []string{"|" + k}, ""},
		{"padded base64", k + "==", []string{"|" + k + "=="}, ""},
		{"one pad", k + "=", []string{"|" + k + "="}, ""},
		{"bound, padded", "ws=" + k + "==", []string{"ws|" + k + "=="}, ""},
		{"bound, = inside", "ws=" + k + "=x", []string{"ws|" + k + "=x"}, ""},
		{"spaced", " ws = " + k + " ", []string{"ws|" + k}, ""},
		{"a comma is text", k + ",x", []string{"|" + k + ",x"}, ""},
		{"comments", "# the old one, until May:\n#" + k + "\n  # ws=" + k + "\n" + k + "\n", []string{"|" + k}, ""},
		{"a # inside", k + " # x", []string{"|" + k + " # x"}, ""},
		{"bound, # first", "ws=#" + k, []string{"ws|#" + k}, ""},
		{"only comments", "#" + k + "\n", nil, "holds no secret"},
		{"in quotes", k + "\n\"" + k + "\"\n", nil, "line 2: the secret is in quotes"},
		{"bound, in quotes", "ws='" + k + "'", nil, "line 1: the secret is in quotes"},
		{"bound, all in quotes", `"ws=` + k + `"`, nil, "line 1: the secret is in quotes"},
		{"empty", "", nil, "holds no secret"},
		{"blank", "\n \n", nil, "holds no secret"},
		{"short", k + "\nTiny!\n", nil, "line 2: the secret is of 5 bytes"},
		{"bound, short", "a-workspace-with-a-long-name=Tiny!", nil, "line 1: the secret is of 5 bytes"},
		{"bound, empty", "ws=", nil, "line 1: the secret is of 3 bytes"},
		{"no workspace", "=" + k, nil, "line 1: the secret has no workspace id"},
		{"bad workspace", "w\x01s=" + k, nil, "line 1: the secret has no workspace id"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "secrets")
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadSecretsFile(Scheme{}, path)
			check(t, got, err, test.want, test.err)
		})
	}
	if _, err := ReadSecretsFile(Scheme{}, filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func check(t *testing.T, got []Secret, err error, want []string, wantErr string) {
	t.Helper()
	if diff := cmp.Diff(want, shown(got)); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	if (err != nil) != (wantErr != "") || err != nil && !strings.Contains(err.Error(), wantErr) {
		t.Errorf("error %v, want %q", err, wantErr)
	}
	if err != nil && (strings.Contains(err.Error(), "0123456789") || strings.Contains(err.Error(), "Tiny!")) {
		t.Errorf("error %q quotes the secret", err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	secrets := secretsOf(t, Scheme{}, anyKey, "123="+boundKey)
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "secrets", secrets, "config",
		Config{Secrets: secrets, Producer: nil}.Secrets)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secrets", secrets, "one", secrets[0])
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&logged, format, secrets)
		fmt.Fprintf(&logged, format, Config{Secrets: secrets})
	}
	for _, key := range []string{
		anyKey, boundKey, fmt.Sprintf("%x", anyKey),
		strings.Trim(fmt.Sprintf("%d", []byte(anyKey)), "[]"),
	} {
		if strings.Contains(logged.String(), key) {
			t.Errorf("%q is printed:\n%s", key, logged.String())
		}
	}
}

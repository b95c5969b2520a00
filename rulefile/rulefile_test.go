package rulefile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type schema struct {
	Text    string         `yaml:"text"`
	Flag    *bool          `yaml:"flag"`
	Number  int            `yaml:"number"`
	Size    *int64         `yaml:"size"`
	Wait    time.Duration  `yaml:"wait"`
	Zone    *time.Location `yaml:"zone"`
	Inner   *inner         `yaml:"inner"`
	Many    []inner        `yaml:"many"`
	Token   Secret         `yaml:"token"`
	Hidden  string         // not a setting
	checked bool
}

type inner struct {
	Names []string `yaml:"names"`
}

func (s *schema) Check(*File, string) { s.checked = true }

func (i *inner) Check(f *File, at string) {
	if len(i.Names) > 1 {
		f.Failf(at+".absent", "at most one name")
	}
}

func TestRead(t *testing.T) {
	var s schema
	f := Read("f", []byte(`
text: 0123
flag: false
number: 7
size: 8
wait: 90s
zone: America/New_York
inner: &one {names: [1e3]}
many: [*one, {names: [true]}]
token_env: MY_TOKEN
`), &s)
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	no, size := false, int64(8)
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	want := schema{
		Text: "0123", Flag: &no, Number: 7, Size: &size, Wait: 90 * time.Second, Zone: zone,
		Inner: &inner{[]string{"1e3"}}, Many: []inner{{[]string{"1e3"}}, {[]string{"true"}}},
		Token: Secret{Variable: "MY_TOKEN"}, checked: true,
	}
	same := cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(schema{}), same); diff != "" {
		t.Error(diff)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "f: want one YAML document, not empty"},
		{"a: 1\n---\nb: 1", "f: want one YAML document, not empty"},
		{"text: [", "f: yaml: line 1: did not find expected node content"},
		{"- 1", "f:1: want settings, {} for none"},
		{"text: a\nTEXT: b", "f:2: TEXT: unknown setting: want one of text, flag, number, size, wait, zone, inner, many, token_file, token_env"},
		{"texd: a", "f:1: texd: unknown setting: did you mean text?"},
		{"Hidden: a", "f:1: Hidden: unknown setting: want one of text, flag, number, size, wait, zone, inner, many, token_file, token_env"},
		{`"": a`, "f:1: unknown setting: want one of text, flag, number, size, wait, zone, inner, many, token_file, token_env"},
		{"text: a\nflag: true\ntext: b", "f:3: text: given twice: remove one"},
		{"text:", "f:1: text: want one value, not empty"},
		{"text: [a]\nflag: {}\nnumber: [1]", "f:1: text: want one value, not empty\nf:2: flag: want one value, not empty\nf:3: number: want one value, not empty"},
		{"flag: yes it is\nnumber: 1.5\nsize: 99999999999999999999", "f:1: flag: \"yes it is\" is not true or false\nf:2: number: \"1.5\" is not a whole number in the range of int\nf:3: size: \"99999999999999999999\" is not a whole number in the range of int64"},
		{"wait: 15", `f:1: wait: "15" is not a duration: want one like 90s, 15m or 24h`},
		{"wait: -15s", `f:1: wait: "-15s" is not a duration: want one like 90s, 15m or 24h`},
		{"zone: Local", `f:1: zone: "Local" is not a time zone: want one like Europe/Vienna`},
		{"zone: ../../etc/passwd", `f:1: zone: "../../etc/passwd" is not a time zone: want one like Europe/Vienna`},
		{"inner: 5", "f:1: inner: want settings, {} for none"},
		{"many: {}\ninner:\n  names: []", "f:1: many: want a list that is not empty, for example [a, b]; or leave it out\nf:3: inner.names: want a list that is not empty, for example [a, b]; or leave it out"},
		{"many:\n  - names: [a, b]\n  -\n    names:\n      - {}", "f:2: many[0].absent: at most one name\nf:5: many[1].names[0]: want one value, not empty"},
	} {
		got := fmt.Sprint(Read("f", []byte(c.text), new(schema)).Err())
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s\n%s", c.text, diff)
		}
	}
}

// TestSecrets: a secret in the file is refused, and no error repeats it.
func TestSecrets(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"token: SECRET", "f:1: token: a secret must not be in this file: give the path of a file with it as token_file, or the name of an environment variable with it as token_env"},
		{"token: {a: SECRET}", "f:1: token: a secret must not be in this file: give the path of a file with it as token_file, or the name of an environment variable with it as token_env"},
		{"token_file: xoxb-SECRET", "f:1: token_file: want the path of a file, never the secret itself"},
		{"token_file: https://hooks.slack.com/services/SECRET", "f:1: token_file: want the path of a file, never the secret itself"},
		{"token_env: whsec_SECRET", "f:1: token_env: want the name of an environment variable, never the secret itself"},
		{"token_env: 5SECRET", "f:1: token_env: want the name of an environment variable, never the secret itself"},
	} {
		got := fmt.Sprint(Read("f", []byte(c.text), new(schema)).Err())
		if diff := cmp.Diff(c.want, got); diff != "" || strings.Contains(got, "SECRET") {
			t.Errorf("%s\n%s", c.text, diff)
		}
	}
	var s schema
	f := Read("f", []byte("token_file: a\ntoken_env: B"), &s)
	s.Token.Check(f, "", "token")
	want := "f:1: want exactly one of token_file and token_env, found 2"
	if got := fmt.Sprint(f.Err()); got != want {
		t.Error(got)
	}
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	t.Setenv("TIDEMARK_TEST_SECRET", "from the environment")
	if got, err := (Secret{Variable: "TIDEMARK_TEST_SECRET"}).Read(); got != "from the environment" || err != nil {
		t.Error(got, err)
	}
	_, err := Secret{Variable: "TIDEMARK_TEST_NONE"}.Read()
	if !strings.Contains(fmt.Sprint(err), "TIDEMARK_TEST_NONE is not set") {
		t.Error(err)
	}
	if got, err := (Secret{File: secretFile(path)}).Read(); err == nil {
		t.Error("a missing file:", got)
	}
	for content, want := range map[string]string{"s3cret\r\n": "s3cret", "\n": ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := (Secret{File: secretFile(path)}).Read(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"workspace_storage_file_deleted", "workspace_storage_file_added"}
	for name, want := range map[string]string{
		"workspace_storage_file_deletd": ": did you mean workspace_storage_file_deleted?",
		"workspace_storage_file_add":    ": did you mean workspace_storage_file_added?",
		"x":                             ": want one of workspace_storage_file_deleted, workspace_storage_file_added",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%s%s, want %s", name, got, want)
		}
	}
	if got := Nearest("x", nil); got != "" {
		t.Error(got)
	}
	for pair, want := range map[[2]string]int{{"", "abc"}: 3, {"abc", ""}: 3, {"kitten", "sitting"}: 3, {"a", "a"}: 0} {
		if got := editDistance(pair[0], pair[1]); got != want {
			t.Errorf("%v: %d, want %d", pair, got, want)
		}
	}
}

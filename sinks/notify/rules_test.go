package notify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/rulefile"
)

func parse(t *testing.T, text string) (*Rules, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := Load(path)
	if err != nil {
		err = fmt.Errorf("%s", strings.ReplaceAll(err.Error(), path, "f"))
	}
	for i, warning := range rules.Warnings {
		rules.Warnings[i] = strings.ReplaceAll(warning, path, "f")
	}
	return rules, err
}

// TestDocumentedExample reads the example of docs/notify.md.
func TestDocumentedExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/notify.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(page), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	got, err := parse(t, example)
	if err != nil || !found {
		t.Fatalf("%v %v", found, err)
	}
	from, to := Clock(22*60), Clock(7*60)
	vienna, err := time.LoadLocation("Europe/Vienna")
	if err != nil {
		t.Fatal(err)
	}
	night := &QuietHours{From: &from, To: &to, Zone: vienna}
	utc := &QuietHours{From: &from, To: &to, Zone: time.UTC}
	want := &Rules{
		Channels: []Channel{
			{Name: "ops", Slack: &Slack{WebhookURL: rulefile.Secret{File: "/run/secrets/ops-url"}}},
			{Name: "reviews", Slack: &Slack{Channel: "#reviews", Token: rulefile.Secret{Variable: "TIDEMARK_SLACK_TOKEN"}}},
			{Name: "anna-mail", Email: &Email{To: []string{"anna@example.com"}, From: "tidemark@example.com"}},
			{Name: "erp", Webhook: &Webhook{URL: "https://erp.example.com/hook", Secret: rulefile.Secret{File: "/run/secrets/erp"}}},
			{Name: "screen", Log: &struct{}{}},
		},
		Users: []User{
			{Name: "anna", Channel: "anna-mail", ID: "usr_1", Digest: time.Hour, Quiet: night},
			{Name: "ben", Channel: "screen"},
		},
		Rules: []Rule{
			{Name: "deleted-reports", Channel: "ops", Events: []rulefile.Glob{"*_file_deleted", "*_folder_deleted"}, Paths: []rulefile.Glob{"/reports/**", "!/reports/drafts/**"}, Rate: Rate{30, time.Hour}, Quiet: utc},
			{Name: "erp", Channel: "erp", Workspaces: []string{"4821930571648203911"}, Actors: []string{"!usr_erp"}, Children: true},
			{Name: "contracts-anna", Events: nil, Channel: "anna-mail", Paths: []rulefile.Glob{"/contracts/**/*.pdf"}, Actors: []string{"!usr_1"}, Digest: time.Hour, Quiet: night},
			{Name: "contracts-ben", Channel: "screen", Paths: []rulefile.Glob{"/contracts/**/*.pdf"}, Digest: 15 * time.Minute},
			{Name: "comments", Channel: "reviews", Events: []rulefile.Glob{"comment_*"}, Disabled: true},
		},
	}
	locations := cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })
	if diff := cmp.Diff(want, got, locations); diff != "" {
		t.Error(diff)
	}
}

const head = "channels:\n  - {name: ops, log: {}}\n  - {name: two, log: {}}\n" // three lines

func TestBadRules(t *testing.T) {
	const quiet = "rules: [{name: a, channel: ops, quiet_hours: {from: '00:00', to: '24:00'"
	const always = `f:4: rules[0].quiet_hours: from "00:00" to "24:00" needs days, like [sat, sun], and not all of them`
	long := strings.Repeat("x", 30)
	for _, c := range []struct{ text, want string }{
		{"channels: [{name: ops, log: {}}]", "f:1: rules: want at least one rule"},
		{head + "rules: [{name: a, chanel: ops}]", "f:4: rules[0].chanel: unknown setting: did you mean channel?\nf:4: rules[0]: want exactly one of channel and users, found 0"},
		{head + "rules: [{name: a, channel: opps}]", `f:4: rules[0].channel: "opps" is not declared in this file: did you mean ops?`},
		{head + "rules: [{name: a, users: [anna]}]", `f:4: rules[0].users[0]: "anna" is not declared in this file`},
		{head + "rules: [{name: a, channel: ops, users: [anna]}]", "f:4: rules[0]: want exactly one of channel and users, found 2\n" + `f:4: rules[0].users[0]: "anna" is not declared in this file`},
		{head + "rules:\n  - {name: a, channel: ops}\n  - {name: a, channel: ops}", "f:6: rules[1].name: the name a is taken: choose another"},
		{head + "rules: [{name: A b, channel: ops}]", `f:4: rules[0].name: want a name of 1 to 40 of a-z, 0-9 and -, found "A b"`},
		{head + "users: [{name: c, channel: ops}, {name: b-c, channel: ops}]\nrules:\n  - {name: a-b, users: [c]}\n  - {name: a, users: [b-c]}", "f:7: rules[1].users[0]: the name a-b-c is taken: choose another"},
		{head + "users: [{name: c, channel: x}]\nrules: [{name: a, users: [c, c]}]", `f:4: users[0].channel: "x" is not declared in this file: want one of ops, two` + "\nf:5: rules[0].users[1]: the name a-c is taken: choose another"},
		{head + "rules: [{name: a, channel: ops, paths: ['/a/[', '!']}]", `f:4: rules[0].paths[0]: "/a/[" is not a glob: want one like /reports/**/*.pdf, with \ before a literal [ or {` + "\n" + `f:4: rules[0].paths[1]: "!" is not a glob: want one like /reports/**/*.pdf, with \ before a literal [ or {`},
		{head + "rules: [{name: a, channel: ops, rate: 0/h}]", `f:4: rules[0].rate: "0/h" is not a rate: want a number per s, m, h or d, for example 30/h`},
		{head + "rules: [{name: a, channel: ops, rate: 30}]", `f:4: rules[0].rate: "30" is not a rate: want a number per s, m, h or d, for example 30/h`},
		{head + "rules: [{name: a, channel: ops, digest: 200h}]", "f:4: rules[0]: a digest of 200h0m0s is too long: want 168h at most"},
		{head + "users: [{name: " + long + ", channel: ops}]\nrules: [{name: " + long + ", users: [" + long + "]}]", "f:5: rules[0].users[0]: want a name of 1 to 40 of a-z, 0-9 and -, found \"" + long + "-" + long + "\""},
		{head + "rules: [{name: a, channel: ops, quiet_hours: {from: '24:30', to: '7:00'}}]", `f:4: rules[0].quiet_hours.from: "24:30" is not a time of day: want one like 22:00`},
		{head + "rules: [{name: a, channel: ops, quiet_hours: {from: '23:30'}}]", `f:4: rules[0].quiet_hours: want from and to, two times like {from: "22:00", to: "07:00", zone: Europe/Vienna}`},
		{head + "rules: [{name: a, channel: ops, quiet_hours: {from: '7:00', to: '7:00'}}]", `f:4: rules[0].quiet_hours: want from and to, two times like {from: "22:00", to: "07:00", zone: Europe/Vienna}`},
		{head + quiet + "}}]", always},
		{head + quiet + ", days: [mon, tue, wed, thu, fri, sat, sun]}}]", always},
		{head + quiet + ", days: [sat, Sunday]}}]", `f:4: rules[0].quiet_hours.days[1]: "Sunday" is not a day: want one of mon, tue, wed, thu, fri, sat, sun`},
		{head + quiet + ", days: []}}]", "f:4: rules[0].quiet_hours.days: want a list that is not empty, for example [a, b]; or leave it out\n" + always},
	} {
		_, err := parse(t, c.text)
		if diff := cmp.Diff(c.want, fmt.Sprint(err)); diff != "" {
			t.Errorf("%s\n%s", c.text, diff)
		}
	}
}

func TestBadChannels(t *testing.T) {
	const kinds = "f:2: channels[0]: want exactly one of slack, email, webhook and log, found "
	const slack = "f:2: channels[0].slack: want webhook_url_file or webhook_url_env; or channel, and token_file or " +
		"token_env"
	const url = "f:2: channels[0].webhook.url: want a URL like https://example.com/hook, without a password in it"
	for _, c := range []struct{ channel, want string }{
		{"", kinds + "0"},
		{"log: {}, email: {to: [a@example.com], from: b@example.com}", kinds + "2"},
		{"slack: {channel: '#ops'}", slack},
		{"slack: {token_env: TOKEN}", slack},
		{"slack: {webhook_url_env: URL, channel: '#ops'}", slack},
		{"slack: {webhook_url_env: URL, token_env: TOKEN}", slack},
		{"email: {from: b@example.com}", `f:2: channels[0].email: want to, a list of addresses, and from, an address like a@example.com; found "b@example.com"`},
		{`email: {to: ["a@example.com\r\nBcc: x@example.com"], from: b@example.com}`, `f:2: channels[0].email: want to, a list of addresses, and from, an address like a@example.com; found "a@example.com\r\nBcc: x@example.com"`},
		{"webhook: {url: 'https://example.com'}", "f:2: channels[0].webhook: want exactly one of secret_file and secret_env, found 0"},
		{"webhook: {url: 'ftp://example.com', secret_env: S}", url},
		{"webhook: {url: 'https://user:pass@example.com', secret_env: S}", url},
	} {
		_, err := parse(t, "channels:\n  - {name: ops, "+c.channel+"}\nrules: [{name: a, channel: ops}]")
		if diff := cmp.Diff(c.want, fmt.Sprint(err)); diff != "" {
			t.Errorf("%s\n%s", c.channel, diff)
		}
	}
}

func TestWarnings(t *testing.T) {
	rules, err := parse(t, head+`rules:
  - name: a
    channel: ops
    events: [workspace_storage_file_deletd, "*_file_deleted", "!comment_*", "nothing_*", file.uploaded]`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`f:7: rules[0].events[0]: "workspace_storage_file_deletd" matches no event that is known: did you mean workspace_storage_file_deleted?`,
		`f:7: rules[0].events[3]: "nothing_*" matches no event that is known`,
		`f:7: rules[0].events[4]: "file.uploaded" matches no event that is known`,
	}
	if diff := cmp.Diff(want, rules.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestPreferences(t *testing.T) {
	rules, err := parse(t, head+`users:
  - {name: anna, channel: two, digest: 1h, quiet_hours: {from: "20:00", to: "06:00"}}
  - {name: ben, channel: ops, disabled: true}
rules:
  - {name: a, users: [anna, ben], digest: 5m, quiet_hours: {from: "22:00", to: "07:00"}}`)
	if err != nil {
		t.Fatal(err)
	}
	anna, ben := rules.Rules[0], rules.Rules[1]
	if anna.Name != "a-anna" || anna.Channel != "two" || anna.Digest != time.Hour || *anna.Quiet.From != 20*60 ||
		anna.Disabled {
		t.Errorf("%+v", anna)
	}
	if ben.Name != "a-ben" || ben.Digest != 5*time.Minute || *ben.Quiet.From != 22*60 || !ben.Disabled {
		t.Errorf("%+v", ben)
	}
}

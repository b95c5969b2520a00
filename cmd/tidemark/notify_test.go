package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
)

const notifyRules = `
channels:
  - {name: ops, slack: {webhook_url_file: /no/such/file}}
  - {name: screen, log: {}}
users:
  - {name: anna, channel: screen, id: usr_1, quiet_hours: {from: "22:00", to: "07:00", zone: Europe/Vienna}}
rules:
  - {name: reports, channel: ops, events: ["*_deletd", "*_deleted"], paths: ["/reports/**"], rate: 30/h}
  - {name: mine, users: [anna]}
  - {name: off, channel: ops, disabled: true}
`

const (
	deletedEvent = `{"event":"workspace_storage_file_deleted","workspace_id":"123","event_id":"evt_1","object_id":"2abc",` +
		`"path":"/reports/q3.pdf","size":12,"calling_user_id":"usr_2","created":"2026-09-25 21:40:11 UTC","topic":"x"}`
	movedNotice = `{"op_id":"123/evt_2/2abc","event":"workspace_storage_file_moved","event_id":"evt_2","workspace_id":"123",` +
		`"file_id":"2abc","version":3,"position":"7:1234","late":false,"actor_id":"usr_1","at":"2026-09-25T21:40:11Z",` +
		`"before":{"path":"/reports/q3.pdf","status":"active"},"after":{"path":"/old/q3.pdf","status":"active"}}`
	tailOf = `{"topic":"fastio-notify","partition":7,"offset":9,"timestamp":"2026-09-25T21:40:12Z","key":"123/2abc","headers":{},"value":`
)

func TestNotifyTest(t *testing.T) {
	rules, event := writeFile(t, "rules.yaml", notifyRules), writeFile(t, "event.json", deletedEvent)
	out, errs, code := tidemark(t, "notify", "test", rules, event, "--at", "2026-11-29T22:30:00Z")
	want := `reports (to ops) matches
  yes events: workspace_storage_file_deleted matches *_deleted
  yes paths: /reports/q3.pdf matches /reports/**
  sent now, at most 30 messages per 1h0m0s: more of them wait

    file deleted: /reports/q3.pdf
        size: 12 bytes
        2026-09-25 21:40:11 UTC, by usr_2
        event workspace_storage_file_deleted, evt_1
        tidemark get 123 2abc

    Workspace 123. Sent by the rule reports.

mine-anna (to screen) matches
  yes actors: usr_2 is not excluded
  held until 2026-11-30T07:00:00+01:00 (quiet_hours)

    file deleted: /reports/q3.pdf
        size: 12 bytes
        2026-09-25 23:40:11 CEST, by usr_2
        event workspace_storage_file_deleted, evt_1
        tidemark get 123 2abc

    Workspace 123. Sent by the rule mine-anna.

off (to ops) matches, but is disabled: nothing is sent

`
	if diff := cmp.Diff(want, out); diff != "" || code != exitOK {
		t.Errorf("exit %d\n%s", code, diff)
	}
	for _, part := range []string{`"*_deletd" matches no event that is known`, "This is an event, not a notice"} {
		if !strings.Contains(errs, part) {
			t.Errorf("no %q in %s", part, errs)
		}
	}
}

func TestNotifyTestExplainsLateAndDays(t *testing.T) {
	rules := writeFile(t, "rules.yaml", `
channels: [{name: screen, log: {}}]
rules:
  - name: in-time
    channel: screen
    late: false
    quiet_hours: {from: "00:00", to: "24:00", zone: Europe/Vienna, days: [sat, sun]}
  - {name: late, channel: screen, late: true}
`)
	event := writeFile(t, "event.json", movedNotice)
	for at, want := range map[string]string{ // a Saturday and a Monday
		"2026-11-28T08:00:00Z": "held until 2026-11-30T00:00:00+01:00 (quiet_hours)",
		"2026-11-30T08:00:00Z": "sent now",
	} {
		out := succeed(t, "notify", "test", rules, event, "--at", at)
		for _, part := range []string{
			"in-time (to screen) matches\n  yes late: the event is not late\n  " + want + "\n",
			"late (to screen) does not match\n  no  late: the event is not late\n",
		} {
			if !strings.Contains(out, part) {
				t.Errorf("no %q in\n%s", part, out)
			}
		}
	}
}

// A testedNotice is notify test -o json.
type testedNotice struct {
	Notice struct {
		OpID     string `json:"op_id"`
		Position string
		Cause    *struct {
			EventID string `json:"event_id"`
		}
	}
	Rules []struct {
		Rule, Subject, HTML string
		Disabled            bool
		Matches             *bool
		Reasons             []map[string]any
		SendAt              string `json:"send_at"`
	}
	Warnings []string
}

func testNotify(t *testing.T, event string, more ...string) (result testedNotice) {
	t.Helper()
	args := []string{"notify", "test", writeFile(t, "rules.yaml", notifyRules), "-o", "json"}
	if event != "" {
		args = append(args, writeFile(t, "event.json", event))
	}
	if err := json.Unmarshal([]byte(succeed(t, append(args, more...)...)), &result); err != nil {
		t.Fatal(err)
	}
	return result
}

func TestNotifyTestReads(t *testing.T) {
	line := tailOf + movedNotice + "}\n"
	for name, event := range map[string]string{"a notice": movedNotice, "a line of tail": line} {
		got := testNotify(t, event, "--at", "2026-11-29T22:30:00Z", "--notify-link", "https://example.com/{file_id}")
		reports, mine := got.Rules[0], got.Rules[1]
		if got.Notice.OpID != "123/evt_2/2abc" || got.Notice.Position != "7:1234" || len(got.Warnings) != 1 {
			t.Errorf("%s: %+v", name, got)
		}
		if *reports.Matches || len(reports.Reasons) != 2 || reports.Reasons[0]["met"] != false || reports.SendAt != "" {
			t.Errorf("%s: a move is no delete: %+v", name, reports)
		}
		if *mine.Matches || mine.Reasons[0]["pattern"] != "!usr_1" {
			t.Errorf("%s: her own change: %+v", name, mine)
		}
	}
	got := testNotify(t, tailOf+deletedEvent+"}",
		"--at", "2026-11-29T12:00:00Z", "--notify-link", "https://example.com/{file_id}")
	reports := got.Rules[0]
	if !*reports.Matches || reports.SendAt != "2026-11-29T12:00:00Z" || got.Notice.Position != "7:9" ||
		reports.Subject != "file deleted: /reports/q3.pdf (workspace 123)" || !strings.Contains(reports.HTML, `"https://example.com/2abc"`) {
		t.Errorf("an event in a line of tail: %+v", got)
	}
	derived := strings.Replace(tailOf, `"headers":{}`, `"headers":{"tidemark-cause":"7:1"}`, 1) +
		strings.Replace(deletedEvent, `"topic":"x"`, `"cause":{"event_id":"evt_0"},"inherited":{"folder_id":"2dir","stamp":1}`, 1) + "}"
	if got := testNotify(t, derived); got.Notice.Cause == nil || *got.Rules[2].Matches {
		t.Errorf("a derived event: %+v", got)
	}
	if got := testNotify(t, ""); len(got.Rules) != 3 || got.Rules[0].Matches != nil || !got.Rules[2].Disabled {
		t.Errorf("no event: %+v", got)
	}
}

func TestNotifyTestRefuses(t *testing.T) {
	rules := writeFile(t, "rules.yaml", notifyRules)
	bad := writeFile(t, "bad.yaml", "rules:\n  - {name: a, channel: b}\n  - {name: a, chanel: b}\n")
	event := writeFile(t, "event.json", deletedEvent)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{bad, event}, exitFailed, "bad.yaml:3: rules[1].chanel: unknown setting: did you mean channel?"},
		{[]string{bad}, exitFailed, `bad.yaml:2: rules[0].channel: "b" is not declared in this file`},
		{[]string{"/no/such/file"}, exitFailed, "/no/such/file"},
		{[]string{rules, "/no/such/event"}, exitFailed, "/no/such/event"},
		{[]string{rules, writeFile(t, "a", "")}, exitFailed, "want a notice or an event"},
		{[]string{rules, writeFile(t, "b", "[]")}, exitFailed, "want a notice or an event"},
		{[]string{rules, writeFile(t, "c", deletedEvent+deletedEvent)}, exitFailed, "after top-level value"},
		{[]string{rules, writeFile(t, "d", `{"event":"x"}`)}, exitFailed, "event_id"},
		{[]string{rules, writeFile(t, "e", `{"op_id":"x"}`)}, exitFailed, "a notice needs workspace_id"},
		{[]string{rules, writeFile(t, "f", tailOf+`"text"}`)}, exitFailed, "want a notice or an event"},
		{[]string{}, exitUsage, "<rules>"},
		{[]string{rules, event, "--at", "noon"}, exitUsage, "--at"},
		{[]string{rules, event, "--notify-link", "javascript:x"}, exitUsage, "--notify-link"},
	} {
		out, errs, code := tidemark(t, append([]string{"notify", "test"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%v: exit %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}

func TestNotifyTestReadsStdin(t *testing.T) {
	var out, errs bytes.Buffer
	args := []string{"notify", "test", writeFile(t, "rules.yaml", notifyRules), "-"}
	code := run(t.Context(), args, console{in: strings.NewReader(movedNotice), out: &out, err: &errs})
	if code != exitOK || !strings.Contains(out.String(), "usr_1 is excluded by !usr_1") {
		t.Errorf("exit %d\n%s%s", code, &out, &errs)
	}
}

func TestNotifyEnable(t *testing.T) {
	config := kafka.Config{Brokers: devbroker.ForTest(t)}
	streams := streamsForTest(t, config.Brokers)
	client, err := kafka.NewProducer(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for partition, state := range []string{"disabled", "failed"} {
		if err := client.ProduceSync(t.Context(), &kgo.Record{
			Topic: streams.Deliveries.Name, Partition: int32(partition), Key: []byte("erp|w/e/f"),
			Value: []byte(`{"state":"` + state + `","source_offset":5,"attempts":12}`),
		}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	enable := func(rule string) string {
		return succeed(t, "notify", "enable", rule, "--brokers", config.Brokers[0], "--topic-prefix",
			strings.TrimSuffix(streams.DLQ.Name, "-dlq"))
	}
	got := enable("other") + enable("erp") + enable("erp")
	want := "other was disabled in 0 partitions\nerp was disabled in 1 partitions\nerp was disabled in 0 partitions\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

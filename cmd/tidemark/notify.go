package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"tidemark/codecs"
	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks/notify"
	"tidemark/topology"
)

// notifyCommand groups the commands for the rules of the notify sink.
type notifyCommand struct {
	Test   notifyTestCommand   `cmd:"" help:"Check the rules, and say which match an event and why, and when and what they would send. Sends nothing."`
	Enable notifyEnableCommand `cmd:"" help:"Enable a rule that is disabled because its webhook failed for 5 days or answered 410. It goes on where it stopped, within 2 minutes."`
}

// A notifyEnableCommand enables a rule again.
type notifyEnableCommand struct {
	installationFlags
	Rule string `arg:"" help:"Name of the rule; of a rule of users: rule-user."`
}

// Run prints in how many partitions the rule was disabled.
func (c *notifyEnableCommand) Run(ctx context.Context, con console) error {
	config, streams, err := c.connect()
	if err != nil {
		return err
	}
	store, err := notify.NewDeliveries(config, streams.Deliveries.Name)
	if err != nil {
		return err
	}
	partitions, err := store.Enable(ctx, c.Rule)
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(con.out, "%s was disabled in %d partitions\n", c.Rule, partitions)
	return err
}

// A notifyTestCommand applies rules to one event.
type notifyTestCommand struct {
	outputFlags
	Rules      string    `arg:"" help:"File of rules, as for --notify-rules."`
	Event      string    `arg:"" optional:"" help:"File with a notice or an event: its JSON, or a line of tail -o json. - reads stdin. Without it only the rules are checked."`
	NotifyLink string    `help:"Link to a file in messages, with {workspace_id} and {file_id}." placeholder:"URL"`
	At         time.Time `help:"Time to assume as now: a time like 2026-01-31T23:00:00Z." placeholder:"TIME" env:"-"`
}

// A tested notice, and what each rule makes of it.
type tested struct {
	Notice   json.RawMessage `json:"notice,omitempty"`
	Rules    []testedRule    `json:"rules"`
	Warnings []string        `json:"warnings,omitempty"`
}

type testedRule struct {
	Rule      string          `json:"rule"`
	Channel   string          `json:"channel"`
	Disabled  bool            `json:"disabled"`
	Matches   *bool           `json:"matches,omitempty"` // absent without an event
	Reasons   []notify.Reason `json:"reasons,omitempty"`
	SendAt    *time.Time      `json:"send_at,omitempty"`
	DelayedBy string          `json:"delayed_by,omitempty"`
	AtMost    string          `json:"at_most,omitempty"`
	Subject   string          `json:"subject,omitempty"`
	Text      string          `json:"text,omitempty"`
	HTML      string          `json:"html,omitempty"`
}

// Run reads both files and prints what each rule would do.
func (c *notifyTestCommand) Run(con console) error {
	if c.At.IsZero() {
		c.At = time.Now()
	}
	if err := notify.CheckLink(c.NotifyLink); err != nil {
		return usageError{err}
	}
	rules, err := notify.Load(c.Rules)
	if err != nil {
		return err
	}
	var notice *tidemarkv1.Notice
	result := tested{Warnings: rules.Warnings}
	if c.Event != "" {
		if notice, err = c.read(con); err != nil {
			return err
		}
		if result.Notice, err = (codecs.Notice{}).Encode(notice); err != nil {
			return err
		}
	}
	for i := range rules.Rules {
		rule, err := c.test(&rules.Rules[i], notice)
		if err != nil {
			return err
		}
		result.Rules = append(result.Rules, rule)
	}
	for _, warning := range rules.Warnings {
		con.note("warning: %s", warning)
	}
	return c.print(con.out, result, func(lines *bytes.Buffer) {
		for _, rule := range result.Rules {
			rule.write(lines)
		}
	})
}

// test returns what a rule makes of a notice, or, if that is nil, only the rule.
func (c *notifyTestCommand) test(r *notify.Rule, notice *tidemarkv1.Notice) (testedRule, error) {
	out := testedRule{Rule: r.Name, Channel: r.Channel, Disabled: r.Disabled}
	if r.Rate.Messages > 0 {
		out.AtMost = fmt.Sprintf("%d messages per %s", r.Rate.Messages, r.Rate.Per)
	}
	if notice == nil {
		return out, nil
	}
	matches, reasons := r.Match(notice)
	out.Matches, out.Reasons = &matches, reasons
	if !matches || r.Disabled {
		return out, nil
	}
	at, delayedBy := r.When(c.At, c.At)
	out.SendAt, out.DelayedBy = &at, delayedBy
	message, err := r.Message([]*tidemarkv1.Notice{notice}, c.NotifyLink)
	if err != nil {
		return out, err
	}
	out.Subject, out.Text, out.HTML = message.Subject, message.Text, message.HTML
	return out, nil
}

// write writes the rule for people.
func (t testedRule) write(w *bytes.Buffer) {
	verdict := "valid"
	if t.Matches != nil {
		verdict = map[bool]string{true: "matches", false: "does not match"}[*t.Matches]
	}
	if t.Disabled {
		verdict += ", but is disabled: nothing is sent"
	}
	fmt.Fprintf(w, "%s (to %s) %s\n", t.Rule, cell(t.Channel), verdict)
	for _, reason := range t.Reasons {
		fmt.Fprintf(w, "  %s %s: %s\n", map[bool]string{true: "yes", false: "no "}[reason.Met], reason.Setting,
			explainReason(reason))
	}
	if t.SendAt != nil {
		when := "sent now"
		if t.DelayedBy != "" {
			when = fmt.Sprintf("held until %s (%s)", t.SendAt.Format(time.RFC3339), t.DelayedBy)
		}
		if t.AtMost != "" {
			when += ", at most " + t.AtMost + ": more of them wait"
		}
		fmt.Fprintf(w, "  %s\n\n", when)
		for line := range strings.Lines(t.Text) {
			fmt.Fprintln(w, strings.TrimRight("    "+line, " \n"))
		}
	}
	fmt.Fprintln(w)
}

func explainReason(r notify.Reason) string {
	value := cell(r.Value)
	switch {
	case r.Setting == "children":
		return "an effect of a folder's event, which has a notice of its own"
	case r.Setting == "late":
		return "the event is " + r.Value
	case r.Value == "":
		return "the notice has none"
	case strings.HasPrefix(r.Pattern, "!"):
		return value + " is excluded by " + r.Pattern
	case r.Pattern != "":
		return value + " matches " + r.Pattern
	case r.Met:
		return value + " is not excluded"
	}
	return value + " matches none of the patterns"
}

// read reads the notice, or the event.
func (c *notifyTestCommand) read(con console) (n *tidemarkv1.Notice, err error) {
	var data []byte
	if c.Event == "-" {
		data, err = io.ReadAll(con.in)
	} else {
		data, err = os.ReadFile(c.Event)
	}
	if err != nil {
		return nil, fmt.Errorf("read the event: %w", err)
	}
	notice, isEvent, err := parseNotice(data, c.At)
	if err != nil {
		return nil, fmt.Errorf("%s: want a notice or an event as JSON, or a line of tail -o json: %w", c.Event, err)
	}
	if isEvent {
		con.note("This is an event, not a notice, so what its file was before is not known. " +
			"For notices see: tidemark tail notify -o json")
	}
	return notice, nil
}

// parseNotice reads a notice, or makes one of an event. Either may be in a line of tail.
func parseNotice(data []byte, now time.Time) (n *tidemarkv1.Notice, isEvent bool, err error) {
	var members struct{ Topic, Offset, Value json.RawMessage }
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, false, err
	}
	var line record
	if members.Topic != nil && members.Offset != nil && members.Value != nil {
		if err := json.Unmarshal(data, &line); err != nil {
			return nil, false, err
		}
		data = line.Value
	}
	var notice struct {
		OpID json.RawMessage `json:"op_id"`
	}
	if err := json.Unmarshal(data, &notice); err != nil {
		return nil, false, err
	}
	if notice.OpID != nil {
		decoded, err := codecs.Notice{}.Decode(data)
		n, _ = decoded.(*tidemarkv1.Notice)
		return n, false, err
	}
	at := &tidemarkv1.Position{Partition: line.Partition, Offset: line.Offset}
	n, err = noticeOfEvent(data, line.Headers[topology.HeaderCause] != "", at, now)
	return n, true, err
}

// noticeOfEvent returns the notice that an event would give if it were the first of its file.
func noticeOfEvent(value []byte, derived bool, at *tidemarkv1.Position, now time.Time) (*tidemarkv1.Notice, error) {
	e, err := codecs.ParseEvent(value)
	if err != nil {
		return nil, err
	}
	e.RecordedAt = now.UnixMicro()
	if derived {
		if e.Cause, err = codecs.ParseCause(value, e); err != nil {
			return nil, err
		}
	}
	var after *tidemarkv1.FileState
	if file.Touches(e) {
		after, _, _ = file.Apply(nil, e, at, "")
	}
	return file.NoticeOf(nil, after, e, at, false), nil
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tidemark/codecs"
	"tidemark/why"
)

// A whyCommand lists the events of a file.
type whyCommand struct {
	installationFlags
	outputFlags
	Workspace string `arg:"" help:"Workspace of the file." name:"ws"`
	File      string `arg:"" help:"Id of the file."`
	Since     string `help:"Only events written since then: a time like 2026-01-31T09:00:00Z, a day, or how long ago, like 36h. All by default." default:"" placeholder:"TIME" env:"-"`
}

// errUnknownFile is returned when no topic has the file; the offsets that were read are printed before.
var errUnknownFile = errors.New("no event, dead letter or row of this file was found")

// Run reads the topics, prints each event with its verdict, and then the row.
func (c *whyCommand) Run(ctx context.Context, con console) error {
	if c.Workspace == "" || c.File == "" {
		return usagef("the ids of the workspace and of the file must not be empty")
	}
	since, err := parseSince(c.Since, time.Now())
	if err != nil {
		return err
	}
	config, streams, err := c.connect()
	if err != nil {
		return err
	}
	out := &eventPrinter{form: c.Output, w: bufio.NewWriter(con.out)}
	found, err := why.Follow(ctx, why.Search{
		Kafka: config, Streams: streams, WorkspaceID: c.Workspace, FileID: c.File, Since: since,
		Progress: func(topic string, done, total int64) {
			con.note("reading %s: %d of %d offsets, %d %%", topic, done, total, 100*done/max(total, 1))
		},
	}, out.event)
	if err != nil {
		return errors.Join(err, out.w.Flush())
	}
	if found.Events == 0 && found.Row == nil {
		con.note("Searched for file %s of workspace %s in:", cell(c.File), cell(c.Workspace))
		for _, span := range found.Read {
			con.note("  %s", span)
		}
		return errUnknownFile
	}
	if err := out.finding(found); err != nil {
		return err
	}
	if found.Agreement == why.Disagrees {
		return errors.New(found.Why)
	}
	return nil
}

// An eventPrinter prints the events of a file and its row: in JSON one object a line, in YAML one document each.
type eventPrinter struct {
	form  string
	w     *bufio.Writer
	table bytes.Buffer // of the events, aligned at the end
}

func (p *eventPrinter) event(e why.Event) error {
	if p.form != asTable {
		return p.object(struct {
			Kind string `json:"kind"`
			why.Event
		}{"event", e})
	}
	if p.table.Len() == 0 {
		fmt.Fprintln(&p.table, "POSITION\tEVENT ID\tEVENT\tSENT\tRECEIVED\tVERDICT\tVERSION\tDETAIL")
	}
	sent, version, verdict := "-", "-", string(e.Verdict)
	if e.SentAt != nil {
		sent = e.SentAt.Format(time.RFC3339Nano)
	}
	if e.Version != nil {
		version = strconv.FormatInt(*e.Version, 10)
	}
	if e.Reason != "" {
		verdict += ": " + cell(e.Reason)
	}
	details := []string{e.Detail}
	if len(e.Unreadable) > 0 {
		details = append(details, "could not be read: "+strings.Join(e.Unreadable, ", "))
	}
	if e.SentEvent != "" {
		details = append(details, "sent as "+e.SentEvent)
	}
	detail := strings.TrimPrefix(strings.Join(details, "; "), "; ")
	_, err := fmt.Fprintf(&p.table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
		e.Position, dash(e.EventID), dash(e.Event), sent,
		e.ReceivedAt.Format(time.RFC3339Nano), verdict, version, dash(detail))
	return err
}

func (p *eventPrinter) finding(f why.Finding) error {
	var row json.RawMessage
	if f.Row != nil {
		row = codecs.AppendFile(nil, f.Row)
	}
	if p.form != asTable {
		err := p.object(struct {
			Kind      string          `json:"kind"`
			Row       json.RawMessage `json:"row"` // null if there is none
			Agreement why.Agreement   `json:"agrees"`
			Why       string          `json:"detail"`
			Commit    int64           `json:"committed"`
			Read      []why.Span      `json:"looked_at"`
		}{"row", row, f.Agreement, f.Why, f.Commit, f.Read})
		return errors.Join(err, p.w.Flush())
	}
	if err := align(p.w, &p.table); err != nil {
		return err
	}
	text := "\nThe table has no row of this file.\n"
	if row != nil {
		text = "\n"
	}
	if _, err := io.WriteString(p.w, text); err != nil {
		return err
	}
	if row != nil {
		if err := (outputFlags{Output: asTable}).printObject(p.w, row); err != nil {
			return err
		}
	}
	agrees := map[why.Agreement]string{
		why.Agrees: "Agrees with the notices", why.Disagrees: "DISAGREES with the notices",
		why.Unknown: "Not compared with the notices",
	}
	_, err := fmt.Fprintf(p.w, "\n%s: %s.\n", agrees[f.Agreement], cell(f.Why))
	return errors.Join(err, p.w.Flush())
}

func (p *eventPrinter) object(v any) error {
	if err := printOne(p.w, p.form, v); err != nil {
		return err
	}
	return p.w.Flush() // each event is shown at once
}

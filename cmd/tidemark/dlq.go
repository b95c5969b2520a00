package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/telemetry"
)

// dlqCommand groups the commands for dead letters.
type dlqCommand struct {
	List   dlqListCommand   `cmd:"" help:"List dead letters, by reason or one by one."`
	Show   dlqShowCommand   `cmd:"" help:"Show one dead letter with its headers and value."`
	Replay dlqReplayCommand `cmd:"" help:"Put dead letters back into the topic or sink where they failed. Without --yes, only say what would be done."`
	Drop   dlqDropCommand   `cmd:"" help:"Mark dead letters as dropped: they are not listed or replayed any more. Asks first."`
}

// deadFlags select the installation whose dead letters are meant.
type deadFlags struct {
	installationFlags
	outputFlags
}

func (f deadFlags) queue() (*deadletters.Queue, error) {
	config, streams, err := f.connect()
	if err != nil {
		return nil, err
	}
	return deadletters.New(config, streams), nil
}

// filterFlags select dead letters.
type filterFlags struct {
	Reason    givenList `help:"Only those with this reason, or one of several separated by commas." placeholder:"REASON" env:"-"`
	Sink      givenList `help:"Only those that this sink's destination rejected, or one of several separated by commas." placeholder:"NAME" env:"-"`
	Workspace given     `help:"Only those of this workspace." placeholder:"WS" env:"-"`
	EventID   given     `help:"Only those of this event." name:"event-id" placeholder:"ID" env:"-"`
	Since     given     `help:"Only those that failed since then: a time like 2026-11-24T12:00:00Z, a day, or how long ago, like 2h." placeholder:"TIME" env:"-"`
	Entries   []string  `arg:"" optional:"" help:"Only these: positions of source records, like 7:1234, or as list prints them." name:"entry"`
}

// A selection is a queue, and the filter of one command.
type selection struct {
	deadFlags
	filterFlags
}

func (f selection) open() (q *deadletters.Queue, filter deadletters.Filter, err error) {
	if q, err = f.queue(); err != nil {
		return nil, filter, err
	}
	filter = deadletters.Filter{
		Reasons: f.Reason, Sinks: f.Sink, WorkspaceID: string(f.Workspace), EventID: string(f.EventID),
	}
	for _, text := range f.Entries {
		source, err := deadletters.ParseSource(text, q.Events())
		if err != nil {
			return nil, filter, usageError{err}
		}
		filter.Sources = append(filter.Sources, source)
	}
	filter.Since, err = parseSince(string(f.Since), time.Now())
	return q, filter, err
}

// A dlqListCommand lists dead letters.
type dlqListCommand struct {
	selection
	Each     bool `help:"List one by one, not by reason. json and yaml always do." env:"-"`
	Resolved bool `help:"Also those that were replayed or dropped." env:"-"`
}

// Run prints a table by reason, or each record as JSON or YAML.
func (c *dlqListCommand) Run(ctx context.Context, con console) error {
	queue, filter, err := c.open()
	if err != nil {
		return err
	}
	filter.All = c.Resolved
	entries, err := queue.Entries(ctx, filter)
	if err != nil {
		return err
	}
	if c.Output != asTable {
		return queue.Records(ctx, entries, func(e *deadletters.Entry, r *kgo.Record) error {
			return c.printEntry(con.out, e, r)
		})
	}
	if len(entries) == 0 {
		_, err := fmt.Fprintln(con.out, "There are no dead letters that match.")
		return err
	}
	if c.Each {
		return printEach(con.out, entries)
	}
	return c.print(con.out, nil, func(table *bytes.Buffer) {
		fmt.Fprintln(table, "REASON\tENTRIES\tRECORDS\tFIRST\tLAST\tEXAMPLE\tWHAT TO FIX")
		for _, g := range deadletters.Groups(entries) {
			fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%s\t%s\n", reasonOf(g.Reason, g.Sink), g.Entries, g.Records,
				clock(g.First), clock(g.Last), g.Example.ID, dash(g.Example.Message))
		}
	})
}

// reasonOf names the sink beside the reason.
func reasonOf(reason, sink string) string {
	if sink == "" {
		return dash(reason)
	}
	return dash(reason + " (" + sink + ")")
}

func printEach(w io.Writer, entries []*deadletters.Entry) error {
	var table bytes.Buffer
	fmt.Fprintln(&table, "ENTRY\tREASON\tFAILED\tTIMES\tWORKSPACE\tEVENT ID\tRESOLVED\tWHAT TO FIX")
	for _, e := range entries {
		resolved := e.Resolved
		if e.ReplayedTo != "" {
			resolved += " to " + e.ReplayedTo
		}
		fmt.Fprintf(&table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			e.ID, reasonOf(e.Reason, e.Sink), clock(e.First), e.Times,
			dash(e.WorkspaceID), dash(e.EventID), dash(resolved), dash(e.Message))
	}
	return align(w, &table)
}

// A deadRecord is the record of a dead letter as tail shows it, and its entry.
type deadRecord struct {
	record
	Entry *deadletters.Entry `json:"entry"`
}

func (f outputFlags) printEntry(w io.Writer, e *deadletters.Entry, r *kgo.Record) error {
	return printOne(w, f.Output, deadRecord{newRecord(r), e})
}

// A dlqShowCommand shows one dead letter.
type dlqShowCommand struct {
	deadFlags
	Entry string `arg:"" help:"The entry as list prints it: the position of its source record, like 7:1234 in the events topic."`
}

// Run prints the entry, its headers and its value.
func (c *dlqShowCommand) Run(ctx context.Context, con console) error {
	queue, err := c.queue()
	if err != nil {
		return err
	}
	source, err := deadletters.ParseSource(c.Entry, queue.Events())
	if err != nil {
		return usageError{err}
	}
	entry, r, err := queue.Find(ctx, source)
	if err != nil {
		return err
	}
	if c.Output != asTable {
		return c.printEntry(con.out, entry, r)
	}
	var table, value bytes.Buffer
	line := func(name, text string) { fmt.Fprintf(&table, "%s\t%s\n", name, dash(text)) }
	line("Entry", entry.ID)
	line("Reason", entry.Reason)
	line("What to fix", entry.Message)
	if entry.Sink != "" {
		line("Sink", entry.Sink)
		line("Answer", entry.Answer)
	}
	line("Workspace", entry.WorkspaceID)
	line("Event id", entry.EventID)
	line("Failed", fmt.Sprintf("%d time(s), first %s, last %s", entry.Times, clock(entry.First), clock(entry.Last)))
	line("Resolved", strings.TrimSuffix(entry.Resolved+" to "+entry.ReplayedTo, " to "))
	line("Stored at", entry.DLQPosition+" in "+r.Topic)
	line("Key", string(r.Key))
	for _, h := range r.Headers {
		line("Header", h.Key+": "+string(h.Value))
	}
	if err := align(con.out, &table); err != nil {
		return err
	}
	switch {
	case entry.ValueOmitted > 0:
		fmt.Fprintf(&value, "The value of %d bytes was too large to keep: the source record is at %s until it expires.",
			entry.ValueOmitted, entry.Place())
	case json.Indent(&value, r.Value, "", "  ") != nil: // not JSON: quoted, so that it is safe for a terminal
		value.Reset()
		fmt.Fprintf(&value, "%d bytes: %q", len(r.Value), r.Value)
	}
	_, err = fmt.Fprintf(con.out, "\n%s\n", value.Bytes())
	return err
}

// A dlqReplayCommand replays dead letters.
type dlqReplayCommand struct {
	selection
	Yes   bool    `help:"Replay them." env:"-"`
	Rate  float64 `help:"Records per second; 0 for no limit." default:"0" placeholder:"N" env:"-"`
	Force bool    `help:"Also those that are still invalid and will be dead-lettered again." env:"-"`
}

// Run replays, or prints what would be replayed.
func (c *dlqReplayCommand) Run(ctx context.Context, con console) error {
	if err := checkRate("--rate", c.Rate); err != nil {
		return err
	}
	queue, filter, err := c.open()
	if err != nil {
		return err
	}
	options := deadletters.Options{Yes: c.Yes, Rate: c.Rate, Force: c.Force}
	bar := newBar(con.err)
	if c.Yes {
		options.Report = bar.show
	}
	result, err := queue.Replay(ctx, filter, options)
	bar.end()
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: run it again with the same flags to continue")
	}
	return c.report(con, result, err, len(c.Entries) > 0, "replayed", "replay")
}

// A dlqDropCommand discards dead letters.
type dlqDropCommand struct {
	selection
	Yes bool `help:"Do not ask for confirmation." env:"-"`
}

// Run drops after a confirmation.
func (c *dlqDropCommand) Run(ctx context.Context, con console) error {
	if !c.Yes && !telemetry.IsTerminal(con.in) {
		return usagef("there is no terminal to ask for confirmation: give --yes")
	}
	queue, filter, err := c.open()
	if err != nil {
		return err
	}
	if !c.Yes {
		entries, err := queue.Entries(ctx, filter)
		if err != nil {
			return err
		}
		switch named := len(filter.Sources) > 0; {
		case len(entries) > 0:
			con.note("Drop %d dead letters? They will not be listed or replayed any more. [y/N]", len(entries))
			if !agreed(con.in) {
				return fmt.Errorf("dropped nothing")
			}
			if !named { // not those that arrived after the question was asked
				for _, e := range entries {
					filter.Sources = append(filter.Sources, e.Source)
				}
			}
		case !named:
			con.note("There is nothing to drop.")
			return nil
		}
	}
	result, err := queue.Drop(ctx, filter, deadletters.Options{Yes: true})
	return c.report(con, result, err, len(c.Entries) > 0, "dropped", "drop")
}

// agreed reads one line.
func agreed(in io.Reader) bool {
	answer, _ := bufio.NewReader(in).ReadString('\n') // an error leaves no answer
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

// report prints the result, also that of a run that failed.
func (f outputFlags) report(
	con console, result *deadletters.Result, err error, named bool, done, do string,
) error {
	if result == nil {
		return err
	}
	err = errors.Join(err, result.Err())
	if named && !result.DryRun && result.Skipped > 0 {
		err = errors.Join(err,
			fmt.Errorf("%d %s, %d of the entries named were skipped", result.Done, done, result.Skipped))
	}
	if f.Output != asTable {
		if printed := f.print(con.out, result, nil); err == nil {
			err = printed
		}
		return err
	}
	var table bytes.Buffer
	if len(result.Tallies) > 0 {
		if fmt.Fprint(&table, "REASON\t"); result.DryRun {
			fmt.Fprint(&table, "TO ")
			done = do
		}
		fmt.Fprintf(&table, "%s\tSKIPPED\tWHY\n", strings.ToUpper(done))
		for _, t := range result.Tallies {
			why := t.Why
			if t.Skipped > 0 {
				why = t.Example.ID + ": " + why
			}
			fmt.Fprintf(&table, "%s\t%d\t%d\t%s\n", reasonOf(t.Reason, t.Sink), t.Done, t.Skipped, dash(why))
		}
	}
	if printed := align(con.out, &table); err == nil {
		err = printed
	}
	for _, e := range result.Already {
		con.note("%s was already %s.", e.ID, e.Resolved)
	}
	switch {
	case result.DryRun && result.Done > 0:
		con.note("Nothing was done: --yes would %s %d of %d.", do, result.Done, result.Done+result.Skipped)
	case result.DryRun:
		con.note("There is nothing to %s.", do)
	case named && result.Skipped > 0: // the error says it
	default:
		con.note("%d %s, %d skipped.", result.Done, done, result.Skipped)
	}
	return err
}

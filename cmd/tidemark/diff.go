package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tidemark/diff"
)

// A diffCommand compares the tables of two groups.
type diffCommand struct {
	installationFlags
	outputFlags
	A         string   `arg:"" help:"Group whose table to compare, with or without the prefix: files, or the --group of a replay." name:"group"`
	B         string   `arg:"" help:"Group to compare it with." name:"other"`
	Workspace given    `help:"Only the rows of this workspace." placeholder:"WS" env:"-"`
	Ignore    []string `help:"Fields that may differ; none to compare all. The default ones differ when the events topic was recreated or a rebuild did not begin with the first event." default:"log_id,seen" placeholder:"FIELD" env:"-"`
}

// Run prints the rows that differ. It fails if there is one, or if nothing could be compared.
func (c *diffCommand) Run(ctx context.Context, con console) error {
	config, streams, err := c.connect()
	if err != nil {
		return err
	}
	a, err := diff.TableOf(streams, c.A)
	if err != nil {
		return usageError{err}
	}
	b, err := diff.TableOf(streams, c.B)
	if err != nil {
		return usageError{err}
	}
	ignore := c.Ignore
	if len(ignore) == 1 && ignore[0] == "none" {
		ignore = nil
	}
	compare := &diff.Comparison{Kafka: config, A: a, B: b, Ignore: ignore, WorkspaceID: string(c.Workspace)}
	out := bufio.NewWriter(con.out)
	summary, err := compare.Run(ctx, func(d diff.Difference) error { return c.printDifference(out, d, a, b) })
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	if errors.Is(err, diff.ErrField) {
		return usagef("--ignore: %w", err)
	}
	if err != nil {
		return err
	}
	con.note("%d rows are equal, %d differ, %d were not compared because one group has read further.",
		summary.Equal, summary.Different, summary.NotCompared)
	for _, behind := range []struct {
		group string
		rows  int
	}{{a.Group, summary.BehindA}, {b.Group, summary.BehindB}} {
		if behind.rows > 0 {
			con.note("%s has not read the events of %d of those: let it catch up (or run the replay again) and repeat.",
				behind.group, behind.rows)
		}
	}
	switch {
	case summary.Different > 0:
		return fmt.Errorf("%s and %s differ", a.Topic, b.Topic)
	case summary.Equal == 0 && summary.NotCompared > 0:
		return fmt.Errorf("no row could be compared: let both groups read up to the same offsets first")
	case summary.Equal == 0:
		return fmt.Errorf("no row could be compared: neither table has one%s", ofWorkspace(c.Workspace))
	}
	return nil
}

func ofWorkspace(workspace given) string {
	if workspace == "" {
		return ""
	}
	return " of workspace " + cell(string(workspace))
}

// printDifference prints a JSON or YAML object, or a line for each field.
func (c *diffCommand) printDifference(out *bufio.Writer, d diff.Difference, a, b diff.Table) error {
	if c.Output != asTable {
		return printOne(out, c.Output, d)
	}
	if d.OnlyIn != "" {
		_, err := fmt.Fprintf(out, "%s  only in %s\n", cell(d.Key), d.OnlyIn)
		return err
	}
	var lines strings.Builder
	fmt.Fprintf(&lines, "%s\n", cell(d.Key))
	for _, f := range d.Fields {
		fmt.Fprintf(&lines, "  %s: %s in %s, %s in %s\n", f.Name, shown(f.A), a.Group, shown(f.B), b.Group)
	}
	_, err := out.WriteString(lines.String())
	return err
}

// shown returns the value of a field for a table.
func shown(v any) string {
	if v == nil {
		return "absent"
	}
	text, err := json.Marshal(v)
	if err != nil { // cannot happen: strings, numbers, and lists of them
		return fmt.Sprint(v)
	}
	return cell(string(text))
}

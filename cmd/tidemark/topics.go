package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tidemark/kafka"
	"tidemark/repartition"
	"tidemark/topology"
)

// topicsCommand groups the commands that prepare a cluster.
type topicsCommand struct {
	Plan  topicsPlanCommand  `cmd:"" help:"Show how the cluster's topics differ from what tidemark needs."`
	Apply topicsApplyCommand `cmd:"" help:"Create the topics that are missing. Existing ones are never altered."`
	Acls  topicsAclsCommand  `cmd:"" help:"Show the ACLs that each role needs."`

	Repartition topicsRepartitionCommand `cmd:"" help:"Copy all topics under another prefix, with another number of partitions."`
}

// A topicsPlanCommand compares the topics with what tidemark needs.
type topicsPlanCommand struct {
	sizedFlags
	outputFlags
}

// Run prints the differences.
func (c *topicsPlanCommand) Run(ctx context.Context, con console) error {
	config, streams, err := c.connect()
	if err != nil {
		return err
	}
	plan, err := kafka.PlanTopics(ctx, config, streams.Topics())
	if err != nil {
		return err
	}
	if c.Output == asTable && len(plan) == 0 {
		return nothingToDo(con.out)
	}
	return c.printChanges(con.out, plan)
}

// A topicsApplyCommand creates missing topics.
type topicsApplyCommand struct {
	sizedFlags
	outputFlags
}

// Run prints what was created. A topic that exists and differs is an error.
func (c *topicsApplyCommand) Run(ctx context.Context, con console) error {
	config, streams, err := c.connect()
	if err != nil {
		return err
	}
	created, err := kafka.ApplyTopics(ctx, config, streams.Topics())
	if len(created) == 0 && err == nil && c.Output == asTable {
		return nothingToDo(con.out)
	}
	if len(created) > 0 || err == nil { // also those created before one failed
		err = errors.Join(err, c.printChanges(con.out, created))
	}
	return err
}

func nothingToDo(w io.Writer) error {
	_, err := fmt.Fprintln(w, "Nothing to do: every topic exists with the expected settings.")
	return err
}

func (f outputFlags) printChanges(w io.Writer, changes []kafka.Change) error {
	type row struct {
		Action  string `json:"action"` // create, mend (by the operator: no command alters a topic) or allow
		Topic   string `json:"topic"`
		Setting string `json:"setting,omitempty"`
		Found   string `json:"found,omitempty"`
		Wanted  string `json:"wanted"`
	}
	rows := make([]row, 0, len(changes))
	for _, c := range changes {
		action := "mend"
		switch {
		case c.Create:
			action = "create"
		case !c.Blocking():
			action = "allow"
		}
		rows = append(rows, row{action, c.Topic, c.Setting, c.Found, c.Wanted})
	}
	return f.print(w, rows, func(table *bytes.Buffer) {
		fmt.Fprintln(table, "ACTION\tTOPIC\tSETTING\tFOUND\tWANTED")
		for _, r := range rows {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Action, r.Topic, dash(r.Setting), dash(r.Found), r.Wanted)
		}
	})
}

// A topicsRepartitionCommand copies an installation under another prefix. It changes nothing under the old one.
type topicsRepartitionCommand struct {
	installationFlags
	outputFlags
	To     int    `help:"Number of partitions of every new topic." required:"" placeholder:"N" env:"-"`
	Prefix string `help:"Prefix of the new topics and groups." required:"" placeholder:"NEW" env:"-"`
}

// Run copies, compares, and prints a summary. After an interruption it continues when it is started again.
func (c *topicsRepartitionCommand) Run(ctx context.Context, con console) error {
	config, from, err := c.connect()
	if err != nil {
		return err
	}
	if c.Prefix == c.TopicPrefix {
		return usagef("--prefix %s is the prefix of the topics to copy: want another one", c.Prefix)
	}
	if _, err := topology.New(c.Prefix, topology.Sizing{Partitions: c.To, Replication: 1, MinISR: 1}); err != nil {
		return usageError{err}
	}
	size, err := kafka.SizingOf(ctx, config, from.Events.Name)
	if err != nil {
		return err
	}
	size.Partitions = c.To
	to, err := topology.New(c.Prefix, size)
	if err != nil {
		return err
	}
	move := &repartition.Move{Kafka: config, From: from, To: to, Report: reportStages(con)}
	summary, err := move.Run(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: run it again with the same flags to continue")
	}
	if errors.Is(err, repartition.ErrDiffer) {
		for _, d := range summary.Different {
			con.note("%s differs: %s", cell(d.Key), shown(d))
		}
	}
	if err != nil {
		return err
	}
	if err := c.printMove(con.out, summary); err != nil {
		return err
	}
	con.note("Now start the roles with --topic-prefix %s --partitions %d.", c.Prefix, c.To)
	return nil
}

// reportStages prints each stage, and its progress every five seconds.
func reportStages(con console) func(repartition.Stage, int64) {
	var last repartition.Stage
	printed := time.Now()
	return func(stage repartition.Stage, records int64) {
		if stage != last || time.Since(printed) >= lineEvery {
			con.note("%s: record %d", stage, records)
			last, printed = stage, time.Now()
		}
	}
}

func (f outputFlags) printMove(w io.Writer, s *repartition.Summary) error {
	return f.print(w, s, func(table *bytes.Buffer) {
		fmt.Fprintln(table, "WHAT\tCOPIED\tNOTE")
		fmt.Fprintf(table, "events\t%d\t%d of them are still to be folded\n", s.Events, s.Unfolded)
		fmt.Fprintf(table, "dead letters\t%d\tthose that were open\n", s.DeadLetters)
		fmt.Fprintf(table, "notices\t%d\tthose that were not counted\n", s.Notices)
		fmt.Fprintf(table, "files\t%d\tall equal\n", s.Files.Equal)
		fmt.Fprintf(table, "workspaces\t%d\tall equal\n", s.Workspaces.Equal)
		if s.Retries > 0 {
			fmt.Fprintf(table, "replayed dead letters\t%d\tthose that their sinks had not read\n", s.Retries)
		}
		if s.Predictions > 0 {
			fmt.Fprintf(table, "predictions\t%d\tthe newest of each file and rule\n", s.Predictions)
		}
		for _, g := range s.Sinks {
			begins := "it begins at the end of what was copied"
			if g.Begins == repartition.AtStart {
				begins = "it begins at the start, and reads once more what was copied"
			}
			fmt.Fprintf(table, "group %s\t-\t%s\n", g.Group, begins)
		}
		if s.Misplaced > 0 {
			fmt.Fprintf(table, "rows skipped\t%d\tin a wrong partition for their key: views ignore them\n", s.Misplaced)
		}
	})
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"tidemark/kafka"
)

// topicsCommand groups what is done to the cluster before the roles run on it.
type topicsCommand struct {
	Plan  topicsPlanCommand  `cmd:"" help:"Show how the cluster's topics differ from what tidemark needs."`
	Apply topicsApplyCommand `cmd:"" help:"Create the topics that are missing. Existing ones are never altered."`
	Acls  topicsAclsCommand  `cmd:"" help:"Show the ACLs that each role needs."`
}

// A topicsPlanCommand compares and changes nothing.
type topicsPlanCommand struct {
	clusterFlags
	sizingFlags
	outputFlags
}

// Run prints the differences.
func (c *topicsPlanCommand) Run(ctx context.Context, con console) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	streams, err := c.streams()
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

// A topicsApplyCommand creates what is missing.
type topicsApplyCommand struct {
	clusterFlags
	sizingFlags
	outputFlags
}

// Run prints what was created. A topic that exists and differs is an error.
func (c *topicsApplyCommand) Run(ctx context.Context, con console) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	streams, err := c.streams()
	if err != nil {
		return err
	}
	created, err := kafka.ApplyTopics(ctx, config, streams.Topics())
	if len(created) == 0 && err == nil && c.Output == asTable {
		return nothingToDo(con.out)
	}
	if len(created) > 0 || err == nil { // also those made before another could not be
		err = errors.Join(err, c.printChanges(con.out, created))
	}
	return err
}

func nothingToDo(w io.Writer) error {
	_, err := fmt.Fprintln(w, "Nothing to do: every topic is there as it must be.")
	return err
}

func (f outputFlags) printChanges(w io.Writer, changes []kafka.Change) error {
	type row struct {
		Action  string `json:"action"` // create; mend, which no command does; or allow
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
		case !c.Refused():
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

// A topicsAclsCommand shows the ACLs of every role.
type topicsAclsCommand struct {
	prefixFlags
	Output    string `help:"Form of the result: table, json, yaml, or commands for Kafka's own kafka-acls." short:"o" enum:"table,json,yaml,commands" default:"table" placeholder:"FORM" env:"-"`
	Principal string `help:"Principal of a role; {role} stands for its name." default:"User:tidemark-{role}" env:"-"`
	Bootstrap string `help:"Broker address that the commands name." default:"localhost:9092" env:"-"`
}

// Run prints the ACLs: as a table with the commands below it, or in one of the forms alone.
func (c *topicsAclsCommand) Run(con console) error {
	streams, err := c.names()
	if err != nil {
		return err
	}
	acls := aclsOf(streams)
	for i := range acls {
		acls[i].Principal = strings.ReplaceAll(c.Principal, "{role}", acls[i].Role)
	}
	if c.Output != "commands" {
		err := outputFlags{Output: c.Output}.print(con.out, acls, func(table *bytes.Buffer) {
			fmt.Fprintln(table, "ROLE\tPRINCIPAL\tRESOURCE\tNAME\tOPERATIONS")
			for _, a := range acls {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", a.Role, a.Principal, a.Resource, a.Name, strings.Join(a.Operations, ", "))
			}
		})
		if err != nil || c.Output != asTable {
			return err
		}
	}
	var commands bytes.Buffer
	if c.Output == asTable {
		fmt.Fprintln(&commands)
	}
	for _, a := range acls {
		fmt.Fprintln(&commands, a.command(c.Bootstrap))
	}
	_, err = con.out.Write(commands.Bytes())
	return err
}

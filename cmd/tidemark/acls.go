package main

import (
	"bytes"
	"fmt"
	"strings"

	"tidemark/topology"
)

// A topicsAclsCommand shows the ACLs of every role.
type topicsAclsCommand struct {
	prefixFlags
	Output    string `help:"Format of the result: table, json, yaml, or commands for kafka-acls." short:"o" enum:"table,json,yaml,commands" default:"table" placeholder:"FORM" env:"-"`
	Principal string `help:"Principal of a role; {role} is replaced by its name." default:"User:tidemark-{role}" env:"-"`
	Bootstrap string `help:"Broker address in the commands." default:"localhost:9092" env:"-"`
}

// Run prints the ACLs: as a table with the commands below it, or in one format alone.
func (c *topicsAclsCommand) Run(con console) error {
	streams, err := c.names()
	if err != nil {
		return err
	}
	acls := aclsOf(streams.Roles(), c.Principal)
	if c.Output != "commands" {
		err := outputFlags{Output: c.Output}.print(con.out, acls, func(table *bytes.Buffer) {
			fmt.Fprintln(table, "ROLE\tPRINCIPAL\tRESOURCE\tNAME\tOPERATIONS")
			for _, a := range acls {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", a.Role, a.Principal, a.Resource, a.Name,
					strings.Join(a.Operations, ", "))
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

// An acl is an ACL of a role as it is printed.
type acl struct {
	Role       string   `json:"role"`
	Principal  string   `json:"principal"`
	Resource   string   `json:"resource"`
	Name       string   `json:"name"`
	Pattern    string   `json:"pattern,omitempty"` // prefixed, else literal
	Operations []string `json:"operations"`
}

// aclsOf lists the ACLs of roles.
func aclsOf(roles []topology.Role, principal string) (acls []acl) {
	for _, role := range roles {
		for _, a := range role.ACLs() {
			pattern := ""
			if a.Prefixed {
				pattern = "prefixed"
			}
			acls = append(acls, acl{
				Role: role.Name, Principal: strings.ReplaceAll(principal, "{role}", role.Name),
				Resource: a.Resource, Name: a.Name, Pattern: pattern, Operations: a.Operations,
			})
		}
	}
	return acls
}

// command returns the command line that grants the ACL with kafka-acls.
func (a acl) command(bootstrap string) string {
	parts := []string{
		"kafka-acls.sh --bootstrap-server", shellWord(bootstrap), "--add --allow-principal",
		shellWord(a.Principal),
	}
	for _, operation := range a.Operations {
		parts = append(parts, "--operation", operation)
	}
	parts = append(parts, "--"+a.Resource, shellWord(a.Name))
	if a.Pattern != "" {
		parts = append(parts, "--resource-pattern-type", a.Pattern)
	}
	return strings.Join(parts, " ")
}

// shellWord quotes s for a shell if that is necessary.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
			strings.ContainsRune("-_.:/@%+=,", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

package main

import (
	"strings"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/topology"
)

// An acl is what one role must be allowed to do with one resource.
type acl struct {
	Role       string   `json:"role"`
	Principal  string   `json:"principal"`
	Resource   string   `json:"resource"` // topic, group or transactional-id
	Name       string   `json:"name"`
	Pattern    string   `json:"pattern,omitempty"` // prefixed: of every name that begins so; else literal
	Operations []string `json:"operations"`
}

// The roles that ACLs are for: the commands of that name, whoever runs dlq, replay, diff, why and doctor, or asks process
// for dead letters, and whoever runs topics plan and apply.
const (
	ingestRole  = "ingest"
	processRole = "process"
	serveRole   = "serve"
	operateRole = "operate"
	topicsRole  = "topics"
)

// aclsOf lists the ACLs by role, in the order an event travels. Every role also reads the settings of the topics it uses,
// because it refuses to start on wrong ones. Read and Write imply Describe.
func aclsOf(s topology.Streams) []acl {
	const read, write, describe, configs, create = "Read", "Write", "Describe", "DescribeConfigs", "Create"
	var acls []acl
	topic := func(role string, t topology.Topic, operations ...string) {
		acls = append(acls, acl{Role: role, Resource: "topic", Name: t.Name, Operations: append(operations, configs)})
	}
	group := func(role, name string, operations ...string) {
		acls = append(acls, acl{Role: role, Resource: "group", Name: name, Operations: operations})
	}

	// With --guarantee exactly_once an instance writes under its group's name, a dash and its own.
	transactions := func(role, group string) {
		acls = append(acls, acl{Role: role, Resource: "transactional-id", Name: epochs.TransactionalID(group, ""), Pattern: "prefixed", Operations: []string{write}})
	}

	topic(ingestRole, s.Events, write)

	topic(processRole, s.Events, read, write) // written for the entries of folders
	topic(processRole, s.Files, read, write)
	topic(processRole, s.Index, read, write)
	topic(processRole, s.Notify, read, write)
	topic(processRole, s.DLQ, write)
	topic(processRole, s.Workspaces, read, write)
	group(processRole, s.FilesGroup, read)
	group(processRole, s.WorkspacesGroup, read)
	transactions(processRole, s.FilesGroup)
	transactions(processRole, s.WorkspacesGroup)

	topic(serveRole, s.Events, read)
	topic(serveRole, s.Files, read)
	topic(serveRole, s.Notify, read) // of its last records only: where they end
	topic(serveRole, s.DLQ, read)    // to count those that are open
	topic(serveRole, s.Workspaces, read)
	group(serveRole, s.FilesGroup, describe)
	group(serveRole, s.WorkspacesGroup, describe)

	topic(operateRole, s.Events, read, write)
	topic(operateRole, s.Files, read)
	topic(operateRole, s.Index, describe)
	topic(operateRole, s.Notify, read)
	topic(operateRole, s.DLQ, read, write)
	topic(operateRole, s.Workspaces, describe)
	group(operateRole, s.FilesGroup, describe)
	group(operateRole, s.WorkspacesGroup, describe)
	group(operateRole, s.ReplayGroup, read)

	for _, t := range s.Topics() {
		topic(topicsRole, t, create, describe)
	}
	return acls
}

// needsOf returns what a role checks before it begins: the topics it uses, and that it is allowed all that aclsOf says.
func needsOf(role string, s topology.Streams) (topics []topology.Topic, access []kafka.Access) {
	for _, a := range aclsOf(s) {
		if a.Role != role {
			continue
		}
		switch a.Resource {
		case "group":
			access = append(access, kafka.Access{Group: a.Name, Operations: a.Operations})
			continue
		case "transactional-id": // no broker tells beforehand, and only exactly_once needs it: its first transaction says so
			continue
		}
		access = append(access, kafka.Access{Topic: a.Name, Operations: a.Operations})
		if t, known := s.Find(a.Name); known {
			topics = append(topics, t)
		}
	}
	return topics, access
}

// command returns the line that grants the ACL with Kafka's own tool.
func (a acl) command(bootstrap string) string {
	parts := []string{"kafka-acls.sh --bootstrap-server", shellWord(bootstrap), "--add --allow-principal", shellWord(a.Principal)}
	for _, operation := range a.Operations {
		parts = append(parts, "--operation", operation)
	}
	parts = append(parts, "--"+a.Resource, shellWord(a.Name))
	if a.Pattern != "" {
		parts = append(parts, "--resource-pattern-type", a.Pattern)
	}
	return strings.Join(parts, " ")
}

// shellWord makes s one word for a shell.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.:/@%+=,", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

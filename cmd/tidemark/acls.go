package main

import (
	"strings"

	"tidemark/topology"
)

// An acl is what one role must be allowed to do with one resource.
type acl struct {
	Role       string   `json:"role"`
	Principal  string   `json:"principal"`
	Resource   string   `json:"resource"` // topic or group
	Name       string   `json:"name"`
	Operations []string `json:"operations"`
}

// aclsOf lists the ACLs by role, in the order an event travels. Every role also reads the settings of the topics it uses,
// because it refuses to start on wrong ones. Read and Write imply Describe.
func aclsOf(s topology.Streams) []acl {
	const (
		ingest, process, serve, topics         = "ingest", "process", "serve", "topics"
		read, write, describe, configs, create = "Read", "Write", "Describe", "DescribeConfigs", "Create"
	)
	var acls []acl
	topic := func(role string, t topology.Topic, operations ...string) {
		acls = append(acls, acl{Role: role, Resource: "topic", Name: t.Name, Operations: append(operations, configs)})
	}
	group := func(role, name string, operations ...string) {
		acls = append(acls, acl{Role: role, Resource: "group", Name: name, Operations: operations})
	}

	topic(ingest, s.Events, write)

	topic(process, s.Events, read)
	topic(process, s.Files, read, write)
	topic(process, s.Index, write)
	topic(process, s.Notify, read, write)
	topic(process, s.DLQ, write)
	topic(process, s.Workspaces, read, write)
	group(process, s.FilesGroup, read)
	group(process, s.WorkspacesGroup, read)

	topic(serve, s.Events, read)
	topic(serve, s.Files, read)
	topic(serve, s.Notify, describe)
	topic(serve, s.DLQ, describe)
	topic(serve, s.Workspaces, read)
	group(serve, s.FilesGroup, describe)
	group(serve, s.WorkspacesGroup, describe)

	for _, t := range s.Topics() {
		topic(topics, t, create, describe)
	}
	return acls
}

// command returns the line that grants the ACL with Kafka's own tool.
func (a acl) command(bootstrap string) string {
	parts := []string{"kafka-acls.sh --bootstrap-server", shellWord(bootstrap), "--add --allow-principal", shellWord(a.Principal)}
	for _, operation := range a.Operations {
		parts = append(parts, "--operation", operation)
	}
	return strings.Join(append(parts, "--"+a.Resource, shellWord(a.Name)), " ")
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

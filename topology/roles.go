package topology

import "slices"

// ACL operations by Kafka's names. Read and Write imply Describe.
const (
	opRead            = "Read"
	opWrite           = "Write"
	opDescribe        = "Describe"
	opDescribeConfigs = "DescribeConfigs"
	opCreate          = "Create"
)

// A Role is what one kind of process, or an operator, does with the cluster. Start-up checks, ACLs and tidemark doctor
// are derived from it, so a new kind of process is one more Role in Streams.Roles.
type Role struct {
	Name    string
	Command string // the subcommand that runs until it is stopped; empty for a role of operators
	Sink    bool   // an installation does without it
	Topics  []TopicUse
	Groups  []GroupUse

	// With --guarantee exactly_once an instance writes under an id that is one of these prefixes and its own name.
	TransactionalIDs []string
}

// A TopicUse is a topic and the operations of a role on it. Every role also describes the settings of its topics,
// because it refuses to start on wrong ones.
type TopicUse struct {
	Topic      Topic
	Operations []string
}

// A GroupUse is a consumer group and the operations of a role on it.
type GroupUse struct {
	Name       string
	Prefixed   bool // every group whose name begins with Name
	Operations []string

	// Of a group that the role's command runs: the first topic that it consumes, and what is wrong while it lags.
	Consumes Topic
	Effect   string
	Pauses   string // when its commits do not move for a while although nothing is wrong; empty: never
}

// The resources of ACLs, by the names of kafka-acls.
const (
	TopicResource           = "topic"
	GroupResource           = "group"
	TransactionalIDResource = "transactional-id"
)

// An ACL is what a role must be allowed to do with one resource.
type ACL struct {
	Resource   string
	Name       string
	Prefixed   bool // the name is a prefix, else literal
	Operations []string
}

// ACLs lists what the role must be allowed to do.
func (r Role) ACLs() []ACL {
	var acls []ACL
	for _, t := range r.Topics {
		operations := append(append([]string(nil), t.Operations...), opDescribeConfigs)
		acls = append(acls, ACL{Resource: TopicResource, Name: t.Topic.Name, Operations: operations})
	}
	for _, g := range r.Groups {
		acls = append(acls, ACL{
			Resource: GroupResource, Name: g.Name, Prefixed: g.Prefixed, Operations: g.Operations,
		})
	}
	for _, prefix := range r.TransactionalIDs {
		acls = append(acls, ACL{
			Resource: TransactionalIDResource, Name: prefix, Prefixed: true,
			Operations: []string{opWrite},
		})
	}
	return acls
}

// Uses returns the topics that the role uses.
func (r Role) Uses() []Topic {
	topics := make([]Topic, len(r.Topics))
	for i, t := range r.Topics {
		topics[i] = t.Topic
	}
	return topics
}

// Roles lists the roles in the order an event travels, and the operators' behind them.
func (s Streams) Roles() []Role {
	serve := s.ShareRole(s.serveTraceRole())
	running := append([]Role{s.IngestRole(), s.ProcessRole(), serve}, s.SinkRoles()...)
	return append(running, s.ServeDeadLettersRole(serve), s.operateRole(running), s.topicsRole())
}

// IngestRole is the role of the command ingest.
func (s Streams) IngestRole() Role {
	return Role{Name: "ingest", Command: "ingest", Topics: []TopicUse{{s.Events, []string{opWrite}}}}
}

// ProcessRole is the role of the command process.
func (s Streams) ProcessRole() Role {
	readWrite := []string{opRead, opWrite}
	return Role{
		Name: "process", Command: "process",
		Topics: []TopicUse{
			{s.Events, readWrite}, // written for the entries of folders
			{s.Files, readWrite},
			{s.Index, readWrite},
			{s.Notify, readWrite},
			{s.DLQ, []string{opWrite}},
			{s.Workspaces, readWrite},
		},
		Groups: []GroupUse{
			runs(s.FilesGroup, s.Events, "events are not folded, so files do not change"),
			runs(s.WorkspacesGroup, s.Notify, "counts of workspaces do not change"),
		},
		TransactionalIDs: []string{s.FilesGroup + "-", s.WorkspacesGroup + "-"},
	}
}

// runs is the use of a group by the role whose command runs it.
func runs(group string, consumes Topic, effect string) GroupUse {
	return GroupUse{Name: group, Operations: []string{opRead}, Consumes: consumes, Effect: effect}
}

// ServeRole is the role of the command serve without search.
func (s Streams) ServeRole() Role {
	read := []string{opRead}
	return Role{
		Name: "serve", Command: "serve",
		Topics: []TopicUse{
			{s.Events, read},
			{s.Files, read},
			{s.Notify, read}, // live notices, and the history
			{s.DLQ, read},    // counts open entries
			{s.Workspaces, read},
		},
		Groups: []GroupUse{
			{Name: s.FilesGroup, Operations: []string{opDescribe}},
			{Name: s.WorkspacesGroup, Operations: []string{opDescribe}},
		},
	}
}

// ServeSearchRole is the role of the command serve with search: at_least waits for the search sink's commits.
func (s Streams) ServeSearchRole() Role {
	role := s.ServeRole()
	role.Topics = append(role.Topics, TopicUse{s.Index, []string{opRead}}) // end offsets and the last records
	role.Groups = append(role.Groups, GroupUse{Name: s.SinkGroup(SinkSearch), Operations: []string{opDescribe}})
	return role
}

// serveTraceRole is ServeSearchRole with what the results of sinks are found out by. serve runs without it, and says
// that it does not know them.
func (s Streams) serveTraceRole() Role {
	role := s.ServeSearchRole()
	role.Topics = append(role.Topics, TopicUse{s.Deliveries, []string{opRead}},
		TopicUse{s.Predictions, []string{opRead}})
	for _, sink := range s.SinkRoles() {
		for _, g := range sink.Groups {
			if g.Name != s.SinkGroup(SinkSearch) {
				role.Groups = append(role.Groups,
					GroupUse{Name: g.Name, Prefixed: g.Prefixed, Operations: []string{opDescribe}})
			}
		}
	}
	return role
}

// ShareRole is a role of the command serve that holds a share of the partitions: it joins the group that divides them.
func (s Streams) ShareRole(role Role) Role {
	role.Groups = append(slices.Clip(role.Groups), GroupUse{Name: s.ServeGroup, Operations: []string{opRead}})
	return role
}

// ServeDeadLettersRole is a role of the command serve that replays and drops dead letters too. It has a name of its
// own: other instances of serve write to no topic. It has no command, because not every installation runs it.
func (s Streams) ServeDeadLettersRole(role Role) Role {
	role.Name, role.Command = "serve-dead-letters", ""
	role.Topics = slices.Clone(role.Topics)
	for i, use := range role.Topics {
		if name := use.Topic.Name; name == s.Events.Name || name == s.DLQ.Name {
			role.Topics[i].Operations = []string{opRead, opWrite}
		}
	}
	role.Topics = append(role.Topics, TopicUse{s.SinkRetry, []string{opWrite}})
	return role
}

// operateRole is for the commands dlq, replay, diff, why and doctor, and for /dlq of process.
func (s Streams) operateRole(running []Role) Role {
	role := Role{
		Name: "operate",
		Topics: []TopicUse{
			{s.Events, []string{opRead, opWrite}},
			{s.Files, []string{opRead}},
			{s.Index, []string{opDescribe}},
			{s.Notify, []string{opRead}},
			{s.DLQ, []string{opRead, opWrite}},
			{s.Workspaces, []string{opDescribe}},
			{s.SinkRetry, []string{opWrite}},
			{s.Deliveries, []string{opRead, opWrite}}, // notify enable
			{s.Predictions, []string{opDescribe}},
		},
	}
	for _, r := range running {
		for _, g := range r.Groups {
			if g.Consumes.Name != "" {
				g.Operations, g.Consumes, g.Effect, g.Pauses = []string{opDescribe}, Topic{}, "", ""
				role.Groups = append(role.Groups, g)
			}
		}
	}
	role.Groups = append(role.Groups, GroupUse{Name: s.ReplayGroup, Operations: []string{opRead}},
		GroupUse{Name: s.ServeGroup, Operations: []string{opDescribe}})
	return role
}

// topicsRole is for the commands topics plan and apply.
func (s Streams) topicsRole() Role {
	role := Role{Name: "topics"}
	for _, t := range s.Topics() {
		role.Topics = append(role.Topics, TopicUse{t, []string{opCreate, opDescribe}})
	}
	return role
}

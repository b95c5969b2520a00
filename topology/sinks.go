package topology

import (
	"slices"
	"strings"
)

// Names of sinks, as the command sink takes them. Notify and model have a consumer group for each of their rules.
const (
	SinkSearch  = "search"
	SinkNotify  = "notify"
	SinkArchive = "archive"
	SinkModel   = "model"
)

// SinkGroup returns the group of a sink. Of notify and model, name is notify-RULE and model-RULE.
func (s Streams) SinkGroup(name string) string { return s.prefix() + "sink-" + name }

// SinkRoles lists the roles of the command sink. A process that runs several sinks has the roles of all of them.
func (s Streams) SinkRoles() []Role {
	return []Role{s.SearchRole(), s.NotifyRole(), s.ArchiveRole(), s.ModelRole()}
}

// SearchRole is the role of the sink search.
func (s Streams) SearchRole() Role {
	return s.retriedSink(SinkSearch,
		runs(s.SinkGroup(SinkSearch), s.Index, "the search index does not change"),
		TopicUse{s.Predictions, []string{opRead}})
}

// NotifyRole is the role of the sink notify.
func (s Streams) NotifyRole() Role {
	group := runs(s.SinkGroup(SinkNotify+"-"), s.Notify, "messages are not sent")
	group.Prefixed, group.Pauses = true, "the rule has quiet hours, a digest or a rate"
	return s.retriedSink(SinkNotify, group, TopicUse{s.Deliveries, []string{opRead, opWrite}})
}

// ModelRole is the role of the sink model.
func (s Streams) ModelRole() Role {
	group := runs(s.SinkGroup(SinkModel+"-"), s.Index, "models are not asked")
	group.Prefixed = true
	return s.retriedSink(SinkModel, group, TopicUse{s.Predictions, []string{opWrite}})
}

// ArchiveRole is the role of the sink archive. Its destination rejects no record, so it has no dead letters.
func (s Streams) ArchiveRole() Role {
	group := runs(s.SinkGroup(SinkArchive), s.Events, "events are not archived")
	group.Pauses = "an object is being filled"
	return sinkRole(SinkArchive, []TopicUse{{s.Events, []string{opRead}}}, group)
}

// retriedSink is the role of a sink that writes dead letters, and reads those that were replayed.
func (s Streams) retriedSink(name string, group GroupUse, more ...TopicUse) Role {
	topics := []TopicUse{
		{group.Consumes, []string{opRead}}, {s.SinkRetry, []string{opRead}}, {s.DLQ, []string{opWrite}},
	}
	return sinkRole(name, append(topics, more...), group)
}

func sinkRole(name string, topics []TopicUse, group GroupUse) Role {
	return Role{Name: "sink-" + name, Command: "sink " + name, Sink: true, Topics: topics, Groups: []GroupUse{group}}
}

// RetriesTo reports whether there is a sink of that name that reads SinkRetry: search, notify-RULE, model-RULE.
func (s Streams) RetriesTo(sink string) bool {
	group := s.SinkGroup(sink)
	for _, role := range s.SinkRoles() {
		for _, g := range role.Groups {
			rule, prefixed := strings.CutPrefix(group, g.Name)
			if prefixed && g.Prefixed == (rule != "") && role.Reads(s.SinkRetry) {
				return true
			}
		}
	}
	return false
}

// Reads reports whether the role reads a topic.
func (r Role) Reads(topic Topic) bool {
	for _, t := range r.Topics {
		for _, operation := range t.Operations {
			if t.Topic.Name == topic.Name && operation == opRead {
				return true
			}
		}
	}
	return false
}

// RunRoles returns the role of one process that has several roles.
func RunRoles(roles ...Role) Role {
	merged := roles[0]
	for _, role := range roles[1:] {
		merged.Name, merged.Command = merged.Name+","+role.Name, merged.Command+" "+role.Command
		merged.Topics = append(slices.Clip(merged.Topics), role.Topics...)
		merged.Groups = append(slices.Clip(merged.Groups), role.Groups...)
	}
	return merged
}

// Package topology declares tidemark's topics, groups and tables with their keys, partitions and retention, and the
// roles with what each may do.
//
// It is compiled in, so that two processes of one release cannot disagree about a name. It knows no client: package
// kafka compares it with a cluster, and codecs turns messages into record bytes.
package topology

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

const day = 24 * time.Hour

// MaxMessageBytes is max.message.bytes of every topic, and the largest request of producers.
const MaxMessageBytes = 4 << 20

// Key is the form of a topic's keys.
type Key string

// Forms of keys. Both are hashed to the partition of the workspace.
const (
	ByWorkspace Key = "workspace"      // the bare id, hashed as Java's default partitioner hashes it
	ByFile      Key = "workspace/file" // escaped parts, hashed over the workspace alone
)

// A Topic is the required configuration of one topic.
type Topic struct {
	Name        string
	Key         Key
	Partitions  int
	Replication int
	MinISR      int
	Compact     bool          // cleanup.policy is compact, with a retention compact,delete, else delete
	Retention   time.Duration // retention.ms; zero: of a compacted topic no key expires
}

// Config returns the topic's settings by Kafka's names. Timestamps are the broker's, because a producer's wrong clock
// would affect retention, reported ages, and lookups of offsets by time.
func (t Topic) Config() map[string]string {
	config := map[string]string{
		"cleanup.policy":      "delete",
		"min.insync.replicas": fmt.Sprint(t.MinISR),
		"max.message.bytes":   fmt.Sprint(MaxMessageBytes),

		"message.timestamp.type": "LogAppendTime",
	}
	if t.Retention != 0 {
		config["retention.ms"] = fmt.Sprint(t.Retention.Milliseconds())
	}
	switch {
	case t.Compact && t.Retention != 0:
		config["cleanup.policy"] = "compact,delete"
	case t.Compact:
		config["cleanup.policy"] = "compact"
	}
	return config
}

// Sizing is the part of the configuration that an installation chooses.
type Sizing struct {
	Partitions  int // of every topic: they are co-partitioned, which keeps the order of a workspace
	Replication int
	MinISR      int
}

// Default is the sizing for production: it tolerates the loss of one broker.
var Default = Sizing{Partitions: 32, Replication: 3, MinISR: 2}

// Single is the sizing for one broker.
var Single = Sizing{Partitions: 32, Replication: 1, MinISR: 1}

// Streams are tidemark's topics in the order an event travels them, and the groups that move it.
type Streams struct {
	Events     Topic // webhooks as received
	Files      Topic // the state of each file: the table of FilesGroup
	Index      Topic // documents for a search index
	Notify     Topic // notices of events, with the state before and after
	DLQ        Topic // events that could not be folded
	Workspaces Topic // counts by workspace: the table of WorkspacesGroup

	// Only sinks need these, and the commands for dead letters.
	SinkRetry   Topic // dead letters of sinks that were replayed
	Deliveries  Topic // what the notify sink sent, as intent and result; a key each, so they expire as notices do
	Predictions Topic // answers of models

	FilesGroup      string
	WorkspacesGroup string
	ReplayGroup     string // commits the progress of replays into the events topic
	ServeGroup      string // divides the partitions among instances of serve; reads and commits nothing
}

var prefixForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$`)

// New returns the streams for a name prefix and a sizing.
func New(prefix string, size Sizing) (Streams, error) {
	if !prefixForm.MatchString(prefix) {
		return Streams{}, fmt.Errorf(
			"topic prefix %q: want 1 to 100 of letters, digits, '.', '_' and '-', beginning with a letter or digit",
			prefix)
	}
	if size.Partitions < 1 || size.Replication < 1 || size.MinISR < 1 || size.MinISR > size.Replication {
		return Streams{}, fmt.Errorf("topic sizing %+v: partitions and replication must be at least 1, and "+
			"min.insync between 1 and the replication", size)
	}
	stream := func(name string, key Key, retention time.Duration) Topic {
		return Topic{
			Name: prefix + "-" + name, Key: key, Retention: retention,
			Partitions: size.Partitions, Replication: size.Replication, MinISR: size.MinISR,
		}
	}
	compacted := func(name string, key Key, retention time.Duration) Topic {
		t := stream(name, key, retention)
		t.Compact = true
		return t
	}
	return Streams{
		Events:          stream("events", ByWorkspace, 30*day),
		Files:           compacted("files-table", ByFile, 0),
		Index:           compacted("index", ByFile, 0),
		Notify:          stream("notify", ByFile, 30*day),
		DLQ:             stream("dlq", ByFile, 90*day),
		Workspaces:      compacted("workspaces-table", ByFile, 0),
		SinkRetry:       stream("sink-retry", ByFile, 30*day),
		Deliveries:      compacted("deliveries", ByFile, 30*day),
		Predictions:     compacted("predictions", ByFile, 0),
		FilesGroup:      prefix + "-files",
		WorkspacesGroup: prefix + "-workspaces",
		ReplayGroup:     prefix + "-replay",
		ServeGroup:      prefix + "-serve",
	}, nil
}

// Topics lists the topics in the order an event travels them.
func (s Streams) Topics() []Topic {
	return append([]Topic{s.Events, s.Files, s.Index, s.Notify, s.DLQ, s.Workspaces}, s.SinkTopics()...)
}

// SinkTopics lists the topics that an installation without sinks does not need.
func (s Streams) SinkTopics() []Topic { return []Topic{s.SinkRetry, s.Deliveries, s.Predictions} }

// prefix begins all names.
func (s Streams) prefix() string { return strings.TrimSuffix(s.Events.Name, "events") }

// Group returns the full names of a group, given with or without the prefix, and of its goka table.
func (s Streams) Group(name string) (group, table string) {
	group = s.prefix() + s.ShortName(name)
	return group, group + "-table"
}

// ShortName returns the name of a topic or group without the prefix.
func (s Streams) ShortName(name string) string { return strings.TrimPrefix(name, s.prefix()) }

// Find returns the topic of that name, given with or without the prefix.
func (s Streams) Find(name string) (Topic, bool) {
	for _, t := range s.Topics() {
		if name == t.Name || s.prefix()+name == t.Name {
			return t, true
		}
	}
	return Topic{}, false
}

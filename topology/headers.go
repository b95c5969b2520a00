package topology

// Headers of events. The first three repeat fields of the JSON, by CloudEvents' Kafka binding. A record whose headers
// differ from its JSON is dead-lettered.
const (
	HeaderEventID   = "ce_id"
	HeaderEventType = "ce_type"
	HeaderFileID    = "ce_subject"

	// HeaderReplay marks a replayed event; its value is where it came from. Such an event is deduplicated by its id,
	// but it may be older than the dedupe window.
	HeaderReplay = "tidemark-replay"

	// HeaderCause marks an event that tidemark produced for an entry of a folder. Its value is the position of the
	// folder's event. The JSON has more in cause and inherited.
	HeaderCause = "tidemark-cause"

	// HeaderWalk marks a record with which the files group continues to apply a folder's change to its entries. Its
	// value says where.
	HeaderWalk = "tidemark-walk"

	// HeaderCopied marks an event or notice that `topics repartition` copied. Its value is the position under the old
	// prefix.
	HeaderCopied = "tidemark-copied"
)

// DeadLetterPrefix begins the headers that tidemark adds to a dead letter. No other record has such headers.
const DeadLetterPrefix = "dlq."

// Headers of dead letters.
const (
	HeaderReason        = DeadLetterPrefix + "reason"  // one of a fixed set of words
	HeaderMessage       = DeadLetterPrefix + "message" // what is wrong and how to fix it, as text
	HeaderException     = DeadLetterPrefix + "exception"
	HeaderTopic         = DeadLetterPrefix + "topic" // this and the next two: position of the source record
	HeaderPartition     = DeadLetterPrefix + "partition"
	HeaderOffset        = DeadLetterPrefix + "offset"
	HeaderFirstFailedAt = DeadLetterPrefix + "first_failed_at" // RFC 3339
	HeaderKeyNull       = DeadLetterPrefix + "key_null"        // the source record had none; the dead letter's is empty

	// HeaderCopiedDeadLetter marks one that `topics repartition` copied. Its value is the position under the old
	// prefix.
	HeaderCopiedDeadLetter = DeadLetterPrefix + "copied"

	// Lengths in bytes of the parts of the source record that do not fit into the dead letter.
	HeaderValueOmitted   = DeadLetterPrefix + "value_omitted"
	HeaderKeyOmitted     = DeadLetterPrefix + "key_omitted"
	HeaderHeadersOmitted = DeadLetterPrefix + "headers_omitted"
)

// Headers of a marker: a record in the dead letter topic that resolves the dead letters before it that have the same
// source.
const (
	HeaderResolved   = DeadLetterPrefix + "resolved"    // replayed or dropped
	HeaderEntry      = DeadLetterPrefix + "entry"       // offset of the source's last dead letter before the marker
	HeaderResolvedAt = DeadLetterPrefix + "resolved_at" // RFC 3339
	HeaderReplayedTo = DeadLetterPrefix + "replayed_to" // position in the events topic
)

package topology

// Names of headers on the events. The first three are those of CloudEvents' Kafka binding. A record in which they
// contradict the JSON is a dead letter.
const (
	HeaderEventID   = "ce_id"
	HeaderEventType = "ce_type"
	HeaderFileID    = "ce_subject"

	// HeaderReplay marks a record that was put into the events topic again. Its value is the position of the source.
	// Such an event is dropped if its id is remembered, but not for being older than the dedupe window.
	HeaderReplay = "tidemark-replay"

	// HeaderCause marks an event that tidemark wrote for an entry of a folder. Its value is the position of the
	// folder's event. The rest is in the JSON, in cause and inherited.
	HeaderCause = "tidemark-cause"

	// HeaderWalk marks a record with which the files group continues to apply a folder's change to its entries. Its
	// value is where to continue.
	HeaderWalk = "tidemark-walk"

	// HeaderCopied is the position under the old prefix of an event or notice that `topics repartition` copied.
	HeaderCopied = "tidemark-copied"

	// HeaderRetrySink and HeaderRetrySource are on the records of SinkRetry: the sink that is to read the record, and
	// the position of the source record, as topic/partition:offset.
	HeaderRetrySink   = "tidemark-sink"
	HeaderRetrySource = "tidemark-source"
)

// DeadLetterPrefix begins the names of all headers that only dead letters have.
const DeadLetterPrefix = "dlq."

// Headers of dead letters.
const (
	HeaderReason        = DeadLetterPrefix + "reason"  // one of a fixed set of words
	HeaderMessage       = DeadLetterPrefix + "message" // what to fix, for people
	HeaderException     = DeadLetterPrefix + "exception"
	HeaderTopic         = DeadLetterPrefix + "topic" // this and the next two: the source record's position
	HeaderPartition     = DeadLetterPrefix + "partition"
	HeaderOffset        = DeadLetterPrefix + "offset"
	HeaderFirstFailedAt = DeadLetterPrefix + "first_failed_at" // RFC 3339
	HeaderKeyNull       = DeadLetterPrefix + "key_null"        // the source's key is null; this one is empty

	// Only on records that a sink's destination rejected.
	HeaderSink   = DeadLetterPrefix + "sink"   // the sink's name
	HeaderAnswer = DeadLetterPrefix + "answer" // what the destination answered

	// HeaderCopiedDeadLetter is the position under the old prefix of a dead letter that `topics repartition` copied.
	HeaderCopiedDeadLetter = DeadLetterPrefix + "copied"

	// Lengths in bytes of the parts of the source record that were left out for size.
	HeaderValueOmitted   = DeadLetterPrefix + "value_omitted"
	HeaderKeyOmitted     = DeadLetterPrefix + "key_omitted"
	HeaderHeadersOmitted = DeadLetterPrefix + "headers_omitted"
)

// Names of headers on a marker: the record that resolves the entry before it. It has the entry's source position and
// sink too.
const (
	HeaderResolved   = DeadLetterPrefix + "resolved"    // replayed or dropped
	HeaderEntry      = DeadLetterPrefix + "entry"       // offset of the entry's last record before its marker
	HeaderResolvedAt = DeadLetterPrefix + "resolved_at" // RFC 3339
	HeaderReplayedTo = DeadLetterPrefix + "replayed_to" // position of the replayed record, with its topic if not events
)

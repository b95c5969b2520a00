package topology

// Names of headers on the events. The first three repeat what the JSON says, by CloudEvents' Kafka binding; where they say
// something else the record is a dead letter.
const (
	HeaderEventID   = "ce_id"
	HeaderEventType = "ce_type"
	HeaderFileID    = "ce_subject"

	// HeaderReplay marks a record that was put into the events topic again. Its value says where it came from. The fold asks
	// whether the id of such an event is remembered, but not whether it is older than the dedupe window.
	HeaderReplay = "tidemark-replay"

	// HeaderCause marks an event that tidemark itself wrote for an entry of a folder. Its value is the position of the folder's event
	// that it follows from; the rest is in the value's cause and inherited.
	HeaderCause = "tidemark-cause"

	// HeaderWalk marks a record by which the files group goes on giving a folder's changes to its entries. Its value says from where.
	HeaderWalk = "tidemark-walk"

	// HeaderCopied says of an event or notice that `topics repartition` copied where it lies under the old prefix.
	HeaderCopied = "tidemark-copied"
)

// DeadLetterPrefix is what all headers that are ours to say of a dead letter begin with, and none of any other record.
const DeadLetterPrefix = "dlq."

// Names of headers on the dead letters.
const (
	HeaderReason        = DeadLetterPrefix + "reason"  // a word for machines
	HeaderMessage       = DeadLetterPrefix + "message" // what to mend, for people
	HeaderException     = DeadLetterPrefix + "exception"
	HeaderTopic         = DeadLetterPrefix + "topic" // this and the next two: where the source record lies
	HeaderPartition     = DeadLetterPrefix + "partition"
	HeaderOffset        = DeadLetterPrefix + "offset"
	HeaderFirstFailedAt = DeadLetterPrefix + "first_failed_at" // RFC 3339
	HeaderKeyNull       = DeadLetterPrefix + "key_null"        // the source record had none; the letter's is empty

	// HeaderCopiedLetter says of one that `topics repartition` copied where it lies under the old prefix.
	HeaderCopiedLetter = DeadLetterPrefix + "copied"

	// Lengths in bytes of what the source record has and the letter has no room for.
	HeaderValueOmitted   = DeadLetterPrefix + "value_omitted"
	HeaderKeyOmitted     = DeadLetterPrefix + "key_omitted"
	HeaderHeadersOmitted = DeadLetterPrefix + "headers_omitted"
)

// Names of headers on a marker: the record that says of the dead letters before it, from one source, that they are resolved.
const (
	HeaderResolved   = DeadLetterPrefix + "resolved"    // as what
	HeaderEntry      = DeadLetterPrefix + "entry"       // offset of the entry's last record before its marker
	HeaderResolvedAt = DeadLetterPrefix + "resolved_at" // RFC 3339
	HeaderReplayedTo = DeadLetterPrefix + "replayed_to" // position in the events topic
)

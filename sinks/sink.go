// Package sinks delivers records of tidemark's topics to other systems: search, notifications, archive, models.
//
// Each sink is a Sink in a package of its own below this one. Its Deliver method knows the destination and nothing of
// Kafka. The Loop does the rest, the same for all: it consumes as a group, retries with backoff, splits batches that
// are rejected, writes dead letters, commits, and counts.
package sinks

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Sink is a destination.
type Sink interface {
	// Deliver applies a batch: records of one partition, in order, at least one. Batches of different partitions are
	// delivered at the same time. A record may come again, after a crash and after an error. ctx ends when the attempt
	// has taken too long, or the partition goes to another process.
	//
	// The error says what happens to the records:
	//
	//	nil                   all are applied
	//	a *Rejected           the destination will never accept the batch. Several records are delivered again in two
	//	                      halves, so only those at fault become dead letters
	//	a *Partial            each record has an outcome of its own
	//	a *Later              none is applied; delivered again after a pause that the destination may name
	//	any other             none is known to be applied; delivered again, with exponential backoff
	Deliver(ctx context.Context, batch []*Record) error
}

// A Record is one record of a topic.
type Record struct {
	Topic     string // Topic, Partition and Offset are the record's position, also of a record that is retried
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   []Header
	Time      time.Time // when the broker appended it
	Retried   bool      // an operator replayed its dead letter: it may be older than what the destination has

	read *kgo.Record // as it was read: of a record that is retried, from the retry topic
}

// A Header is a header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Position returns where the record is: topic/partition:offset.
func (r *Record) Position() string { return fmt.Sprintf("%s/%d:%d", r.Topic, r.Partition, r.Offset) }

// Rejected is an error that no retry fixes. With an Answer the destination refuses the data, or it or its settings are
// wrong: the record becomes a dead letter only once the destination has accepted another one, or after 10 minutes
// (Config.Refusal). Without an Answer the record itself is invalid.
type Rejected struct {
	Reason string // what to fix, for people
	Answer string // what the destination answered
}

func (e *Rejected) Error() string {
	if e.Answer == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Answer
}

// Later is an error of a destination that may accept the same later: 429 or 5xx.
type Later struct {
	Pause   time.Duration // that the destination asks for, as with Retry-After; 0: none
	Err     error
	Waiting bool // nothing has failed: the destination was not asked, because the batch waits for its time
}

func (e *Later) Error() string {
	switch {
	case e.Err == nil:
		return fmt.Sprintf("again in %v", e.Pause)
	case e.Pause == 0:
		return e.Err.Error()
	}
	return fmt.Sprintf("%v (again in %v)", e.Err, e.Pause)
}
func (e *Later) Unwrap() error { return e.Err }

// LaterOf returns a *Later for an HTTP answer that asks to try later: by a pause, as RetryAfter returns it, or by its
// status. For any other answer it returns err.
func LaterOf(status int, pause time.Duration, err error) error {
	if pause > 0 || Busy(status) {
		return &Later{Pause: pause, Err: err}
	}
	return err
}

// Busy reports whether a request with this HTTP status may succeed later, as it is.
func Busy(status int) bool { return status == http.StatusTooManyRequests || status/100 == 5 }

// RetryAfter returns the pause that an HTTP answer asks for, in both forms of Retry-After: at most longest, and 0 if
// there is none or it cannot be read.
func RetryAfter(header http.Header, longest time.Duration) (pause time.Duration) {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		pause = time.Duration(min(seconds, uint64(longest/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		pause = time.Until(at)
	}
	return min(max(pause, 0), longest)
}

// Partial is the error of a batch whose records have different outcomes. Records that it does not name are applied.
type Partial struct {
	// Rejected records of the same *Rejected were refused together, and are delivered again in two halves.
	Rejected map[*Record]*Rejected
	Skipped  int       // records that are not meant for the destination: it was not asked
	Again    []*Record // not applied, in the order of the batch
	Err      error     // why those are not applied; may be a *Later
}

func (e *Partial) Error() string {
	text := fmt.Sprintf("%d records rejected, %d not applied", len(e.Rejected), len(e.Again))
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Partial) Unwrap() error { return e.Err }

package processors

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// ErrNewLog refuses to start on an events topic that was made anew: its offsets begin again, so "already folded" cannot be
// told by them any more. Event ids still can be; an operator who wants that says so with --accept-new-log.
var ErrNewLog = errors.New("the events topic was deleted and made anew since the tables were last written; start with --accept-new-log if that was meant")

// eventsLog returns the id of the events topic, once a broker answers; empty when ctx ended before.
func eventsLog(ctx context.Context, conf Config) (string, error) {
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		id, err := checkLog(ctx, conf)
		if err == nil || errors.Is(err, ErrNewLog) {
			return id, err
		}
		if ctx.Err() != nil {
			return "", nil
		}
		conf.Log.WarnContext(ctx, "cannot look up the events topic, trying again", "pause", pause.String(), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", nil
		}
	}
}

// sameLog refuses to go on, with ErrNewLog, once the events topic is another than when the group began: rows would take events
// of the new log for those of the old one that they hold.
func sameLog(ctx context.Context, conf Config, began string) error {
	id, err := kafka.TopicID(ctx, conf.Kafka, conf.Streams.Events.Name)
	if err == nil && id != began {
		return ErrNewLog
	}
	return nil // or it cannot be told now: the attempt will not get far either
}

// checkLog compares the events topic's id with the one in the rows written last. A table that holds rows of the present log
// has been accepted before; one that holds only others' has not.
func checkLog(ctx context.Context, conf Config) (string, error) {
	id, err := kafka.TopicID(ctx, conf.Kafka, conf.Streams.Events.Name)
	if err != nil {
		return "", err
	}
	if conf.AcceptNewLog {
		return id, nil
	}
	found, err := lastRows(ctx, conf)
	if err != nil {
		return "", err
	}
	other := false
	for _, row := range found {
		switch written := logOf(row); written {
		case "":
		case id:
			return id, nil
		default:
			other = true
		}
	}
	if other {
		return "", ErrNewLog
	}
	return id, nil
}

// lastRows returns the newest record of each partition of the files table.
func lastRows(ctx context.Context, conf Config) (rows [][]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	table := conf.Streams.Files.Name
	extent, err := kafka.Extent(ctx, conf.Kafka, table)
	if err != nil {
		return nil, err
	}
	settled, err := kafka.TrimTrailingMarkers(ctx, conf.Kafka, table, extent)
	if err != nil {
		return nil, err
	}
	last := kafka.Spans{}
	for partition, span := range settled {
		if span.From < span.To {
			last[partition] = kafka.Span{From: span.To - 1, To: span.To}
		}
	}
	err = kafka.Read(ctx, conf.Kafka, table, last, func(r *kgo.Record) error {
		rows = append(rows, r.Value)
		return nil
	})
	return rows, err
}

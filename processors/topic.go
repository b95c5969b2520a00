package processors

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// ErrTopicRecreated says that the events topic was deleted and recreated. Its offsets start over, so a row's position
// no longer says which events it includes; only the event ids in its dedupe window do. The operator decides, with
// --accept-new-log.
var ErrTopicRecreated = errors.New("the events topic was deleted and recreated since the tables were last written; " +
	"start with --accept-new-log if that was intended")

// lookUpTopic returns the id of the events topic, once a broker answers; empty if ctx ends first.
func lookUpTopic(ctx context.Context, conf Config) (string, error) {
	pauses := &backoff.ExponentialBackOff{
		InitialInterval: 250 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 5 * time.Second,
	}
	id, err := backoff.Retry(ctx, func() (string, error) {
		id, err := checkTable(ctx, conf)
		if errors.Is(err, ErrTopicRecreated) {
			err = backoff.Permanent(err)
		}
		return id, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0), backoff.WithNotify(
		func(err error, pause time.Duration) {
			conf.Log.WarnContext(ctx, "cannot look up the events topic, trying again", "pause", pause.String(), "error",
				err)
		}))
	if ctx.Err() != nil && !errors.Is(err, ErrTopicRecreated) {
		return "", nil
	}
	return id, err
}

// checkTopic returns ErrTopicRecreated if the events topic is no longer the one with the id. Rows would take events of
// the new topic for those of the old one that they include.
func checkTopic(ctx context.Context, conf Config, id string) error {
	now, err := kafka.TopicID(ctx, conf.Kafka, conf.Streams.Events.Name)
	if err == nil && now != id {
		return ErrTopicRecreated
	}
	return nil // an error is not final: the group fails without the topic, and asks again
}

// checkTable returns the id of the events topic after it has compared it with the newest rows. Rows with another id
// alone mean that the topic was recreated; one row with the present id means that the operator has accepted that
// before.
func checkTable(ctx context.Context, conf Config) (string, error) {
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
		switch of := topicIDOf(row); of {
		case "":
		case id:
			return id, nil
		default:
			other = true
		}
	}
	if other {
		return "", ErrTopicRecreated
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

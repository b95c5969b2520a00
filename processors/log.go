package processors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/kafka/committed"
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
	_, ids, err := kafka.TopicIDs(ctx, conf.Kafka, conf.Streams.Events.Name)
	if err == nil && ids[conf.Streams.Events.Name] != began {
		return ErrNewLog
	}
	return nil // or it cannot be told now: the attempt will not get far either
}

// checkLog compares the events topic's id with the one in the rows written last. A table that holds rows of the present log
// has been accepted before; one that holds only others' has not.
func checkLog(ctx context.Context, conf Config) (string, error) {
	_, ids, err := kafka.TopicIDs(ctx, conf.Kafka, conf.Streams.Events.Name)
	if err != nil {
		return "", err
	}
	id := ids[conf.Streams.Events.Name]
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
func lastRows(ctx context.Context, conf Config) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	options, err := conf.Kafka.Franz()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("read the files table: %w", err)
	}
	defer client.Close()
	table := conf.Streams.Files.Name
	starts, ends, err := logBounds(ctx, kadm.NewClient(client), table)
	if err != nil {
		return nil, err
	}
	listed := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) { listed[o.Partition] = o.Offset })
	last, err := committed.Ends(ctx, client, table, listed)
	if err != nil {
		return nil, fmt.Errorf("read the files table: %w", err)
	}
	from := map[int32]kgo.Offset{}
	for partition, end := range last {
		if start, ok := starts.Lookup(table, partition); ok && end > start.Offset {
			from[partition] = kgo.NewOffset().At(end - 1)
		}
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{table: from})
	var rows [][]byte
	seen := map[int32]bool{}
	for len(seen) < len(from) {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("read the files table: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			seen[r.Partition] = true
			rows = append(rows, r.Value)
		})
	}
	return rows, nil
}

func logBounds(ctx context.Context, admin *kadm.Client, topic string) (starts, ends kadm.ListedOffsets, err error) {
	if starts, err = admin.ListStartOffsets(ctx, topic); err != nil {
		return nil, nil, fmt.Errorf("look up %s: %w", topic, err)
	}
	if ends, err = admin.ListCommittedOffsets(ctx, topic); err != nil {
		return nil, nil, fmt.Errorf("look up %s: %w", topic, err)
	}
	return starts, ends, nil
}

package epochs

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"

	"tidemark/kafka/committed"
)

// markerCheckInterval is how often a session looks for markers at the end of its inputs. Retention runs every 5
// minutes.
const markerCheckInterval = 5 * time.Second

// skipMarkersUntilDone commits past the transaction markers and aborted records at the end of idle partitions, until
// the session ends. No consumer is given them, so without this the committed offset would stay before them. Once
// retention has emptied the partition, that offset is below the log start offset, which is also what a commit looks
// like whose records were lost unread.
func (e *Epochs) skipMarkersUntilDone(s sarama.ConsumerGroupSession) {
	tick := time.NewTicker(markerCheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.Context().Done():
			return
		}
		for topic, partitions := range s.Claims() {
			if err := e.skipMarkers(s.Context(), topic, partitions); err != nil && s.Context().Err() == nil {
				e.conf.Log.WarnContext(s.Context(),
					"cannot look for transaction markers at the end of an input, trying again",
					"topic", topic, "error", err)
			}
		}
	}
}

// An idleInput is an input of which no record is left to read or to process.
type idleInput struct {
	*input
	of   *partitionEpochs
	next int64
	end  int64 // of the partition
}

// skipMarkers looks once, at some partitions of a topic.
func (e *Epochs) skipMarkers(ctx context.Context, topic string, partitions []int32) error {
	listed, err := kadm.NewClient(e.client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("look up the end of %s: %w", topic, err)
	}
	idle, ends := map[int32]idleInput{}, map[int32]int64{}
	for _, partition := range partitions {
		e.mu.RLock()
		i := idleInput{input: e.inputs[partitionID{topic, partition}], of: e.byPartition[partition]}
		e.mu.RUnlock()
		end, found := listed.Lookup(topic, partition)
		if i.input == nil || i.of == nil || !i.of.recovered.Load() || !found || end.Err != nil {
			continue
		}
		i.end = end.Offset
		var nothingRuns bool
		if i.next, nothingRuns = i.position(); nothingRuns && i.next < i.end {
			idle[partition], ends[partition] = i, i.end
		}
	}
	last, err := committed.Ends(ctx, e.client, topic, ends)
	if err != nil {
		return err
	}
	for partition, end := range last {
		if i := idle[partition]; end <= i.next { // no record is left to read
			i.skip(i.next, i.end, func() { i.of.callbackReturned(topic, i.end-1) })
		}
	}
	return nil
}

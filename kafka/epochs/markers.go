package epochs

import (
	"context"
	"fmt"
	"time"

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
func (s *session) skipMarkersUntilDone() {
	tick := time.NewTicker(markerCheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.Context().Done():
			return
		}
		for topic := range s.Claims() {
			if err := s.skipMarkers(s.Context(), topic); err != nil && s.Context().Err() == nil {
				s.epochs.conf.Log.WarnContext(s.Context(),
					"cannot look for transaction markers at the end of an input, trying again",
					"topic", topic, "error", err)
			}
		}
	}
}

// commitSkipped commits an offset behind which there are no records, only markers. The owner is that of the session:
// once it is closed, nothing is committed for the partition.
func (s *session) commitSkipped(owner *partitionEpochs, of partitionID, next int64) {
	if s.ignoreMarks {
		owner.callbackReturned(of.topic, next-1)
		return
	}
	s.ConsumerGroupSession.MarkOffset(of.topic, of.number, next, owner.metadata.Load().(string))
}

// skipMarkers looks once, at all partitions of a topic.
func (s *session) skipMarkers(ctx context.Context, topic string) error {
	listed, err := kadm.NewClient(s.epochs.client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("look up the end of %s: %w", topic, err)
	}
	read, ends := map[int32]int64{}, map[int32]int64{}
	for _, partition := range s.Claims()[topic] {
		end, found := listed.Lookup(topic, partition)
		next, finished := s.prefixes[partitionID{topic, partition}].position()
		if found && end.Err == nil && finished && next < end.Offset {
			read[partition], ends[partition] = next, end.Offset
		}
	}
	last, err := committed.Ends(ctx, s.epochs.client, topic, ends)
	if err != nil {
		return err
	}
	for partition, end := range last {
		if end <= read[partition] { // no record is left to read
			s.prefixes[partitionID{topic, partition}].skipTo(read[partition], ends[partition])
		}
	}
	return nil
}

package epochs

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"tidemark/kafka/committed"
)

// restEvery is how often a session looks whether its inputs have come to rest. Retention looks every 5 minutes.
const markerCheckInterval = 5 * time.Second

// followRest commits past the end of inputs that are at rest, until the session ends. A transaction ends with a marker, which is
// handed to nobody, as aborted records are: a group that commits what it was handed stays before them. Once retention has
// emptied the partition that commit lies before its start, as one does whose records were lost, and nobody could tell the two
// apart.
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
				s.epochs.conf.Log.WarnContext(s.Context(), "cannot tell whether an input is at rest, trying again", "topic", topic, "error", err)
			}
		}
	}
}

// atRest commits an offset of an input at rest. The owner is that of the session: when it has given the partition up, nothing of
// it is committed any more.
func (s *session) commitSkipped(owner *partitionEpochs, of partitionID, next int64) {
	if s.ignoreMarks {
		owner.callbackReturned(of.topic, next-1)
		return
	}
	s.ConsumerGroupSession.MarkOffset(of.topic, of.number, next, owner.metadata.Load().(string))
}

// rest looks once.
func (s *session) skipMarkers(ctx context.Context, topic string) error {
	listed, err := kadm.NewClient(s.epochs.client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("look up the end of %s: %w", topic, err)
	}
	read, ends := map[int32]int64{}, map[int32]int64{}
	for _, partition := range s.Claims()[topic] {
		end, found := listed.Lookup(topic, partition)
		if next, finished := s.prefixes[partitionID{topic, partition}].position(); found && end.Err == nil && finished && next < end.Offset {
			read[partition], ends[partition] = next, end.Offset
		}
	}
	last, err := committed.Ends(ctx, s.epochs.client, topic, ends)
	if err != nil {
		return err
	}
	for partition, end := range last {
		if end <= read[partition] { // nothing is there that would be handed to us
			s.prefixes[partitionID{topic, partition}].skipTo(read[partition], ends[partition])
		}
	}
	return nil
}

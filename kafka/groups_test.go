package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/devbroker"
	"tidemark/kafka"
)

// A request that creates the offsets topic of a new cluster is repeated until that has a leader.
func TestRetryCoordinator(t *testing.T) {
	other := errors.New("refused")
	for _, want := range []error{nil, other} {
		answers := []error{
			fmt.Errorf("fetch: %w", kerr.CoordinatorNotAvailable), kerr.CoordinatorLoadInProgress, want,
			kerr.NotCoordinator,
		}
		asked := 0
		err := kafka.RetryCoordinator(t.Context(), func() error { asked++; return answers[asked-1] })
		if !errors.Is(err, want) || asked != 3 {
			t.Errorf("%v after %d requests, want %v after 3", err, asked, want)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	err := kafka.RetryCoordinator(ended, func() error { return kerr.CoordinatorNotAvailable })
	if !errors.Is(err, kerr.CoordinatorNotAvailable) {
		t.Errorf("when its context ends: %v", err)
	}
}

func TestGroups(t *testing.T) {
	c := kafka.Config{Brokers: devbroker.ForTest(t)}
	s := streams(t, small)
	if _, err := kafka.ApplyTopics(t.Context(), c, s.Topics()[:1]); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"notify-b", "notify-a", "search"} {
		if err := kafka.Commit(t.Context(), c, s.SinkGroup(name),
			kadm.Offset{Topic: s.Events.Name, LeaderEpoch: -1}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := kafka.Groups(t.Context(), c, s.SinkGroup("notify-"))
	if diff := cmp.Diff([]string{s.SinkGroup("notify-a"), s.SinkGroup("notify-b")}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

package kafka

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// coordinatorTimeout is how long a request about a group waits for the group's coordinator.
const coordinatorTimeout = 30 * time.Second

// RetryCoordinator repeats a request while the group coordinator is unavailable, until ctx ends or coordinatorTimeout
// has passed: on a new cluster the first request creates the offsets topic. It returns the last error.
func RetryCoordinator(ctx context.Context, request func() error) error {
	ctx, cancel := context.WithTimeout(ctx, coordinatorTimeout)
	defer cancel()
	for {
		err := request()
		if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.NotCoordinator) &&
			!errors.Is(err, kerr.CoordinatorLoadInProgress) {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// Groups returns the names of the consumer groups that begin with prefix, in order. The cluster lists only those that
// this user may describe. An error is also returned if some brokers did not answer: their groups are missing.
func Groups(ctx context.Context, c Config, prefix string) ([]string, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	listed, err := a.ListGroups(ctx)
	if shards, ok := errors.AsType[*kadm.ShardErrors](err); ok && len(shards.Errs) > 0 {
		err = shards.Errs[0].Err
	}
	if err != nil {
		return nil, a.fail("list the groups", err)
	}
	return slices.DeleteFunc(listed.Groups(), func(name string) bool { return !strings.HasPrefix(name, prefix) }), nil
}

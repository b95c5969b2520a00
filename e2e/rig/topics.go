package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/oracle"
	"tidemark/kafka/committed"
)

// Client returns a client whose records carry their partition.
func Client(brokers []string, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(100 * time.Millisecond),
	}, more...)...)
}

// CreateTopics runs tidemark topics apply.
func CreateTopics(ctx context.Context, binary string, flags ...string) error {
	apply := exec.CommandContext(ctx, binary, append([]string{"topics", "apply"}, flags...)...)
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("topics apply: %w\n%s", err, out)
	}
	return nil
}

// DeleteTopics deletes what CreateTopics made.
func DeleteTopics(ctx context.Context, client *kgo.Client, t oracle.Topics) error {
	deleted, err := kadm.NewClient(client).DeleteTopics(ctx, t.Events, t.Files, t.Index, t.Notify, t.DLQ, t.Workspaces)
	return errors.Join(err, deleted.Error())
}

// End sums a topic's end offsets. It asks again for up to 15 s, and returns -1 if they cannot be looked up.
func End(ctx context.Context, client *kgo.Client, topic string) (sum int64) {
	_, err := Until(ctx, 15*time.Second, func() (bool, error) {
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		ends, err := kadm.NewClient(client).ListEndOffsets(ask, topic)
		if errors.Join(err, ends.Error()) != nil {
			return false, nil
		}
		ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
		return true, nil
	})
	if err != nil {
		return -1
	}
	return sum
}

// AwaitGrowth waits until a topic's End is past a bound.
func AwaitGrowth(ctx context.Context, client *kgo.Client, topic string, past int64) error {
	if past < 0 {
		return fmt.Errorf("the end of %s could not be looked up", topic)
	}
	_, err := Until(ctx, time.Minute, func() (bool, error) { return End(ctx, client, topic) > past, nil })
	if err != nil {
		return fmt.Errorf("%s stays at %d: %w", topic, past, err)
	}
	return nil
}

// Lag is how many records of a topic a group has not committed. A group does not commit past the marker of a
// transaction: when only a few records are left, markers do not count.
func Lag(ctx context.Context, client *kgo.Client, group, topic string) (lag int64, err error) {
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return 0, err
	}
	commits, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	commit, end := map[int32]int64{}, map[int32]int64{} // of the partitions with a lag
	ends.Each(func(o kadm.ListedOffset) {
		at, _ := commits.Lookup(topic, o.Partition)
		if at.At = max(0, at.At); at.At < o.Offset {
			lag += o.Offset - at.At
			commit[o.Partition], end[o.Partition] = at.At, o.Offset
		}
	})
	if lag == 0 || lag > int64(50*len(ends[topic])) {
		return lag, nil
	}
	read, err := committed.Ends(ctx, client, topic, end)
	if err != nil {
		return 0, err
	}
	lag = 0
	for partition, at := range commit {
		if last, decided := read[partition]; decided {
			end[partition] = last
		}
		lag += max(0, end[partition]-at)
	}
	return lag, nil
}

// Drain waits until the groups of an installation have committed all records, and returns how long that took.
func Drain(
	ctx context.Context, client *kgo.Client, prefix string, limit time.Duration, workspaces bool,
) (time.Duration, error) {
	topics := oracle.TopicsOf(prefix)
	var files, spaces int64
	var failed error
	took, err := Until(ctx, limit, func() (bool, error) {
		files, failed = Lag(ctx, client, prefix+"-files", topics.Events)
		if workspaces && failed == nil {
			spaces, failed = Lag(ctx, client, prefix+"-workspaces", topics.Notify)
		}
		return failed == nil && files+spaces == 0, nil
	})
	if err != nil {
		return 0, errors.Join(fmt.Errorf("%d events and %d notices are not committed: %w", files, spaces, err), failed)
	}
	return took, nil
}

// AwaitView waits until the query API says that its view has all records, and returns how long that took.
func AwaitView(ctx context.Context, serve *Program, limit time.Duration) (time.Duration, error) {
	client := http.Client{Timeout: 10 * time.Second}
	last := ""
	took, err := Until(ctx, limit, func() (bool, error) {
		resp, err := client.Get(serve.URL + "/v1/status")
		if err != nil {
			last = err.Error()
			return false, nil //nolint:nilerr // it may be starting
		}
		var status struct {
			Ready      bool
			Partitions []struct {
				LagRecords int64 `json:"lag_records"`
			}
		}
		err = errors.Join(json.NewDecoder(resp.Body).Decode(&status), resp.Body.Close())
		lag := int64(0)
		for _, p := range status.Partitions {
			lag += p.LagRecords
		}
		last = fmt.Sprintf("%s ready %t lag %d %v", resp.Status, status.Ready, lag, err)
		return err == nil && status.Ready && lag == 0, nil
	})
	if err != nil {
		return 0, fmt.Errorf("the view does not catch up: %s: %w\n%s", last, err, serve.Tail())
	}
	return took, nil
}

// JudgeView compares the query API with the model, and once more after a restart without its local store.
func JudgeView(ctx context.Context, serve *Program, model *oracle.Model, limit time.Duration, r *oracle.Report) error {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	for _, when := range []string{"caught up", "wiped, caught up"} {
		took, err := AwaitView(ctx, serve, limit)
		if err != nil {
			return err
		}
		r.Fact("view: "+when+" after, s", fmt.Sprintf("%.1f", took.Seconds()))
		if err := model.JudgeAPI(ctx, client, serve.URL, r); err != nil {
			return fmt.Errorf("%w\n%s", err, serve.Tail())
		}
		if when == "caught up" {
			if err := errors.Join(serve.Kill(), Wipe(serve.Data), serve.Start()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Wipe removes all that is in a folder, which may be a mount point.
func Wipe(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

package kafka_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/kafka"
	"tidemark/topology"
)

// fakeMetadata starts a broker that answers every metadata request with up as the brokers, 1 to 3 as the replicas of
// topic t's one partition, and isr of them in sync.
func fakeMetadata(t *testing.T, up []int32, leader int32, isr ...int32) kafka.Config {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cluster.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response, ok := request.ResponseKind().(*kmsg.MetadataResponse)
		if !ok {
			return nil, nil, false
		}
		for _, id := range up {
			b := kmsg.NewMetadataResponseBroker()
			b.NodeID, b.Host, b.Port = id, "127.0.0.1", 1
			response.Brokers = append(response.Brokers, b)
		}
		topic, partition := kmsg.NewMetadataResponseTopic(), kmsg.NewMetadataResponseTopicPartition()
		topic.Topic = new("t")
		partition.Leader, partition.Replicas, partition.ISR = leader, []int32{1, 2, 3}, isr
		topic.Partitions = append(topic.Partitions, partition)
		response.Topics = append(response.Topics, topic)
		return response, nil, true
	})
	return kafka.Config{Brokers: cluster.ListenAddrs()}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config   kafka.Config
		away     []int32
		want     string // of the weak partition; empty: there is none
		refusing bool
		down     []int32
	}{
		"whole": {fakeMetadata(t, []int32{1, 2, 3}, 1, 1, 2, 3), nil, "", false, nil},
		"one behind": {
			fakeMetadata(t, []int32{1, 2, 3}, 1, 1, 3), nil,
			"t/0 has 2 of 3 replicas in sync, not 2", false, nil,
		},
		"one down": {
			fakeMetadata(t, []int32{1, 3}, 1, 1, 3), nil,
			"t/0 has 2 of 3 replicas in sync, not 2", false,
			[]int32{2},
		},
		"two down": {
			fakeMetadata(t, []int32{1}, 1, 1), nil,
			"t/0 has 1 of 3 replicas in sync, not 2 and 3", true,
			[]int32{2, 3},
		},
		"the last in sync down": {
			fakeMetadata(t, []int32{1, 2}, -1, 3), nil, "t/0 has no leader", true,
			[]int32{3},
		},
		"away, not noticed": {
			fakeMetadata(t, []int32{1, 2, 3}, 1, 1, 2, 3),
			[]int32{2},
			"t/0 has 2 of 3 replicas in sync, not 2", false, nil,
		},
		"two away, never noticed": {
			fakeMetadata(t, []int32{1, 3}, 1, 1, 3),
			[]int32{3},
			"t/0 has 1 of 3 replicas in sync, not 2 and 3", true,
			[]int32{2},
		},
		"the leader away, not noticed": {
			fakeMetadata(t, []int32{1, 2, 3}, 2, 1, 2, 3),
			[]int32{2},
			"t/0 has no leader", false, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			state, err := kafka.Describe(t.Context(), c.config, []topology.Topic{{Name: "t", MinISR: 2}}, c.away...)
			if err != nil {
				t.Fatal(err)
			}
			var weak []string
			for _, w := range state.UnderReplicated {
				weak = append(weak, w.String())
				if w.BelowMinISR != c.refusing {
					t.Errorf("refusing %v, want %v", w.BelowMinISR, c.refusing)
				}
			}
			if got := strings.Join(weak, "; "); got != c.want {
				t.Errorf("weak %q, want %q", got, c.want)
			}
			if diff := cmp.Diff(c.down, state.Down); diff != "" {
				t.Errorf("down (-want +got):\n%s", diff)
			}
			if state.Single() {
				t.Error("single: its partitions have replicas elsewhere")
			}
		})
	}
}

package doctor

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/topology"
)

func TestInstancesThatShare(t *testing.T) {
	config := kafka.Config{Brokers: devbroker.ForTest(t)}
	s, err := topology.New(fmt.Sprintf("d%08x", rand.Uint32()),
		topology.Sizing{Partitions: 2, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.ApplyTopics(t.Context(), config, s.Topics()); err != nil {
		t.Fatal(err)
	}
	d := &cluster{Config: Config{Kafka: config, Streams: s}}
	check := d.instances(topology.GroupUse{Name: s.ServeGroup})
	if f := check(t.Context())[0]; f.Status != Note || !strings.Contains(f.What, "no instance") {
		t.Errorf("without instances: %+v", f)
	}
	options, err := config.Franz()
	if err != nil {
		t.Fatal(err)
	}
	member, err := kgo.NewClient(append(options, kgo.ConsumerGroup(s.ServeGroup), kgo.ConsumeTopics(s.Files.Name))...)
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		f := check(t.Context())[0]
		if f.Status == OK && strings.Contains(f.What, "1 instances divide 2 partitions") {
			return
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("with one instance: %+v", f)
		}
	}
}

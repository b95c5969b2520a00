package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tidemark/devbroker"
	"tidemark/e2e/oracle"
	"tidemark/kafka"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const parityKeys = 10_000

// oddKeys are workspace ids as strange as the provider may send them: any text of at most 256 bytes without control
// characters. Lengths of every remainder by four are among them, which is where murmur2 differs from its copies.
func oddKeys() (keys []string) {
	rnd := rand.New(rand.NewPCG(1, 2))
	alphabets := [][]rune{
		[]rune("0123456789"), []rune("abcdefghijklmnopqrstuvwxyz234567"), []rune(`/%_.~ "\<>&?#+;=`), []rune("äöüßéñøłžЯбжサ京漢字"),
		[]rune("🙂🚀👩‍💻🏳️‍🌈\u0301\u200d\ufeff\u00a0\u2028\U0010ffff"),
	}
	seen := map[string]bool{}
	for len(keys) < parityKeys {
		var b strings.Builder
		alphabet := alphabets[rnd.IntN(len(alphabets))]
		for n := 1 + rnd.IntN(1<<rnd.IntN(9)); n > 0; n-- {
			if rnd.IntN(8) == 0 {
				alphabet = alphabets[rnd.IntN(len(alphabets))]
			}
			if r := alphabet[rnd.IntN(len(alphabet))]; b.Len()+utf8.RuneLen(r) <= 256 {
				b.WriteRune(r)
			}
		}
		if key := b.String(); !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// TestPartitionParity lets the real clients write odd keys, and wants each in the partition that we say.
func TestPartitionParity(t *testing.T) {
	keys := oddKeys()
	lines := strings.Join(keys, "\n") + "\n"
	t.Run("kafka-python", func(t *testing.T) {
		interpreter := python(t)
		samePartitions(t, keys, func(broker, topic string) *exec.Cmd {
			cmd := exec.Command(interpreter, "recipe/keys.py", broker, topic)
			cmd.Stdin = strings.NewReader(lines)
			return cmd
		})
	})
	t.Run("java", func(t *testing.T) {
		needKafkaTools(t)
		samePartitions(t, keys, func(broker, topic string) *exec.Cmd {
			cmd := console(broker, topic)
			cmd.Stdin = strings.NewReader(strings.Join(keys, "\tjava\n") + "\tjava\n")
			return cmd
		})
	})
}

func samePartitions(t *testing.T, keys []string, client func(broker, topic string) *exec.Cmd) {
	t.Helper()
	const n = 32
	brokers, topic := devbroker.ForTest(t), fmt.Sprintf("parity-%d-%d", os.Getpid(), time.Now().UnixNano())
	admin, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	if _, err := kadm.NewClient(admin).CreateTopic(t.Context(), n, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := kadm.NewClient(admin).DeleteTopics(context.Background(), topic); err != nil {
			t.Logf("delete %s: %v", topic, err)
		}
	})
	if out, err := client(brokers[0], topic).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	records, err := oracle.Read(t.Context(), brokers, topic)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int32{}
	for _, r := range records {
		found[string(r.Key)] = r.Partition
	}
	differ, used := 0, map[int32]bool{}
	for _, key := range keys {
		at, ok := found[key]
		if used[at] = true; !ok {
			t.Fatalf("the client did not write %q", key)
		}
		if ours := kafka.Partition(key, n); ours != at {
			if differ++; differ <= 5 {
				t.Errorf("%q: the client wrote to %d, we say %d", key, at, ours)
			}
		}
	}
	if differ > 0 || len(used) != n {
		t.Errorf("%d of %d keys differ; %d of %d partitions are used", differ, len(keys), len(used), n)
	}
}

// needKafkaTools skips when there is no Java or no way to fetch Kafka's own tools.
func needKafkaTools(t *testing.T) {
	t.Helper()
	for _, name := range []string{"java", "bash"} {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, "%s: %v", name, err)
		}
	}
	if out, err := exec.Command("../deploy/kafka/kafka.sh", "jars").CombinedOutput(); err != nil {
		missing(t, "Apache Kafka's jars: %v\n%s", err, out)
	}
}

// console is Kafka's console producer; it reads lines of key, tab, value.
func console(broker, topic string) *exec.Cmd {
	cmd := exec.Command("../deploy/kafka/kafka.sh", "tool", "org.apache.kafka.tools.ConsoleProducer", "--topic", topic,
		"--property", "parse.key=true", "--property", "key.separator=\t")
	cmd.Env = append(os.Environ(), "KAFKA_BROKERS="+broker, "JAVA_TOOL_OPTIONS=-Dfile.encoding=UTF-8")
	return cmd
}

package kafka_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// TestParity sends 10,000 odd keys with the clients of other languages, as they are, and wants each record in the
// partition that tidemark would have chosen. Scripts of the checkout fetch the clients.
func TestParity(t *testing.T) {
	if testing.Short() {
		t.Skip("runs clients of other languages")
	}
	keys := oddKeys(10_000)
	for name, command := range map[string]func(*testing.T, string, string) *exec.Cmd{
		"java": func(t *testing.T, brokers, topic string) *exec.Cmd {
			t.Helper()
			if _, err := exec.LookPath("javac"); err != nil {
				t.Skip("a JDK is missing: apt install openjdk-17-jdk-headless")
			}
			jars := fetched(t, "../deploy/kafka/kafka.sh", "jars")
			return exec.Command("java", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(jars, "*"),
				"testdata/parity/Produce.java", brokers, topic)
		},
		"kafka-python": func(t *testing.T, brokers, topic string) *exec.Cmd {
			t.Helper()
			return exec.Command(fetched(t, "../.ci/python"), "testdata/parity/produce.py", "kafka-python", brokers,
				topic)
		},
		"confluent-kafka": func(t *testing.T, brokers, topic string) *exec.Cmd {
			t.Helper()
			return exec.Command(fetched(t, "../.ci/python"), "testdata/parity/produce.py", "confluent-kafka", brokers,
				topic)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := kafka.Config{Brokers: devbroker.ForTest(t)}
			topic := streams(t, topology.Sizing{Partitions: 32, Replication: 1, MinISR: 1}).Events
			if _, err := kafka.ApplyTopics(t.Context(), c, []topology.Topic{topic}); err != nil {
				t.Fatal(err)
			}
			cmd := command(t, strings.Join(c.Brokers, ","), topic.Name)
			cmd.Stdin = strings.NewReader(lines(keys))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.String())
			}
			compareSent(t, c, topic, keys)
			if name != "confluent-kafka" { // librdkafka shows its partitioner only by what it sends
				compareComputed(t, keys, string(out))
			}
		})
	}
}

// fetched runs a script that installs something and prints where.
func fetched(t *testing.T, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command(script, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("%s: %v: %s", script, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// compareSent reads what the client sent, each record where the client put it.
func compareSent(t *testing.T, c kafka.Config, topic topology.Topic, keys []string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.ConsumeTopics(topic.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	missing := map[string]int{}
	for _, key := range keys {
		missing[key]++
	}
	used := map[int32]bool{}
	wrong := 0
	for n := 0; n < len(keys); {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d records: %v", n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			missing[string(r.Key)]--
			used[r.Partition] = true
			if want := kafka.Partition(string(r.Key), topic.Partitions); r.Partition != want {
				if wrong++; wrong <= 5 {
					t.Errorf("key %q is in partition %d, ours would be in %d", r.Key, r.Partition, want)
				}
			}
		})
	}
	for key, n := range missing {
		if n != 0 {
			t.Errorf("key %q: sent and read differ by %d", key, n)
		}
	}
	if len(used) != topic.Partitions {
		t.Errorf("only %d of %d partitions were used: the keys show little", len(used), topic.Partitions)
	}
	t.Logf("%d keys sent, %d in another partition than ours", len(keys), wrong)
}

// compareComputed compares what the client's partitioner answers for topics of other sizes.
func compareComputed(t *testing.T, keys []string, out string) {
	t.Helper()
	answers := strings.Split(strings.TrimSpace(out), "\n")
	if len(answers) != len(keys) {
		t.Fatalf("%d answers for %d keys", len(answers), len(keys))
	}
	wrong := 0
	for i, key := range keys {
		fields := strings.Fields(answers[i])
		for j, n := range []int{1, 7, 12, 32, 1009} {
			want := strconv.Itoa(int(kafka.Partition(key, n)))
			if len(fields) != 5 || fields[j] != want {
				if wrong++; wrong <= 5 {
					t.Errorf("key %q of %d partitions: the client says %q, we say %s", key, n, answers[i], want)
				}
			}
		}
	}
}

// The partition of a file's record is that of its workspace, however the key had to be escaped.
func TestFileKeysFollowTheWorkspace(t *testing.T) {
	for _, workspace := range oddKeys(10_000) {
		want := kafka.Partition(workspace, 32)
		for _, key := range []string{tidemarkv1.JoinKey(workspace, "f/1%2F_"), tidemarkv1.JoinKey(workspace, "")} {
			if got := kafka.FilePartition([]byte(key), 32); got != want {
				t.Fatalf("workspace %q is in partition %d, key %q in %d", workspace, want, key, got)
			}
		}
	}
}

func lines(keys []string) string {
	var b strings.Builder
	for _, key := range keys {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString([]byte(key)))
	}
	return b.String()
}

// oddKeys are n keys, the same ones each time: what ids look like, what they should not look like, and everything that
// a hash over 4 bytes at a time may get wrong.
func oddKeys(n int) []string {
	keys := []string{
		"", "a", "ab", "abc", "abcd", "\x00", "\x00\x00\x00\x00", " ", "_", "__offset", "/", "//", "%", "%2F", "%252F",
		"ws1/", "ws/1", "..", "null",
		"123", "4821930571648203911", "-1", "ä", "a\u0308", "日本語", "🙂", "👩‍👩‍👧‍👦", "\u202eabc", "\ufeff",
		"\xff\xfe\xfd", "\x80", strings.Repeat("x", 256),
		strings.Repeat("日", 85), strings.Repeat("\xff", 1000),
	}
	random := rand.New(rand.NewPCG(20, 26))
	alphabet := []rune("abcXYZ0123456789-_./%~+=&? " +
		"\t\n\"\\'äßéñøłжщאبहि中文字かなカナ한글🙂🚀\u0000\u001f\u007f\u0300\u200d\u2028\ufffd\U0010ffff")
	for len(keys) < n {
		var b []byte
		switch random.IntN(4) {
		case 0: // an id of Fast.io's
			b = fmt.Append(b, random.Uint64()>>1)
		case 1:
			for range 1 + random.IntN(40) {
				b = append(b, string(alphabet[random.IntN(len(alphabet))])...)
			}
		case 2: // any bytes
			for range 1 + random.IntN(64) {
				b = append(b, byte(random.Uint32()))
			}
		case 3: // high bytes only: Java's are signed
			for range 1 + random.IntN(9) {
				b = append(b, byte(0x80|random.Uint32()))
			}
		}
		keys = append(keys, string(b))
	}
	return keys
}

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Kafka Connect reads the topics with its own converters, as deploy/connect configures them: every record once, also
// over a restart, and one that is no JSON becomes a dead letter of Connect's.
func TestConnect(t *testing.T) {
	t.Parallel()
	needKafkaTools(t)
	if os.Getenv("KAFKA_BROKERS") == "" {
		t.Skip("NOT TESTED: Kafka Connect needs Apache Kafka: make e2e-kafka")
	}
	g, _ := byIngress(t, plain(300))
	good := g.connectRecords()
	bad := &kgo.Record{Topic: g.topics.Index, Key: []byte("w/f"), Value: []byte("this is no JSON")}
	again := good[len(good)-1]
	again = &kgo.Record{Topic: again.Topic, Partition: again.Partition, Key: again.Key, Value: again.Value}
	g.produce(bad)

	begin := time.Now()
	connect, output := g.connect()
	g.start(connect)
	g.awaitLines(connect, output, len(good))
	g.stopJava(connect)
	g.start(connect)
	g.produce(again)
	good = append(good, again)
	g.awaitLines(connect, output, len(good))
	g.stopJava(connect)

	lines := linesByPosition(t, output)
	for _, r := range good {
		at := fmt.Sprintf("%s/%d:%d", r.Topic, r.Partition, r.Offset)
		if found := lines[at]; len(found) != 1 {
			t.Errorf("%s arrived %d times, want once", at, len(found))
		} else if err := sameAsLine(r, found[0]); err != nil {
			t.Errorf("%s: %v\n record %s\n line   %s", at, err, r.Value, found[0])
		}
		delete(lines, at)
	}
	for at := range lines {
		t.Errorf("%s arrived and is no record of the topics", at)
	}
	var dead []string
	err := oracle.Each(t.Context(), g.brokers, g.connectDLQ(), 0, func(r *kgo.Record) {
		dead = append(dead, string(r.Key)+" "+string(r.Value))
	})
	if want := []string{"w/f this is no JSON"}; err != nil || !slices.Equal(dead, want) {
		t.Errorf("dead letters %q, want %q: %v", dead, want, err)
	}
	t.Logf("%d records by Connect in %v, restart included", len(good), time.Since(begin).Round(time.Millisecond))
}

func (f *fixture) connectDLQ() string { return f.prefix + "-connect-dlq" }

// connectRecords returns the records of the topics that Connect reads.
func (f *fixture) connectRecords() (records []*kgo.Record) {
	f.t.Helper()
	for _, topic := range []string{f.topics.Events, f.topics.Notify, f.topics.Index} {
		before := len(records)
		for partition := range partitions {
			f.check(oracle.Each(f.t.Context(), f.brokers, topic, partition, func(r *kgo.Record) {
				records = append(records, r)
			}))
		}
		if len(records) == before {
			f.t.Fatalf("%s is empty", topic)
		}
	}
	return records
}

func (f *fixture) produce(r *kgo.Record) {
	f.t.Helper()
	f.check(f.client.ProduceSync(f.t.Context(), r).FirstErr())
}

// connect returns a worker with the configuration of deploy/connect for this installation, and the file it writes.
func (f *fixture) connect() (_ *rig.Program, output string) {
	f.t.Helper()
	output = filepath.Join(f.dir, "connect.txt")
	f.t.Cleanup(func() { // a shared cluster outlives the test
		if _, err := kadm.NewClient(f.client).DeleteTopics(context.Background(), f.connectDLQ()); err != nil {
			f.t.Logf("delete %s: %v", f.connectDLQ(), err)
		}
	})
	worker, err := rig.Connect("..", f.dir, "file.properties",
		[]string{"bootstrap.servers=" + strings.Join(f.brokers, ","), "plugin.path=", "offset.flush.interval.ms=1000"},
		[]string{
			"name=" + f.prefix, "file=" + output,
			"topics=" + strings.Join([]string{f.topics.Events, f.topics.Index, f.topics.Notify}, ","),
			"errors.deadletterqueue.topic.name=" + f.connectDLQ(), "errors.deadletterqueue.topic.replication.factor=1",
		})
	f.check(err)
	f.t.Cleanup(worker.Close)
	return worker, output
}

// stopJava ends a program with SIGTERM. Java exits with 143 then, also when it has committed and closed everything.
func (f *fixture) stopJava(p *rig.Program) {
	f.t.Helper()
	f.check(p.Signal(syscall.SIGTERM))
	_, err := rig.Until(f.t.Context(), 30*time.Second, func() (bool, error) { return !p.Alive(), nil })
	f.check(err)
}

func (f *fixture) awaitLines(worker *rig.Program, path string, want int) {
	f.t.Helper()
	lines := 0
	_, err := rig.Until(f.t.Context(), time.Minute, func() (bool, error) {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			err = worker.Signal(0) // not started yet
		}
		lines = bytes.Count(text, []byte("\n"))
		return lines >= want, err
	})
	if err != nil {
		f.t.Fatalf("%d lines of %d: %v\n%s", lines, want, err, worker.Tail())
	}
}

var kafkaPosition = regexp.MustCompile(`kafka_(topic|partition|offset)=([^,}]*)`)

// linesByPosition reads what Connect wrote, by the position that it added to each record.
func linesByPosition(t *testing.T, path string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		at := map[string]string{}
		for _, m := range kafkaPosition.FindAllStringSubmatch(line, -1) {
			at[m[1]] = m[2]
		}
		position := fmt.Sprintf("%s/%s:%s", at["topic"], at["partition"], at["offset"])
		lines[position] = append(lines[position], strings.TrimSuffix(line, "\n"))
	}
	return lines
}

// sameAsLine compares a record with the text of a Java map, whose order is not known: both must have the same
// characters, and the line must have each name with its value.
func sameAsLine(r *kgo.Record, line string) error {
	var value map[string]any
	decoder := json.NewDecoder(bytes.NewReader(r.Value))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	value["kafka_topic"], value["kafka_partition"], value["kafka_offset"] = r.Topic, r.Partition, r.Offset
	var missing []string
	text := javaText(value, func(pair string) {
		if !strings.Contains(line, pair) {
			missing = append(missing, pair)
		}
	})
	if len(missing) > 0 {
		return fmt.Errorf("the line has no %q", missing)
	}
	want, got := []rune(text), []rune(line)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("the line has other characters than %s", text)
	}
	return nil
}

// javaText returns what Java's toString gives for JSON as JsonConverter reads it, with names sorted. It calls scalar
// with each name and value.
func javaText(value any, scalar func(string)) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case map[string]any:
		var members []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			member := name + "=" + javaText(v[name], scalar)
			if !strings.ContainsAny(member, "{[") {
				scalar(member)
			}
			members = append(members, member)
		}
		return "{" + strings.Join(members, ", ") + "}"
	case []any:
		var elements []string
		for _, e := range v {
			elements = append(elements, javaText(e, scalar))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	case json.Number:
		return javaNumber(v.String())
	default:
		return fmt.Sprint(v)
	}
}

// javaNumber returns the number that JsonConverter makes of one in JSON. It keeps the low 64 bits of an integer, which
// changes those beyond 2^63, and reads all others as float64.
func javaNumber(text string) string {
	if n, ok := new(big.Int).SetString(text, 10); ok {
		low := new(big.Int).And(n, new(big.Int).SetUint64(math.MaxUint64)) // in two's complement
		return strconv.FormatInt(int64(low.Uint64()), 10)
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	if text = strconv.FormatFloat(f, 'f', -1, 64); !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

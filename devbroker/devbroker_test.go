package devbroker_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/devbroker"
)

// childDir makes the test binary a broker on that directory, for a test that has to kill one.
const childDir = "DEVBROKER_TEST_CHILD"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	b, err := devbroker.Start(context.Background(), devbroker.Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(b.Addr())
	select {} // until killed
}

func startBroker(t *testing.T, c devbroker.Config) *devbroker.Broker {
	t.Helper()
	b, err := devbroker.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func connect(t *testing.T, addr string, opts ...kgo.Opt) (*kgo.Client, *kadm.Client) {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.RequestRetries(3))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, kadm.NewClient(client)
}

func createTopic(t *testing.T, admin *kadm.Client, name string, partitions int32, config map[string]string) {
	t.Helper()
	settings := map[string]*string{}
	for k, v := range config {
		settings[k] = &v
	}
	if _, err := admin.CreateTopic(t.Context(), partitions, 1, settings, name); err != nil {
		t.Fatal(err)
	}
}

func produce(t *testing.T, client *kgo.Client, topic string, n int, key func(int) string) {
	t.Helper()
	for i := range n { // one at a time: a batch each, as compaction keeps the last batch whole
		r := &kgo.Record{Topic: topic, Key: []byte(key(i)), Value: fmt.Append(nil, i)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func readAll(t *testing.T, addr, topic string, want int) map[string]int {
	t.Helper()
	client, _ := connect(t, addr, kgo.ConsumeTopics(topic))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := map[string]int{}
	for n := 0; n < want; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %d of %d records: %v", topic, n, want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++; n++ })
	}
	return seen
}

func TestSurvivesKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broker")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill := func() {
		if !killed {
			killed = true
			child.Process.Kill()
			child.Wait()
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child did not start: %v", err)
	}
	client, admin := connect(t, strings.TrimSpace(line))
	createTopic(t, admin, "kept", 4, nil)
	produce(t, client, "kept", 1000, func(i int) string { return fmt.Sprint(i) })
	offsets := kadm.Offsets{}
	offsets.AddOffset("kept", 0, 7, -1)
	if err := admin.CommitAllOffsets(t.Context(), "group", offsets); err != nil {
		t.Fatal(err)
	}
	before, err := admin.ListTopics(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}

	_, err = devbroker.Start(t.Context(), devbroker.Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", child.Process.Pid)) {
		t.Errorf("a second broker on the directory: got %v, want it refused with the holder's number", err)
	}

	kill()
	b := startBroker(t, devbroker.Config{Dir: dir})
	seen := readAll(t, b.Addr(), "kept", 1000)
	if len(seen) != 1000 {
		t.Errorf("after kill -9 %d different records are left, want 1000", len(seen))
	}
	_, admin = connect(t, b.Addr())
	committed, err := admin.FetchOffsets(t.Context(), "group")
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := committed.Lookup("kept", 0); !ok || o.At != 7 {
		t.Errorf("committed offset is %v, want 7", o.At)
	}
	after, err := admin.ListTopics(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	if before["kept"].ID != after["kept"].ID {
		t.Errorf("topic id was %v and is %v: local stores would be thrown away", before["kept"].ID, after["kept"].ID)
	}
}

func TestRefusesToStart(t *testing.T) {
	held := startBroker(t, devbroker.Config{Dir: t.TempDir()})
	for _, c := range []struct {
		name, want string
		config     devbroker.Config
	}{
		{"port in use", "is in use", devbroker.Config{Addr: held.Addr()}},
		{"not loopback", "listens on loopback only", devbroker.Config{Addr: "0.0.0.0:0"}},
		{"no port", "address of the embedded broker", devbroker.Config{Addr: "127.0.0.1"}},
		{"directory is a file", "data directory", devbroker.Config{Dir: filepath.Join(os.Args[0], "x")}},
	} {
		b, err := devbroker.Start(t.Context(), c.config)
		if err == nil {
			b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestCloseFreesAddressAndFolder(t *testing.T) {
	config := devbroker.Config{Dir: t.TempDir()}
	for range 3 {
		b, err := devbroker.Start(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		config.Addr = b.Addr()
		for range 2 {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestContextEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b, err := devbroker.Start(ctx, devbroker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		c, err := net.Dial("tcp", b.Addr())
		if err != nil {
			return
		}
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the broker listens 5 s after its context ended")
}

func TestCompactsAfterRestart(t *testing.T) {
	config := devbroker.Config{Dir: t.TempDir(), Compaction: 50 * time.Millisecond}
	first, err := devbroker.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	_, admin := connect(t, first.Addr())
	createTopic(t, admin, "table", 1, map[string]string{"cleanup.policy": "compact"})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	b := startBroker(t, config)
	client, _ := connect(t, b.Addr())
	produce(t, client, "table", 100, func(int) string { return "key" })
	deadline := time.Now().Add(10 * time.Second)
	for {
		reader, _ := connect(t, b.Addr(), kgo.ConsumeTopics("table"))
		n := 0
		for end := false; !end; {
			fetches := reader.PollFetches(t.Context())
			if err := fetches.Err(); err != nil {
				t.Fatal(err)
			}
			fetches.EachRecord(func(r *kgo.Record) { n++; end = end || string(r.Value) == "99" })
		}
		if n <= 2 { // the last batch is kept whole, and one before it
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 100 records of one key are left", n)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestTopicsComeFromRequestsOnly(t *testing.T) {
	b := startBroker(t, devbroker.Config{})
	client, _ := connect(t, b.Addr(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "typo", Value: []byte("x")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("produce to a topic that nobody created: got %v, want %v", err, kerr.UnknownTopicOrPartition)
	}
}

// kafka-python refuses to read the source of a setting that kfake answers from CreateTopics version 5 on.
func TestKafkaPythonCreatesTopics(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a client of another language")
	}
	python, err := exec.Command("../.ci/python").Output()
	if err != nil {
		t.Skipf("no Python with kafka-python: %v", err)
	}
	b := startBroker(t, devbroker.Config{})
	out, err := exec.Command(strings.TrimSpace(string(python)), "testdata/create_topic.py", b.Addr(),
		"made").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "compact" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTakesRecordsOfTheTopicsMaximum(t *testing.T) {
	b := startBroker(t, devbroker.Config{})
	client, admin := connect(t, b.Addr(), kgo.ProducerBatchMaxBytes(4<<20))
	createTopic(t, admin, "large", 1, map[string]string{"max.message.bytes": fmt.Sprint(4 << 20)})
	value := make([]byte, 3<<20)
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "large", Value: value}).FirstErr(); err != nil {
		t.Errorf("3 MiB: %v", err)
	}
}

// frame is a request with an empty client id and the given body.
func frame(key, version int16, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = append(b, 0, 0, 0, 1, 0xff, 0xff)
	return append(b, body...)
}

func TestHostileFrames(t *testing.T) {
	b := startBroker(t, devbroker.Config{})
	send := func(frame []byte) {
		c, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatalf("the broker is gone: %v", err)
		}
		defer c.Close()
		c.Write(frame)
		c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		io.ReadFull(c, make([]byte, 1))
	}
	send(frame(1000, 0, nil))                         // no such API
	send([]byte{0xff, 0xff, 0xff, 0xff, 0, 18, 0, 0}) // 4 GiB are to come
	send([]byte{0, 0, 0, 2, 0, 18})                   // shorter than any request
	send([]byte{0, 0, 0})                             // not even a length
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		key, version := int16(random.IntN(100)-2), int16(random.IntN(20))
		body := make([]byte, random.IntN(64))
		for i := range body {
			body[i] = byte(random.Uint32())
		}
		if r := kmsg.RequestForKey(key); r != nil {
			// In flexible versions kmsg counts to whatever number of tags a frame claims: seconds of work, and no harm
			// else.
			if r.SetVersion(version); r.IsFlexible() {
				body = nil
			}
		}
		send(frame(key, version, body))
	}
	client, admin := connect(t, b.Addr())
	createTopic(t, admin, "after", 1, nil)
	produce(t, client, "after", 1, func(int) string { return "k" })
}

func TestForTest(t *testing.T) {
	t.Setenv("KAFKA_BROKERS", "a:1,b:2")
	if got := devbroker.ForTest(t); len(got) != 2 || got[0] != "a:1" || got[1] != "b:2" {
		t.Errorf("got %q, want the two of KAFKA_BROKERS", got)
	}
	t.Setenv("KAFKA_BROKERS", "")
	brokers := devbroker.ForTest(t)
	_, admin := connect(t, brokers[0])
	if _, err := admin.BrokerMetadata(t.Context()); err != nil {
		t.Error(err)
	}
}

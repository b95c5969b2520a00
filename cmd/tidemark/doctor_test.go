package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/doctor"
	"tidemark/ingress"
	"tidemark/kafka"
	"tidemark/topology"
)

// A diagnosis is what the doctor printed, by check.
type diagnosis map[string][]doctor.Finding

// examine runs the doctor on a cluster of tests.
func examine(t *testing.T, want int, brokers string, streams topology.Streams, more ...string) diagnosis {
	t.Helper()
	begin := time.Now()
	args := append([]string{
		"doctor", "-o", "json", "--brokers", brokers, "--topic-prefix", prefixOf(streams), "--watch", "500ms",
		"--partitions", "3", "--replication", "1", "--min-insync", "1",
	}, more...)
	out, errs, code := tidemark(t, args...)
	if code != want {
		t.Errorf("exit %d, want %d\n%s%s", code, want, out, errs)
	}
	found := diagnosis{}
	for l := range strings.Lines(out) {
		var f doctor.Finding
		if err := json.Unmarshal([]byte(l), &f); err != nil {
			t.Fatalf("line %q: %v", l, err)
		}
		if f.Status != doctor.OK && f.Status != doctor.Skipped && f.Fix == "" {
			t.Errorf("does not say what to do: %s", l)
		}
		found[f.Check] = append(found[f.Check], f)
	}
	t.Logf("in %v", time.Since(begin).Round(time.Millisecond))
	return found
}

// says wants a finding of a check with a status and a text.
func (d diagnosis) says(t *testing.T, check, status, text string) {
	t.Helper()
	for _, f := range d[check] {
		if f.Status == status && strings.Contains(f.What, text) {
			return
		}
	}
	t.Errorf("%s: %+v; want %s with %q", check, d[check], status, text)
}

// advises wants a text in what a check says is to be done.
func (d diagnosis) advises(t *testing.T, check, text string) {
	t.Helper()
	if !slices.ContainsFunc(d[check], func(f doctor.Finding) bool { return strings.Contains(f.Fix, text) }) {
		t.Errorf("%s: %+v; want the advice %q", check, d[check], text)
	}
}

const unbound = "an-unbound-secret-of-32-bytes-xx"

func TestDoctorOfAHealthyInstallation(t *testing.T) {
	t.Setenv(secretsVariable, unbound)
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	config := kafka.Config{Brokers: brokers}
	scheme, err := ingress.ParseScheme("standard-webhooks", "")
	if err != nil {
		t.Fatal(err)
	}
	secret := "whsec_" + strings.Repeat("YWJj", 12)
	t.Setenv(secretsVariable, secret)
	secrets, err := ingress.ParseSecrets(scheme, secret)
	if err != nil {
		t.Fatal(err)
	}
	producer, err := kafka.NewProducer(config)
	if err != nil {
		t.Fatal(err)
	}
	role, err := ingress.New(ingress.Config{
		Scheme: scheme, Secrets: secrets,
		Topic: streams.Events.Name, Partitions: streams.Events.Partitions, Producer: producer,
		Check: func(context.Context) error { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := role.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	front := httptest.NewServer(role.Handler())
	t.Cleanup(front.Close)
	ready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"ready":true}`)
	}))
	t.Cleanup(ready.Close)
	produce(t, brokers, &kgo.Record{
		Topic: streams.Events.Name, Partition: kafka.Partition("ws", 3), Key: []byte("ws"),
		Value: []byte(`{"event":"workspace_storage_file_added","event_id":"e1","workspace_id":"ws","object_id":"f"}`),
	})
	fold(t, brokers, streams)

	d := examine(t, exitOK, strings.Join(brokers, ","), streams, "--scheme", "standard-webhooks", "--ingress-url",
		front.URL, "--ready-url", ready.URL)
	d.says(t, "signature", doctor.OK, "1 active, scheme standard-webhooks")
	d.says(t, "brokers", doctor.OK, "without TLS, without a login")
	d.says(t, "topics", doctor.OK, "all 9")
	d.says(t, "replicas", doctor.OK, "all 27 partitions")
	d.says(t, "acls", doctor.OK, "process")
	d.says(t, "events", doctor.OK, "1 since")
	d.says(t, "files group", doctor.Warning, "the group has no members") // fold has left it
	d.says(t, "dead letters", doctor.OK, "none open")
	d.says(t, "ingress", doctor.OK, "accepts signatures of secret 1 of 1")
	d.says(t, "readiness", doctor.OK, "ready")
	if extent, err := kafka.Extent(t.Context(), config, streams.Events.Name); err != nil || extent.Len() != 1 {
		t.Errorf("the doctor wrote into the events topic: %v, %v", extent, err)
	}

	// Another secret, another scheme, nobody there, somebody else there.
	t.Setenv(secretsVariable, unbound)
	d = examine(t, exitFailed, strings.Join(brokers, ","), streams, "--ingress-url", front.URL, "--ready-url",
		"http://127.0.0.1:1")
	d.says(t, "ingress", doctor.Failure, "refuses the signature of secret 1 of 1: signature_missing")
	d.says(t, "readiness", doctor.Failure, "connection refused")
	d = examine(t, exitFailed, strings.Join(brokers, ","), streams, "--ingress-url", ready.URL, "--ready-url",
		front.URL)
	d.says(t, "ingress", doctor.Failure, "not like tidemark")
	d.says(t, "readiness", doctor.Failure, "answers 404")

	// Without a secret a 401 shows an ingress only if it is one of tidemark's.
	t.Setenv(secretsVariable, "")
	examine(t, exitOK, strings.Join(brokers, ","), streams, "--ingress-url", front.URL).
		says(t, "ingress", doctor.OK, "reachable; without a secret")
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(login.Close)
	examine(t, exitFailed, strings.Join(brokers, ","), streams, "--ingress-url", login.URL).
		says(t, "ingress", doctor.Failure, "answers 401, but not like tidemark")
}

func TestDoctorOfSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"short":  "of 5 bytes, want at least 24",
		unbound:  "1 active, scheme fastio",
		",":      "is empty",
		"\u00a0": "no webhook secret",
	} {
		t.Setenv(secretsVariable, text)
		status := doctor.Failure
		if text == unbound {
			status = doctor.OK
		}
		examine(t, exitFailed, "127.0.0.1:1", topology.Streams{Events: topology.Topic{Name: "x-events"}}).says(t,
			"signature", status, want)
	}
}

// Nothing answers anywhere: still an answer, in time.
func TestDoctorWithEverythingAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and answers none
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begin := time.Now()
	d := examine(t, exitFailed, "127.0.0.1:1,kafka.invalid:9092,"+silent.Addr().String(),
		topology.Streams{Events: topology.Topic{Name: "x-events"}},
		"--ingress-url", "http://"+silent.Addr().String(), "--ready-url", "http://"+silent.Addr().String())
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	d.says(t, "brokers", doctor.Failure, "is closed")
	d.says(t, "brokers", doctor.Failure, "kafka.invalid")
	d.says(t, "brokers", doctor.Failure, "no answer within 5s")
	d.says(t, "topics", doctor.Skipped, "no broker can be reached")
	d.says(t, "ingress", doctor.Failure, silent.Addr().String())
	d.says(t, "readiness", doctor.Failure, silent.Addr().String())
}

func TestDoctorOfTopicsAndFlow(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	addr := strings.Join(brokers, ",")
	d := examine(t, exitFailed, addr, streams, "--partitions", "4")
	d.says(t, "topics", doctor.Failure, streams.Events.Name+": partitions is 3, want 4")
	d.advises(t, "topics", "set --partitions to it")
	d.says(t, "events", doctor.Warning, "no events arrive")
	nowhere := topology.Streams{Events: topology.Topic{Name: "nowhere-events"}}
	d = examine(t, exitFailed, addr, nowhere)
	d.says(t, "topics", doctor.Failure, "nowhere-dlq does not exist")

	// A dead processor: events wait, and nobody reads them. Some cannot be decoded, many are sent again.
	partition := kafka.Partition("ws", 3)
	record := func(value string) *kgo.Record {
		return &kgo.Record{Topic: streams.Events.Name, Partition: partition, Key: []byte("ws"), Value: []byte(value)}
	}
	event := record(`{"event":"workspace_storage_file_added","event_id":"e1","workspace_id":"ws","object_id":"f"}`)
	produce(t, brokers, event)
	fold(t, brokers, streams)
	produce(t, brokers, event, event, record(`{"event":`), record(`not json`), record(`{"event":"e","event_id":"e2"}`))
	d = examine(t, exitFailed, addr, streams)
	d.says(t, "files group", doctor.Failure, "lag 5 and no members")
	d.says(t, "events", doctor.Warning, "schema: of the newest 6, 2 not_json, 1 missing_field cannot be decoded")
	d.says(t, "events", doctor.Warning, "duplicates: of the newest 6, 2 repeat another's id")
	fold(t, brokers, streams)
	d = examine(t, exitOK, addr, streams)
	d.says(t, "dead letters", doctor.Warning, "2 not_json, 1 missing_field since")

	// A group that stays where it is although somebody is in it; one whose topic ends before its commit.
	produce(t, brokers, event)
	idle, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumerGroup(streams.FilesGroup),
		kgo.ConsumeTopics(streams.Events.Name), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	idle.PollFetches(t.Context())
	d = examine(t, exitFailed, addr, streams)
	d.says(t, "files group", doctor.Failure, "did not move")
	idle.Close()
	commit(t, brokers, streams.WorkspacesGroup, streams.Notify.Name, partition, 99)
	d = examine(t, exitFailed, addr, streams)
	d.says(t, "workspaces group", doctor.Failure, "and the group has committed 99")
}

// Fields that cannot be read are named with a place to look at, and names that resemble known ones with the setting for
// them.
func TestDoctorOfFieldsAndNames(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	partition := kafka.Partition("ws", 3)
	record := func(id, event, more string) *kgo.Record {
		value := fmt.Sprintf(`{"event":%q,"event_id":%q,"workspace_id":"ws","object_id":"f"%s}`, event, id, more)
		return &kgo.Record{Topic: streams.Events.Name, Partition: partition, Key: []byte("ws"), Value: []byte(value)}
	}
	produce(t, brokers,
		record("e1", "workspace_storage_file_added", `,"size":1`), record("e2", "workspace_storage_file_updated", `,"size":"1 kB"`),
		record("e3", "workspace_storage_file_updated", `,"size":1.5,"created":"noon"`), record("e4", "workspace_storage_file_add", ""), record("e5", "comment_created", ""),
		record("e6", "file.uploaded", ""), record("e7", "file.uploaded", `,"canonical_event":"workspace_storage_file_added"`), // an alias is set by now
	)
	fold(t, brokers, streams)
	d := examine(t, exitOK, strings.Join(brokers, ","), streams)
	d.says(t, "events", doctor.Warning,
		fmt.Sprintf("fields: in the newest 7, 2 size, 1 created cannot be read, for example at %d:2", partition))
	d.says(t, "events", doctor.Note,
		"names: of the newest 7, 1 file.uploaded, 1 workspace_storage_file_add have no effect")
	const advice = "--event-aliases " +
		"file.uploaded=workspace_storage_file_added,workspace_storage_file_add=workspace_storage_file_added"
	found := false
	for _, f := range d["events"] {
		found = found || strings.HasSuffix(f.Fix, advice)
	}
	if !found {
		t.Errorf("nothing advises %s: %+v", advice, d["events"])
	}
}

func TestDoctorOfLoginsAndACLs(t *testing.T) {
	streams, err := topology.New("fastio", topology.Sizing{Partitions: 3, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	addr := guardedBroker(t, streams).ListenAddrs()[0]
	t.Setenv(passwordVariable, "topics")
	succeed(t, append(as("topics", addr, "topics", "apply"), "--partitions", "3")...)
	login := func(user string, more ...string) []string {
		return append([]string{"--kafka-sasl-mechanism", "SCRAM-SHA-256", "--kafka-sasl-user", user}, more...)
	}
	t.Setenv(passwordVariable, "process")
	examine(t, exitOK, addr, streams, login("process", "--role", "process")...).says(t, "acls", doctor.OK,
		"all that process does")
	d := examine(t, exitFailed, addr, streams, login("process", "--role", "process", "--role", "operate")...)
	d.says(t, "acls", doctor.OK, "all that process does")
	d.says(t, "acls", doctor.Failure, "operate would be refused: ")
	examine(t, exitFailed, addr, streams, login("serf")...).says(t, "brokers", doctor.Failure, "unknown user")
	t.Setenv(passwordVariable, "operate") // who looks after it may look at everything
	d = examine(t, exitOK, addr, streams, login("operate", "--role", "operate")...)
	d.says(t, "acls", doctor.OK, "all that operate does")
	d.says(t, "workspaces group", doctor.Warning, "the group has no members")
	_, errs, code := tidemark(t, append([]string{"why", "ws", "f", "--brokers", addr}, login("operate")...)...)
	if code != exitFailed || !strings.Contains(errs, errUnknownFile.Error()) {
		t.Errorf("why: exit %d, %s", code, errs)
	}
	t.Setenv(passwordVariable, "wrong")
	examine(t, exitFailed, addr, streams, login("process")...).says(t, "brokers", doctor.Failure, "wrong password")
	t.Setenv(passwordVariable, "nobody")
	d = examine(t, exitFailed, addr, streams, login("nobody")...)
	d.says(t, "brokers", doctor.OK, "nobody with SCRAM-SHA-256")
	d.says(t, "topics", doctor.Failure, "grant the ACL operation Describe")
	d.says(t, "acls", doctor.Warning, "ingest would be refused")
	t.Setenv(passwordVariable, "")
	examine(t, exitFailed, addr, streams).says(t, "brokers", doctor.Failure,
		"the broker requires SASL authentication, and none is configured")
}

func TestDoctorForPeople(t *testing.T) {
	out, _, code := tidemark(t, "doctor", "--brokers", "127.0.0.1:1")
	if code != exitFailed || !strings.Contains(out, "fail  brokers             127.0.0.1:1: tcp: ") ||
		!strings.Contains(out, "                      → start the broker") ||
		!strings.Contains(out, "\n0 ok, 1 to look at, 1 failed, 13 not checked\n") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, _, code = tidemark(t, "doctor", "--brokers", "127.0.0.1:1", "-o", "yaml"); code != exitFailed ||
		!strings.HasPrefix(out, "---\ncheck: signature\nstatus: warn\n") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
)

// A tracedEvent is the answer about one event, as far as it is compared.
type tracedEvent struct {
	EventID     string `json:"event_id"`
	Verdict     string
	Reason      string
	Version     int64
	DuplicateOf string `json:"duplicate_of"`
	DeadLetter  string `json:"dead_letter"`
	Changed     map[string]struct{ From, To any }
	Payload     json.RawMessage
	Sinks       []struct{ Sink, Channel, Result string }
}

// results returns the results of the sinks, as "search delivered, notify-all rejected".
func (e tracedEvent) results() string {
	var all []string
	for _, s := range e.Sinks {
		all = append(all, strings.TrimSuffix(s.Sink+"-"+s.Channel, "-")+" "+s.Result)
	}
	return strings.Join(all, ", ")
}

// ofDev returns the results without those of sinks that dev has only with its embedded broker.
func ofDev(results string) string {
	if os.Getenv("KAFKA_BROKERS") == "" {
		return results
	}
	return strings.Join(slices.DeleteFunc(strings.Split(results, ", "), func(result string) bool {
		return strings.HasPrefix(result, "archive ") || strings.HasPrefix(result, "search ")
	}), ", ")
}

func (d *devProcess) event(t *testing.T, workspace, position string) (status int, e tracedEvent) {
	t.Helper()
	response, err := http.Get(d.api + "/v1/workspaces/" + workspace + "/events/" + position)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return response.StatusCode, e
}

// One address says what was done with an event: in the fold, and in each sink.
func TestEvent(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "evt_refused") {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer receiver.Close()
	t.Setenv("RECEIVER_SECRET", "whsec_"+strings.Repeat("c2Vj", 8))
	rules := writeFile(t, "rules.yaml", fmt.Sprintf(`
channels: [{name: receiver, webhook: {url: %q, secret_env: RECEIVER_SECRET}}]
rules:
  - {name: all, channel: receiver}
  - {name: deleted, channel: receiver, events: ["*_deleted"]}
`, receiver.URL))
	data, prefix := t.TempDir(), fmt.Sprintf("cmd%08x", rand.Uint32())
	d := startDev(t, data, prefix, "--notify-rules", rules, "--notify-allow-cidr", "127.0.0.0/8")
	const add, update = "workspace_storage_file_added", "workspace_storage_file_updated"
	sent := map[string]string{}
	send := func(name, event string, more ...string) {
		t.Helper()
		sent[name] = d.send(t, data,
			append([]string{"--event-id", "evt_" + name, "--event", event, "--file", "f"}, more...)...)
	}
	send("first", add, "--size", "1", "--at", "2026-01-01T10:00:00Z")
	send("second", update, "--size", "2", "--at", "2026-01-01T12:00:00Z")
	send("late", update, "--size", "3", "--at", "2026-01-01T11:00:00Z")
	send("downloaded", "workspace_storage_file_downloaded")
	send("refused", update, "--size", "4")
	first := sent["first"]
	send("first", add, "--size", "1", "--at", "2026-01-01T10:00:00Z")
	sent["copy"], sent["first"] = sent["first"], first
	var partition, offset int32
	fmt.Sscanf(first, "%d:%d", &partition, &offset)
	// The index record of evt_late.
	rejected := &kgo.Record{
		Topic: prefix + "-index", Partition: partition, Offset: 2, Key: []byte("123/f"),
		Value: []byte(`{"op":"upsert","id":"123/f","workspace_id":"123","file_id":"f","version":3}`),
	}
	produce(t, strings.Split(d.brokers, ","), deadletters.NewRecord(prefix+"-dlq", rejected, deadletters.Failure{
		Reason: deadletters.ReasonSinkRejected, Message: "shorten the path", Sink: "search",
	}), &kgo.Record{
		Topic: prefix + "-events", Partition: partition, Key: []byte("123"),
		Value: []byte(`{"event":"workspace_storage_file_updated","event_id":"evt_dead","workspace_id":"123","object_id":"f","name":7,"name":8}`),
	})
	fmt.Sscanf(sent["copy"], "%d:%d", &partition, &offset)
	sent["dead"] = fmt.Sprintf("%d:%d", partition, offset+1)

	// The archive has written nothing yet: an object is filled for minutes.
	for name, want := range map[string]tracedEvent{
		"first":      {Verdict: "accepted", Version: 1},
		"second":     {Verdict: "accepted", Version: 2},
		"late":       {Verdict: "late", Version: 3},
		"downloaded": {Verdict: "passed"},
		"refused":    {Verdict: "accepted", Version: 4},
		"copy":       {EventID: "evt_first", Verdict: "duplicate", DuplicateOf: first},
		"dead":       {Verdict: "dead_lettered", Reason: "not_json", DeadLetter: sent["dead"]},
	} {
		results := map[string]string{
			"second":     "archive pending, notify-all delivered, notify-deleted not_applicable, search delivered",
			"downloaded": "archive pending, notify-all delivered, notify-deleted not_applicable, search not_applicable",
			"late":       "archive pending, notify-all delivered, notify-deleted not_applicable, search rejected",
			"refused":    "archive pending, notify-all pending, notify-deleted not_applicable, search delivered",
			"copy":       "archive pending, notify-all not_applicable, notify-deleted not_applicable, search not_applicable",
			"dead":       "archive pending, notify-all not_applicable, notify-deleted not_applicable, search not_applicable",
		}
		var got tracedEvent
		var status int
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			status, got = d.event(t, "123", sent[name])
			if results[name] == "" || got.results() == ofDev(results[name]) || time.Now().After(deadline) {
				break
			}
		}
		if want := ofDev(results[name]); want != "" && got.results() != want {
			t.Errorf("%s: %s\nwant %s", name, got.results(), want)
		}
		size := got.Changed["size"]
		if name == "second" && (len(got.Changed) != 1 || size.From != 1.0 || size.To != 2.0) {
			t.Errorf("changed %v", got.Changed)
		}
		if !strings.Contains(string(got.Payload), `"object_id":"f"`) && name != "dead" {
			t.Errorf("%s: payload %s", name, got.Payload)
		}
		if want.EventID == "" && name != "dead" { // nothing is said of a value that is not an event
			want.EventID = "evt_" + name
		}
		got.Sinks, got.Changed, got.Payload = nil, nil, nil
		if diff := cmp.Diff(want, got); diff != "" || status != http.StatusOK {
			t.Errorf("%s: status %d\n%s", name, status, diff)
		}
	}
	for _, c := range []struct {
		workspace, position string
		want                int
	}{{"other", first, 404}, {"123", fmt.Sprintf("%d:9999", partition), 404}, {"123", "7", 400}, {"123", "4:0", 400}} {
		if status, _ := d.event(t, c.workspace, c.position); status != c.want {
			t.Errorf("%s %s: %d, want %d", c.workspace, c.position, status, c.want)
		}
	}
	if kafka.Partition("123", 4) != partition {
		t.Errorf("workspace 123 is in partition %d", partition)
	}
}

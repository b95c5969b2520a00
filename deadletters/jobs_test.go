package deadletters_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
)

// An answeredJob is a job as clients read it.
type answeredJob struct {
	Job      string
	Action   string
	DryRun   bool `json:"dry_run"`
	State    string
	Error    string
	Selected int
	Done     int
	Started  time.Time  `json:"started_at"`
	Ended    *time.Time `json:"ended_at"`
	Results  []deadletters.Outcome
	More     int `json:"more_results"`

	Selection json.RawMessage
	Counts    map[string]int
}

// serve returns the handler of a queue, and a function that ends its jobs as the end of the process does.
func serve(t *testing.T, queue *deadletters.Queue) (h *deadletters.Handler, end func()) {
	t.Helper()
	h = deadletters.NewHandler(queue, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	for status := 0; status != 202; time.Sleep(time.Millisecond) { // 503 before Run
		status, _ = ask(t, h, "POST", "/dlq/jobs", `{"action":"drop","event_id":"none"}`)
	}
	end = func() {
		cancel()
		select {
		case err := <-ended:
			if ended <- nil; err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run has not returned")
		}
	}
	t.Cleanup(end)
	return h, end
}

// post starts a job under /v1/dlq and returns its path.
func post(t *testing.T, h *deadletters.Handler, body string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/dlq/jobs", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.QueryAPI().ServeHTTP(w, r)
	var job answeredJob
	if err := json.Unmarshal(w.Body.Bytes(), &job); err != nil || w.Code != http.StatusAccepted {
		t.Fatalf("%s: %d %s, %v", body, w.Code, w.Body, err)
	}
	path := w.Header().Get("Location")
	if path != "/v1/dlq/jobs/"+job.Job || job.State != "running" || job.Started.IsZero() || job.Results == nil ||
		job.Counts == nil {
		t.Fatalf("%s: Location %q, %s", body, path, w.Body)
	}
	return path
}

// read returns the present state of a job.
func read(t *testing.T, h *deadletters.Handler, path string) (job answeredJob) {
	t.Helper()
	w := httptest.NewRecorder()
	h.QueryAPI().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	if err := json.Unmarshal(w.Body.Bytes(), &job); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", path, w.Code, w.Body, err)
	}
	if (job.State == "running") != (job.Ended == nil) {
		t.Errorf("state and end do not fit together: %s", w.Body)
	}
	return job
}

// awaitJob returns a job once ok.
func awaitJob(t *testing.T, h *deadletters.Handler, path string, ok func(answeredJob) bool) answeredJob {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		job := read(t, h, path)
		if ok(job) {
			return job
		}
		if time.Now().After(end) {
			t.Fatalf("after 30 s: %+v", job)
		}
	}
}

func ended(job answeredJob) bool { return job.State != "running" }

// A job without dry_run changes nothing. One with it resolves what can be resolved, and says what became of each entry.
func TestJobs(t *testing.T) {
	b := newBench(t)
	b.put(t,
		b.dead(1, 5, "w", event("a", "f", 1), "wrong_partition", 10),
		b.dead(1, 6, "w", event("b", "f", 1), "wrong_partition", 11),
		b.dead(2, 7, "v", `no event`, "not_json", 12),
	)
	h, _ := serve(t, b.queue)
	results := func(body, action, state string, selected, done int, want ...deadletters.Outcome) {
		t.Helper()
		job := awaitJob(t, h, post(t, h, body), ended)
		if job.State != state || job.Action != action || job.Selected != selected || job.Done != done ||
			job.More != 0 || job.Error != "" {
			t.Errorf("%s: %+v", body, job)
		}
		counts := map[string]int{}
		for _, outcome := range want {
			counts[outcome.Result]++
		}
		if diff := cmp.Diff(counts, job.Counts); diff != "" {
			t.Errorf("%s: counts (-want +got):\n%s", body, diff)
		}
		details := cmpopts.IgnoreFields(deadletters.Outcome{}, "Detail", "WorkspaceID")
		if diff := cmp.Diff(want, job.Results, details, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
		for _, r := range job.Results {
			if explained := r.Result == "skipped" || r.Result == "failed"; explained != (r.Detail != "") {
				t.Errorf("%s: %+v", body, r)
			}
			if want := map[string]string{"1:5": "w", "1:6": "w", "2:7": "v"}[r.Entry]; r.WorkspaceID != want {
				t.Errorf("%s: %+v, want workspace %q", body, r, want)
			}
		}
	}
	results(`{"action":"replay"}`, "replay", "done", 3, 3, deadletters.Outcome{Entry: "1:5", Result: "would_replay"},
		deadletters.Outcome{Entry: "1:6", Result: "would_replay"}, deadletters.Outcome{Entry: "2:7", Result: "skipped"})
	results(`{"action":"drop","dry_run":true,"reasons":["not_json"]}`, "drop", "done", 1, 1,
		deadletters.Outcome{Entry: "2:7", Result: "would_drop"})
	results(`{"action":"drop","event_id":"none","dry_run":false}`, "drop", "done", 0, 0)
	expect(t, "after dry runs", len(b.entries(t, deadletters.Filter{})), 3)

	to := fmt.Sprintf("%d:0", kafka.Partition("w", partitions))
	results(`{"action":"replay","dry_run":false,"entries":["1:5","3:99"]}`, "replay", "done", 2, 2,
		deadletters.Outcome{Entry: "3:99", Result: "failed"},
		deadletters.Outcome{Entry: "1:5", Result: "replayed", ReplayedTo: to})
	results(`{"action":"replay","dry_run":false,"entries":["1:5"]}`, "replay", "done", 1, 1,
		deadletters.Outcome{Entry: "1:5", Result: "skipped"})
	results(`{"action":"drop","dry_run":false,"entries":["2:7"],"rate":0,"force":false}`, "drop", "done", 1, 1,
		deadletters.Outcome{Entry: "2:7", Result: "dropped"})
	expect(t, "open", b.entries(t, deadletters.Filter{}), []string{"1:6 wrong_partition w/b x1"})
	b.await(t, b.s.Events, 1)

	_, answer := ask(t, h, "GET", "/dlq/jobs", "")
	list, _ := answer["jobs"].([]any)
	if len(list) < 6 {
		t.Fatalf("listed %v", answer)
	}
	newest, _ := list[0].(map[string]any)
	if _, with := newest["results"]; with || newest["action"] != "drop" || newest["dry_run"] != false {
		t.Errorf("the newest is %v", newest)
	}
}

// A job reports what was posted, so that a job after a dry run can have the same selection.
func TestAJobHasItsSelection(t *testing.T) {
	b := newBench(t)
	h, _ := serve(t, b.queue)
	all := `"reasons":["not_json","x"],"sinks":["search"],"workspace_id":"w","event_id":"e",` +
		`"entries":["1:5","` + b.s.Index.Name + `/1:7@search"],"since":"2026-11-30T10:00:00Z"`
	for posted, want := range map[string]string{
		`{"action":"drop","dry_run":true}`:                      `{}`,
		`{"action":"replay","rate":5,"force":true,` + all + `}`: `{` + all + `}`,
	} {
		path := post(t, h, posted)
		if got := string(read(t, h, path).Selection); got != want {
			t.Errorf("%s: %s, want %s", posted, got, want)
		}
		awaitJob(t, h, path, ended)
	}
}

// What cannot be sent has the result failed, and stays open.
func TestAJobThatFails(t *testing.T) {
	b := newBench(t)
	b.reject(t, "search", b.indexed("f", 2, 7))
	b.queue.RetrySinks(func(_ string, source *kgo.Record) (*kgo.Record, error) {
		return &kgo.Record{
			Topic: b.s.SinkRetry.Name, Partition: source.Partition, Value: bytes.Repeat([]byte{1, 2, 3}, 4<<20),
		}, nil
	})
	h, _ := serve(t, b.queue)
	job := awaitJob(t, h, post(t, h, `{"action":"replay","dry_run":false}`), ended)
	if job.State != "failed" || job.Error == "" || len(job.Results) != 1 || job.Results[0].Result != "failed" ||
		job.Results[0].Detail == "" || job.Selected != 1 || job.Done != 1 {
		t.Errorf("%+v", job)
	}
	expect(t, "open", len(b.entries(t, deadletters.Filter{})), 1)

	none, _ := serve(t, deadletters.New(kafka.Config{Brokers: []string{"127.0.0.1:1"}}, b.s))
	job = awaitJob(t, none, post(t, none, `{"action":"replay"}`), ended)
	if job.State != "failed" || job.Error == "" || job.Selected != 0 || len(job.Results) != 0 {
		t.Errorf("without brokers: %+v", job)
	}
}

// many puts n dead letters that can be replayed.
func (b *bench) many(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		b.put(t, b.dead(1, int64(i), "w", event(fmt.Sprint("e", i), "f", 1), "wrong_partition", 10))
	}
}

// One job at a time writes. A canceled one stops after the entry in progress, and the next one does the rest.
func TestOneJobWritesUntilItIsCanceled(t *testing.T) {
	b := newBench(t)
	b.many(t, 8)
	h, _ := serve(t, b.queue)
	slow := post(t, h, `{"action":"replay","dry_run":false,"rate":2}`)
	awaitJob(t, h, slow, func(job answeredJob) bool { return job.Done > 0 })
	for _, action := range []string{"replay", "drop"} {
		status, answer := ask(t, h, "POST", "/dlq/jobs", `{"action":"`+action+`","dry_run":false}`)
		if status != 409 || answer["code"] != "job_running" {
			t.Errorf("a second one that writes: %d %v", status, answer)
		}
	}
	if job := awaitJob(t, h, post(t, h, `{"action":"drop"}`), ended); job.State != "done" || job.Done < 1 {
		t.Errorf("a dry run beside it: %+v", job)
	}
	for range 2 { // the second one changes nothing
		if status, answer := ask(t, h, "DELETE", strings.TrimPrefix(slow, "/v1"), ""); status != 204 {
			t.Errorf("%d %v", status, answer)
		}
	}
	job := awaitJob(t, h, slow, ended)
	if job.State != "canceled" || job.Selected != 8 || job.Done < 1 || job.Done == 8 || job.Done != len(job.Results) ||
		job.Error != "" {
		t.Errorf("%+v", job)
	}
	b.await(t, b.s.Events, job.Done)
	expect(t, "open", len(b.entries(t, deadletters.Filter{})), 8-job.Done)
	rest := awaitJob(t, h, post(t, h, `{"action":"replay","dry_run":false}`), ended)
	if rest.State != "done" || rest.Done != 8-job.Done {
		t.Errorf("%+v", rest)
	}
	b.await(t, b.s.Events, 8)
}

// The end of the process ends a job after the entry in progress. What was sent is marked, so a job of the next process
// sends each of the others once.
func TestJobsEndWithTheProcess(t *testing.T) {
	b := newBench(t)
	b.many(t, 8)
	first, end := serve(t, b.queue)
	slow := post(t, first, `{"action":"replay","dry_run":false,"rate":2}`)
	awaitJob(t, first, slow, func(job answeredJob) bool { return job.Done > 0 })
	end()
	sent := len(b.all(t, b.s.Events))
	open := len(b.entries(t, deadletters.Filter{}))
	if sent == 0 || sent == 8 || open != 8-sent {
		t.Errorf("%d sent, %d open of 8", sent, open)
	}
	if job := read(t, first, slow); job.State != "canceled" {
		t.Errorf("%+v", job)
	}
	if status, answer := ask(t, first, "POST", "/dlq/jobs", `{"action":"drop"}`); status != 503 ||
		answer["code"] != "stopping" {
		t.Errorf("after the end: %d %v", status, answer)
	}

	second, _ := serve(t, deadletters.New(b.conf, b.s))
	for _, path := range []string{slow, "/v1/dlq/jobs/%00", "/v1/dlq/jobs/x"} {
		for _, method := range []string{"GET", "DELETE"} {
			status, answer := ask(t, second.QueryAPI(), method, path, "")
			if status != 404 || answer["code"] != "unknown_job" ||
				!strings.Contains(fmt.Sprint(answer["detail"]), "instance") {
				t.Errorf("%s %s of another process: %d %v", method, path, status, answer)
			}
		}
	}
	if job := awaitJob(t, second, post(t, second, `{"action":"replay","dry_run":false}`), ended); job.Done != open {
		t.Errorf("%+v", job)
	}
	b.await(t, b.s.Events, 8)
}

// The last 100 jobs are kept, and the first 1,000 results of each.
func TestLimitsOfJobs(t *testing.T) {
	b := newBench(t)
	h, _ := serve(t, b.queue)
	first := post(t, h, `{"action":"drop"}`)
	for range 99 { // serve has started one
		awaitJob(t, h, post(t, h, `{"action":"drop","event_id":"none"}`), ended)
	}
	read(t, h, first)
	awaitJob(t, h, post(t, h, `{"action":"drop"}`), ended)
	if status, answer := ask(t, h.QueryAPI(), "GET", first, ""); status != 404 || answer["code"] != "unknown_job" {
		t.Errorf("the 101st before: %d %v", status, answer)
	}
	_, answer := ask(t, h, "GET", "/dlq/jobs", "")
	if list, _ := answer["jobs"].([]any); len(list) != 100 {
		t.Errorf("%d are listed", len(list))
	}
	var records []*kgo.Record
	for i := range 1003 {
		records = append(records, b.dead(1, int64(i), "w", "no event", "not_json", 10))
	}
	b.put(t, records...)
	job := awaitJob(t, h, post(t, h, `{"action":"drop","dry_run":false}`), ended)
	if job.Selected != 1003 || job.Done != 1003 || len(job.Results) != 1000 || job.More != 3 ||
		!cmp.Equal(job.Counts, map[string]int{"dropped": 1003}) {
		t.Errorf("%d selected, %d done, %d results and %d more, %v", job.Selected, job.Done, len(job.Results), job.More,
			job.Counts)
	}
}

// Jobs wait while four others work. Once none of those that are kept has ended, no further one is accepted.
func TestJobsWaitForOthers(t *testing.T) {
	b := newBench(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h, _ := serve(t, deadletters.New(kafka.Config{Brokers: []string{silent.Addr().String()}}, b.s))
	var last string
	for range 99 { // serve has started one
		last = post(t, h, `{"action":"replay"}`)
	}
	if status, answer := ask(t, h, "POST", "/dlq/jobs", `{"action":"replay"}`); status != 503 ||
		answer["code"] != "busy" {
		t.Errorf("the 101st: %d %v", status, answer)
	}
	if status, answer := ask(t, h.QueryAPI(), "DELETE", last, ""); status != 204 {
		t.Errorf("%d %v", status, answer)
	}
	if job := awaitJob(t, h, last, ended); job.State != "canceled" || job.Selected != 0 {
		t.Errorf("one that waits is canceled: %+v", job)
	}
	post(t, h, `{"action":"replay"}`)
	silent.Close() // ends their connections
}

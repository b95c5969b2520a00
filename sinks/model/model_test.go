package model_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// recorded keeps the bodies of requests.
func recorded(bodies *[]string, next http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		*bodies = append(*bodies, r.URL.Path+" "+string(body))
		mu.Unlock()
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		next(w, r)
	}
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func TestKServe(t *testing.T) {
	var bodies []string
	sink, published := start(t, "{name: r, kserve: {url: %q, model: a b, version: '3'}, batch: 8,\n"+
		"  outputs: [box, kind], inputs: [{name: p, field: path}, {name: s, field: size, datatype: FP32, column: true}]%s}", "",
		recorded(&bodies, answer(`{"model_version":"3.1","outputs":[
			{"name":"kind","shape":[2],"datatype":"BYTES","data":["a","b"]},
			{"name":"box","shape":[2,1,2],"datatype":"INT64","data":[[[1,2]],[[3,9007199254740993]]]},
			{"name":"other","shape":[2],"datatype":"FP32","data":[1,2]}]}`)))
	if err := sink.Deliver(t.Context(), files(t, 5, 7)); err != nil {
		t.Fatal(err)
	}
	wantBodies := []string{`/v2/models/a b/versions/3/infer {"inputs":[` +
		`{"name":"p","shape":[2],"datatype":"BYTES","data":["/f0","/f1"]},` +
		`{"name":"s","shape":[2,1],"datatype":"FP32","data":[[5],[7]]}]}`}
	if diff := cmp.Diff(wantBodies, bodies); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	want := []string{
		`ws/f0/r 1 {"box":[1,2],"kind":"a"}`,
		`ws/f1/r 2 {"box":[3,9007199254740993],"kind":"b"}`,
	}
	if diff := cmp.Diff(want, published.all(t)); diff != "" {
		t.Errorf("predictions (-want +got):\n%s", diff)
	}
	record := published.records[0]
	wantValue := `{"op":"upsert","id":"ws/f0","workspace_id":"ws","file_id":"f0","version":1,"position":"1:1",` +
		`"rule":"r","model":"a b","model_version":"3.1","outputs":{"box":[1,2],"kind":"a"}}`
	if diff := cmp.Diff(wantValue, string(record.Value)); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if record.Topic != "fastio-predictions" || record.Partition != 2 { // murmur2("ws") of 4
		t.Errorf("written to %s/%d", record.Topic, record.Partition)
	}
}

func TestTensorFlow(t *testing.T) {
	for name, test := range map[string]struct{ more, answer, want string }{
		"one output": {"", `{"outputs":[0.5,2.5e-1]}`, `{"output":0.5}`},
		"one named":  {", outputs: [score]", `{"outputs":[[1,2],[3,4]]}`, `{"score":[1,2]}`},
		"several":    {", outputs: [b]", `{"outputs":{"a":["x","y"],"b":[{"b64":"eA=="},{"b64":"eQ=="}]}}`, `{"b":{"b64":"eA=="}}`},
	} {
		t.Run(name, func(t *testing.T) {
			var bodies []string
			sink, published := start(t, tensorFlow, ", batch: 2"+test.more, recorded(&bodies, answer(test.answer)))
			if err := sink.Deliver(t.Context(), files(t, 5, 7)); err != nil {
				t.Fatal(err)
			}
			want := []string{`/v1/models/m:predict {"inputs":{"size":[5,7]},"signature_name":"serving_default"}`}
			if diff := cmp.Diff(want, bodies); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if got := published.all(t); len(got) != 2 || got[0] != "ws/f0/r 1 "+test.want {
				t.Errorf("predictions: %q, want %s first", got, test.want)
			}
		})
	}
}

// The files of a request that the model refuses are rejected together: the loop halves them.
func TestRejectedRequest(t *testing.T) {
	sink, published := start(t, kserve, ", batch: 3", double)
	batch := files(t, 1, 2, 3, 4, 13, 6, 7)
	partial, ok := errors.AsType[*sinks.Partial](sink.Deliver(t.Context(), batch))
	if !ok || len(partial.Again) != 0 || len(partial.Rejected) != 3 {
		t.Fatalf("got %v", partial)
	}
	why := partial.Rejected[batch[3]]
	if why == nil || partial.Rejected[batch[4]] != why || partial.Rejected[batch[5]] != why ||
		why.Answer != "400 Bad Request: size 13 is out of range" {
		t.Errorf("rejected %v", partial.Rejected)
	}
	if n := len(published.all(t)); n != 4 {
		t.Errorf("%d predictions, want 4", n)
	}
}

// What was applied is not asked again, when a request after it fails.
func TestFailureAmongRequests(t *testing.T) {
	var requests atomic.Int64
	sink, published := start(t, kserve, ", max_in_flight: 1", func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 3 {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		double(w, r)
	})
	batch := append(files(t, 1, 2, 3, 4, 5), &sinks.Record{Value: []byte("{}")}, &sinks.Record{Value: nil})
	err := sink.Deliver(t.Context(), batch)
	partial, ok := errors.AsType[*sinks.Partial](err)
	if !ok || len(partial.Again) != 3 || partial.Rejected[batch[5]] == nil || partial.Rejected[batch[6]] == nil {
		t.Fatalf("got %v", err)
	}
	if later, ok := errors.AsType[*sinks.Later](err); !ok || later.Pause != 7*time.Second {
		t.Errorf("got %v, want a pause of 7 s", err)
	}
	if !slices.IsSortedFunc(partial.Again, func(a, b *sinks.Record) int { return int(a.Offset - b.Offset) }) {
		t.Error("not in the order of the batch")
	}
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests, want 3: none begins after the failure", n)
	}
	if err := sink.Deliver(t.Context(), partial.Again); err != nil {
		t.Fatal(err)
	}
	if n := len(published.all(t)); n != 5 {
		t.Errorf("%d predictions, want 5", n)
	}
}

// skipped returns the number of records of a batch that was applied of which the model was not asked.
func skipped(t *testing.T, err error) int {
	t.Helper()
	partial, ok := errors.AsType[*sinks.Partial](err)
	if err != nil && (!ok || len(partial.Again)+len(partial.Rejected) > 0) {
		t.Fatal(err)
	} else if !ok {
		return 0
	}
	return partial.Skipped
}

func TestVersions(t *testing.T) {
	var bodies []string
	sink, published := start(t, kserve, ", batch: 8, paths: [/a, /b]", recorded(&bodies, double))
	deliver := func(requests int, want []string, batch ...*sinks.Record) {
		t.Helper()
		bodies, published.records = nil, nil
		asked := len(batch) - skipped(t, sink.Deliver(t.Context(), batch))
		if (asked == 0) != (requests == 0) {
			t.Errorf("%d records count as accepted by the model", asked)
		}
		if diff := cmp.Diff(want, published.all(t)); diff != "" || len(bodies) != requests {
			t.Errorf("%d requests, want %d; predictions (-want +got):\n%s", len(bodies), requests, diff)
		}
	}
	// The newest of a batch.
	deliver(1, []string{`ws/a/r 3 {"twice":6}`}, index(t, "a", 1, size(1)), index(t, "a", 2, size(2)), index(t, "a", 3, size(3)))
	// The same again, and an older one that an operator replayed.
	deliver(0, nil, index(t, "a", 3, size(3)))
	deliver(0, nil, index(t, "a", 2, size(2)))
	// A new version with the inputs of the one before.
	deliver(0, []string{`ws/a/r 4 {"twice":6}`}, index(t, "a", 4, size(3)))
	deliver(1, []string{`ws/a/r 5 {"twice":8}`}, index(t, "a", 5, size(4)))
	// A deleted file; it comes back with the same inputs.
	deliver(0, []string{`ws/a/r 6 `}, index(t, "a", 6, nil))
	deliver(1, []string{`ws/a/r 7 {"twice":8}`}, index(t, "a", 7, size(4)))
	// A file that the rule does not select, and one of unknown size.
	deliver(0, nil, index(t, "c", 1, size(1)), index(t, "b", 1, func(*tidemarkv1.FileState) {}))
	// The newest version is not selected, so the one before it in the batch is not asked either.
	deliver(0, nil, index(t, "b", 2, size(1)), index(t, "b", 3, func(f *tidemarkv1.FileState) { f.Path = "/x" }))
}

// The prediction is acknowledged before the record counts as delivered.
func TestPublishFails(t *testing.T) {
	sink, published := start(t, kserve, "", double)
	published.fails = errors.New("no leader")
	for _, record := range []*sinks.Record{index(t, "a", 1, size(1)), index(t, "b", 2, nil)} {
		err := sink.Deliver(t.Context(), []*sinks.Record{record})
		if err == nil || err.Error() != "write to fastio-predictions: no leader" {
			t.Errorf("got %v", err)
		}
	}
	published.fails = nil
	batch := []*sinks.Record{index(t, "a", 1, size(1)), index(t, "b", 2, nil)}
	if n := skipped(t, sink.Deliver(t.Context(), batch)); n != 1 {
		t.Errorf("%d skipped, want the deleted one: the model is not asked", n)
	}
	if n := len(published.all(t)); n != 2 {
		t.Errorf("%d predictions, want 2", n)
	}
}

// Never more than max_in_flight requests, from all partitions together. Who waits, waits no longer than its context.
func TestMaxInFlight(t *testing.T) {
	var now, most atomic.Int64
	release := make(chan struct{})
	sink, published := start(t, kserve, ", max_in_flight: 3", func(w http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer now.Add(-1)
		select {
		case <-release:
			double(w, r)
		case <-r.Context().Done():
		}
	})
	var partitions sync.WaitGroup
	for p := range 4 {
		partitions.Go(func() {
			var batch []*sinks.Record
			for i := range 5 {
				batch = append(batch, index(t, fmt.Sprintf("p%d-%d", p, i), 1, size(1)))
			}
			if err := sink.Deliver(t.Context(), batch); err != nil {
				t.Error(err)
			}
		})
	}
	for most.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := sink.Deliver(ctx, []*sinks.Record{index(t, "late", 1, size(1))})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 3*time.Second {
		t.Errorf("got %v after %v", err, time.Since(begin))
	}
	close(release)
	partitions.Wait()
	if n := len(published.all(t)); n != 20 || most.Load() != 3 {
		t.Errorf("%d predictions with %d requests at once, want 20 with 3", n, most.Load())
	}
}

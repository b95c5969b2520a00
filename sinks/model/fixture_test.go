package model_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
	"tidemark/sinks/model"
	"tidemark/topology"
)

// A topicLog is fastio-predictions in memory.
type topicLog struct {
	mu      sync.Mutex
	records []*kgo.Record
	fails   error
}

func (l *topicLog) ProduceSync(_ context.Context, records ...*kgo.Record) (results kgo.ProduceResults) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		results = append(results, kgo.ProduceResult{Record: r, Err: l.fails})
		if l.fails == nil {
			l.records = append(l.records, r)
		}
	}
	return results
}

// all returns the predictions as "key version outputs", a deleted one without outputs.
func (l *topicLog) all(t *testing.T) (all []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		var p model.Prediction
		if err := json.Unmarshal(r.Value, &p); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %d %s", r.Key, p.Version, p.Outputs))
	}
	return all
}

// rule reads one rule.
func rule(t *testing.T, text string) model.Rule {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte("rules:\n- "+text), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := model.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return rules[0]
}

const (
	kserve     = "{name: r, kserve: {url: %q, model: m}, inputs: [{name: size, field: size}]%s}"
	tensorFlow = "{name: r, tensorflow: {url: %q, model: m}, inputs: [{name: size, field: size}]%s}"
)

// start returns a sink for a rule whose URL is that of a server with the handler. more is added to the rule.
func start(t *testing.T, text, more string, handler http.HandlerFunc) (*model.Sink, *topicLog) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.CloseClientConnections() // of handlers that hang
		server.Close()
	})
	published := new(topicLog)
	return model.New(model.Config{
		Rule: rule(t, fmt.Sprintf(text, server.URL, more)), Producer: published,
		Topic: topology.Topic{Name: "fastio-predictions", Partitions: 4},
	}), published
}

// index returns the index record of a file of the workspace ws. change may change the file; without one it is deleted.
func index(t *testing.T, id string, version int64, change func(f *tidemarkv1.FileState)) *sinks.Record {
	t.Helper()
	op := &tidemarkv1.IndexOp{
		Op: tidemarkv1.IndexOp_OP_DELETE, Id: "ws/" + id, WorkspaceId: "ws", FileId: id, Version: version,
		Position: &tidemarkv1.Position{Partition: 1, Offset: version},
	}
	if change != nil {
		op.Op, op.File = tidemarkv1.IndexOp_OP_UPSERT, &tidemarkv1.FileState{
			WorkspaceId: "ws", FileId: id, Version: version, Status: tidemarkv1.Status_STATUS_ACTIVE,
			Name: id, Path: "/" + id,
		}
		change(op.File)
	}
	value, err := codecs.Index{}.Encode(op)
	if err != nil {
		t.Fatal(err)
	}
	return &sinks.Record{Topic: "fastio-index", Partition: 1, Offset: version, Key: []byte(op.GetId()), Value: value}
}

func size(n int64) func(*tidemarkv1.FileState) {
	return func(f *tidemarkv1.FileState) { f.Size = &n }
}

// files returns one file for each size, named f0, f1, ...
func files(t *testing.T, sizes ...int64) (batch []*sinks.Record) {
	t.Helper()
	for i, n := range sizes {
		batch = append(batch, index(t, fmt.Sprintf("f%d", i), int64(i+1), size(n)))
	}
	return batch
}

// A request of KServe with the input size.
type request struct {
	Inputs []struct {
		Name     string
		Shape    []int
		Datatype string
		Data     []int64
	}
}

// double answers a KServe request with twice the size. It refuses a 13 in it as a server does.
func double(w http.ResponseWriter, r *http.Request) {
	var in request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	data := in.Inputs[0].Data
	for i, n := range data {
		if n == 13 {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error": "size 13 is out of range"}`)
			return
		}
		data[i] = 2 * n
	}
	json.NewEncoder(w).Encode(map[string]any{
		"model_name": "m", "model_version": "7", "outputs": []any{map[string]any{
			"name": "twice", "shape": []int{len(data)}, "datatype": "INT64", "data": data,
		}},
	})
}

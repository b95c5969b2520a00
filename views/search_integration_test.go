package views_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/views"
)

// A searchIndex is in memory. As in OpenSearch, what is delivered is found after a refresh only.
type searchIndex struct {
	mu                 sync.Mutex
	delivered, visible map[string][]string // files by workspace
}

func (x *searchIndex) deliver(workspace, file string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.delivered == nil {
		x.delivered = map[string][]string{}
	}
	x.delivered[workspace] = append(x.delivered[workspace], file)
}

func (x *searchIndex) config(c *views.Config) {
	c.Search = &views.Search{
		VisibleAfter: time.Second,
		Query: func(_ context.Context, q views.SearchQuery) (p views.SearchPage, err error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			for _, file := range x.visible[q.Workspace] {
				if strings.HasPrefix(file, q.Q) {
					p.Files = append(p.Files, json.RawMessage(fmt.Sprintf(`{"file_id":%q}`, file)))
				}
			}
			return p, nil
		},
		Refresh: func(context.Context) error {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.visible = map[string][]string{}
			for workspace, files := range x.delivered {
				x.visible[workspace] = append([]string(nil), files...)
			}
			return nil
		},
	}
}

// indexed writes an index record in a transaction, so that a marker is the last of the partition.
func (r *rig) indexed(workspace, file string) *tidemarkv1.Position {
	r.t.Helper()
	opts, err := r.conf.Franz()
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionalID(r.streams.Index.Name+file))...)
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	key := []byte(tidemarkv1.JoinKey(workspace, file))
	record := &kgo.Record{
		Topic: r.streams.Index.Name, Key: key, Value: []byte("{}"), Partition: kafka.FilePartition(key, partitions),
	}
	if err := client.BeginTransaction(); err != nil {
		r.t.Fatal(err)
	}
	if err := client.ProduceSync(r.t.Context(), record).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	if err := client.EndTransaction(r.t.Context(), kgo.TryCommit); err != nil {
		r.t.Fatal(err)
	}
	return &tidemarkv1.Position{Partition: record.Partition, Offset: record.Offset}
}

// While the sink has not committed, a read with at_least is 503 and never a page without the file. The order of the
// read and the commit does not matter.
func TestSearchWithAtLeastHasTheFile(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	x := &searchIndex{}
	up := r.serve(x.config)
	group := r.streams.SinkGroup("search")
	for _, file := range []string{"first", "second"} {
		p := r.event("docs")
		r.row("docs", file, "/"+file, 1, p)
		i := r.indexed("docs", file)
		r.commit(r.streams.FilesGroup, r.streams.Events.Name, p)
		x.deliver("docs", file)
		const target = "/v1/workspaces/docs/search?q=%s&wait=%s&at_least=%s"
		if status, body, lag := up.get(fmt.Sprintf(target, file, "500ms", p.Text())); status != 503 ||
			!strings.Contains(body, "position_not_reached") {
			t.Errorf("%s is delivered, not committed: %d %s, lag %g", file, status, body, lag)
		}
		read := func() {
			begin := time.Now()
			status, body, _ := up.get(fmt.Sprintf(target, file, "20s", p.Text()))
			if want := `{"files":[{"file_id":"` + file + `"}],"next_cursor":null}`; status != 200 || body != want {
				t.Errorf("%s: %d %s, want %s", file, status, body, want)
			}
			t.Logf("%s was answered after %s", file, time.Since(begin))
		}
		if file == "first" {
			r.commit(group, r.streams.Index.Name, i)
			read()
			continue
		}
		var answered sync.WaitGroup
		answered.Go(read)
		time.Sleep(300 * time.Millisecond)
		r.commit(group, r.streams.Index.Name, i)
		answered.Wait()
	}
	r.until("no lag", func() bool {
		_, _, lag := up.get("/v1/workspaces/docs/search")
		return lag == 0
	})
	for range 3 { // without a row: a duplicate leaves no index record
		r.event("docs")
	}
	p := r.event("docs")
	if status, _, lag := up.get("/v1/workspaces/docs/search"); status != 200 {
		t.Errorf("%d, lag %g", status, lag)
	}
	r.commit(r.streams.FilesGroup, r.streams.Events.Name, p)
	if status, body, _ := up.get("/v1/workspaces/docs/search?wait=20s&at_least=" + p.Text()); status != 200 {
		t.Errorf("events without an index record: %d %s", status, body)
	}
	if status, body, _ := up.get("/v1/workspaces/other/search?q=first"); status != 404 {
		t.Errorf("another workspace: %d %s", status, body)
	}
}

package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/e2e/oracle"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

var children = flag.Int("children", 0, "files in the folder of the folder test; 0 for the form's own number")

// TestFolderWalk moves a folder with many files while another workspace of its partition sends events, then deletes
// it while the processor is killed. Each file must move once and be deleted once.
func TestFolderWalk(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts and kills processes")
	}
	for name, flags := range map[string][]string{
		"at_least_once": nil,
		"exactly_once":  {"--guarantee", "exactly_once"},
	} {
		t.Run(name, func(t *testing.T) {
			if !*long {
				t.Parallel() // in its long form figures are taken
			}
			walk(t, flags...)
		})
	}
}

// A walker is a fixture whose events are written by the test.
type walker struct {
	*fixture
	dated atomic.Int64
}

func walk(t *testing.T, flags ...string) {
	t.Helper()
	n := 3000
	if *long {
		n = 100_000
	}
	if *children > 0 {
		n = *children
	}
	g := &walker{fixture: newFixture(t, 0)}
	g.once = len(flags) > 0
	g.process.Args = append(append(g.process.Args, "--instance-id", "walk"), flags...)
	r := &oracle.Report{Title: fmt.Sprintf("folder of %d files %v", n, flags)}

	const workspace = "folders"
	other := neighbour(g.topics.Events, workspace)
	g.event(workspace, "created", "folder_created", "dir", `,"path":"/docs"`)
	records := make([]*kgo.Record, n)
	for i := range records {
		place := fmt.Sprintf(`"path":"/docs/f%d","parent_id":"dir"`, i)
		if i%4 == 3 { // known by its path alone
			place = fmt.Sprintf(`"path":"/docs/sub/f%d"`, i)
		}
		records[i] = g.record(workspace, fmt.Sprint("add", i), "file_added", fmt.Sprint("f", i), ","+place)
	}
	if err := g.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	g.start(g.process)
	g.awaitReady(g.process)
	r.Fact("added in, s", seconds(g.drain(5*time.Minute, true)))

	waits := g.neighbours(other)
	g.event(workspace, "moved", "folder_moved", "dir", `,"path":"/papers"`)
	begin := time.Now()
	g.awaitNotices(workspace, "moved", n, 3*time.Minute)
	took := time.Since(begin)
	r.Fact("moved in, s", seconds(took))
	waited := waits()
	slices.Sort(waited)
	r.Fact("another workspace's event to its notice meanwhile: events, p50 / p99 / longest, ms",
		fmt.Sprintf("%d, %.1f / %.1f / %.1f", len(waited), ms(waited[len(waited)/2]), ms(waited[len(waited)*99/100]),
			ms(waited[len(waited)-1])))

	t.Log("\n" + r.String()) // before judging, which takes long

	g.event(workspace, "deleted", "folder_deleted", "dir", "")
	kills := 0
	for end := time.Now().Add(took / 2); kills < 4 || time.Now().Before(end); kills++ {
		time.Sleep(max(200*time.Millisecond, took/8))
		g.restart()
		g.awaitReady(g.process)
	}
	r.Fact("kills while it was deleted", kills)
	g.drain(5*time.Minute, true)
	g.term(g.process)
	g.judgeWalk(workspace, n, r)
	g.judge(oracle.Judge{Workspaces: true}, r)
	conclude(t, r)
}

// neighbour returns a workspace with the same partition.
func neighbour(topic, workspace string) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("other", i); oracle.Partition(topic, name, partitions) == oracle.Partition(topic,
			workspace, partitions) {
			return name
		}
	}
}

var walkBegan = time.Now().Add(-time.Hour).UTC()

// record is an event as a foreign producer writes it. Events are dated in the order in which they are made.
func (g *walker) record(workspace, id, event, object, more string) *kgo.Record {
	at := walkBegan.Add(time.Duration(g.dated.Add(1)) * time.Millisecond)
	return &kgo.Record{
		Topic: g.topics.Events, Key: []byte(workspace),
		Partition: int32(oracle.Partition(g.topics.Events, workspace, partitions)),
		Value: fmt.Appendf(nil, `{"event":"workspace_storage_%s","workspace_id":%q,"event_id":%q,"object_id":%q,"created":%q%s}`,
			event, workspace, id, object, at.Format(time.RFC3339Nano), more),
	}
}

func (g *walker) event(workspace, id, event, object, more string) {
	g.t.Helper()
	if err := g.client.ProduceSync(g.t.Context(), g.record(workspace, id, event, object, more)).FirstErr(); err != nil {
		g.t.Fatal(err)
	}
}

// awaitNotices waits until so many notices of a workspace have an event of a folder as their cause.
func (g *walker) awaitNotices(workspace, cause string, n int, limit time.Duration) {
	g.t.Helper()
	reader, err := kgo.NewClient(kgo.SeedBrokers(g.brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(
			map[string]map[int32]kgo.Offset{
				g.topics.Notify: {int32(
					oracle.Partition(g.topics.Notify, workspace, partitions)): kgo.NewOffset().AtStart()},
			}))
	if err != nil {
		g.t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(g.t.Context(), limit)
	defer cancel()
	for found := 0; found < n; {
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if strings.Contains(string(r.Value), `,"event_id":"`+cause+`","folder_id":`) {
				found++
			}
		})
		if ctx.Err() != nil {
			g.t.Fatalf("%d of %d notices after %v\n%s", found, n, limit, g.process.Tail())
		}
	}
}

// neighbours sends an event of another workspace every 20 ms, and measures how long it takes to its notice. What it
// returns ends that, and returns the times.
func (g *walker) neighbours(workspace string) (end func() []time.Duration) {
	g.t.Helper()
	// A reader that is told to begin at the end asks for the end later, maybe after the first notice was written.
	ends, err := kadm.NewClient(g.client).ListEndOffsets(g.t.Context(), g.topics.Notify)
	if err != nil {
		g.t.Fatal(err)
	}
	partition := int32(oracle.Partition(g.topics.Notify, workspace, partitions))
	last, ok := ends.Lookup(g.topics.Notify, partition)
	if !ok || last.Err != nil {
		g.t.Fatal("the end of the notices is not known: ", last.Err)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(g.brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(20*time.Millisecond),
		kgo.ConsumePartitions(
			map[string]map[int32]kgo.Offset{g.topics.Notify: {partition: kgo.NewOffset().At(last.Offset)}}))
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(g.t.Context())
	var took []time.Duration
	done := make(chan error, 1)
	go func() {
		defer reader.Close()
		for i := 0; i == 0 || ctx.Err() == nil; i++ { // each to its end, and one at least
			id := fmt.Sprint("other", i)
			begin := time.Now()
			if err := g.client.ProduceSync(g.t.Context(),
				g.record(workspace, id, "file_updated", "x", "")).FirstErr(); err != nil {
				done <- err
				return
			}
			limit, cancel := context.WithTimeout(g.t.Context(), time.Minute)
			for seen := false; !seen && limit.Err() == nil; {
				reader.PollFetches(limit).EachRecord(func(r *kgo.Record) {
					seen = seen || strings.Contains(string(r.Value), `"event_id":"`+id+`"`)
				})
			}
			late := limit.Err()
			cancel()
			if late != nil {
				done <- fmt.Errorf("event %s of workspace %s has no notice after a minute", id, workspace)
				return
			}
			took = append(took, time.Since(begin))
			time.Sleep(20 * time.Millisecond)
		}
		done <- nil
	}()
	return func() []time.Duration {
		stop()
		if err := <-done; err != nil {
			g.t.Fatal(err)
		}
		return took
	}
}

// judgeWalk judges the rows of the folder's files, and the notices of each.
func (g *fixture) judgeWalk(workspace string, n int, r *oracle.Report) {
	g.t.Helper()
	read := func(topic string, each func(*kgo.Record)) {
		g.t.Helper()
		if err := oracle.Each(g.t.Context(), g.brokers, topic, oracle.Partition(topic, workspace, partitions),
			each); err != nil {
			g.t.Fatal(err)
		}
	}
	rows := map[string]*tidemarkv1.FileState{}
	read(g.topics.Files, func(record *kgo.Record) {
		row := new(tidemarkv1.FileState)
		if err := proto.Unmarshal(record.Value, row); err != nil {
			g.t.Fatal(err)
		}
		rows[string(record.Key)] = row
	})
	said := map[string]map[string]bool{} // by file: the folder's events in its notices
	repeated := 0
	read(g.topics.Notify, func(record *kgo.Record) {
		var notice struct {
			FileID string `json:"file_id"`
			Cause  *struct {
				EventID string `json:"event_id"`
			}
			Version int64
		}
		if err := json.Unmarshal(record.Value, &notice); err != nil {
			g.t.Fatal(err)
		}
		if notice.Cause == nil {
			return
		}
		if said[notice.FileID] == nil {
			said[notice.FileID] = map[string]bool{}
		}
		what := fmt.Sprintf("%s as version %d", notice.Cause.EventID, notice.Version)
		if said[notice.FileID][what] {
			repeated++
		}
		said[notice.FileID][what] = true
	})
	r.Fact("notices of the folder's events that were repeated", repeated)
	for i := range n {
		id := fmt.Sprint("f", i)
		row := rows[workspace+"/"+id]
		want := "/papers/" + id
		if i%4 == 3 {
			want = "/papers/sub/" + id
		}
		if row.GetPath() != want || row.GetStatus() != tidemarkv1.Status_STATUS_TRASHED || row.GetVersion() != 3 {
			r.Violate("files that did not follow their folder", "%s: %v", id, row)
		}
		if len(said[id]) != 2 || !said[id]["moved as version 2"] || !said[id]["deleted as version 3"] {
			r.Violate("files that were not moved once and deleted once", "%s: %v", id, said[id])
		}
	}
}

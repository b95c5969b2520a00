package why

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A case of TestResults is an event at 1:100, with a notice at offset 200 and an index record at offset 50.
type resultCase struct {
	*results
	t *testing.T
}

func newResultCase(t *testing.T) *resultCase {
	t.Helper()
	s, err := topology.New("fastio", topology.Sizing{Partitions: 2, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := &tidemarkv1.Notice{WorkspaceId: "w", FileId: "f", Version: proto.Int64(3)}
	r := &resultCase{t: t, results: &results{
		tracer: &Tracer{streams: s},
		trace:  &Trace{Event: Event{Verdict: Accepted, Version: n.Version}, FileID: "f", Notice: n},
		record: &kgo.Record{Topic: s.Events.Name, Partition: 1, Offset: 100},
		notice: &kgo.Record{Topic: s.Notify.Name, Partition: 1, Offset: 200, Value: []byte("notice")},
		index:  found{record: &kgo.Record{Topic: s.Index.Name, Partition: 1, Offset: 50}},
		dead: deadLetters{
			partition: 1, bySource: map[deadLetterKey]*deadLetterRecord{},
			byOutput: map[outputKey]*deadLetterRecord{},
		},
		commits: commits{}, deliveries: map[string]delivery{}, predictions: map[string]bool{}, cut: map[string]bool{},
		logs: map[string]*partitionLog{
			s.Index.Name: {}, s.Notify.Name: {}, s.Deliveries.Name: {}, s.Predictions.Name: {},
		},
	}}
	r.commit(s.FilesGroup, s.Events.Name, 101)
	return r
}

func (r *resultCase) commit(group, topic string, offset int64) {
	if r.commits[group].offsets == nil {
		r.commits[group] = groupCommits{offsets: kadm.OffsetResponses{}}
	}
	r.commits[group].offsets[topic] = map[int32]kadm.OffsetResponse{1: {Offset: kadm.Offset{At: offset}}}
}

// rejected adds a dead letter of the search sink, and returns it.
func (r *resultCase) rejected(topic string, offset int64, value string) *deadLetterRecord {
	d := &kgo.Record{Partition: 1, Value: []byte(value), Headers: []kgo.RecordHeader{
		{Key: topology.HeaderTopic, Value: []byte(topic)},
		{Key: topology.HeaderPartition, Value: []byte("1")},
		{Key: topology.HeaderOffset, Value: []byte("50")},
		{Key: topology.HeaderSink, Value: []byte("search")},
	}}
	r.dead.add(d, r.tracer.streams.Index.Name)
	key := deadLetterKey{topic, 50, "search"}
	added := r.dead.bySource[key]
	if delete(r.dead.bySource, key); added != nil {
		added.source = offset
		r.dead.bySource[deadLetterKey{topic, offset, "search"}] = added
	}
	return added
}

// A leader that was cut off has an old end.
func TestAnEndBelowACommitIsRefused(t *testing.T) {
	r := newResultCase(t)
	r.logs["fastio-notify"].span.To = 201
	for commit, stale := range map[int64]bool{-1: false, 200: false, 201: false, 202: true} {
		r.commit("fastio-workspaces", "fastio-notify", commit)
		if err := r.checkEnds(); errors.Is(err, kerr.NotLeaderForPartition) != stale {
			t.Errorf("committed %d: %v", commit, err)
		}
	}
}

func TestResults(t *testing.T) {
	const record = `{"op":"upsert","id":"w/f","workspace_id":"w","file_id":"f","version":3,"position":"1:100"}`
	index, retry, at := "fastio-index", "fastio-sink-retry", time.Now()
	for name, test := range map[string]struct {
		sink   string
		set    func(r *resultCase)
		want   Result
		detail string
	}{
		"handled":     {"search", func(r *resultCase) { r.commit("fastio-sink-search", index, 51) }, Delivered, "offset 51"},
		"not handled": {"search", func(r *resultCase) { r.commit("fastio-sink-search", index, 50) }, Waiting, "offset 50"},
		"no commit":   {"search", func(*resultCase) {}, Waiting, "nothing in this partition"},
		"commit unknown": {"search", func(r *resultCase) {
			r.commits["fastio-sink-search"] = groupCommits{err: errors.New("no coordinator")}
		}, NotKnown, "no coordinator"},
		"compacted": {"search", func(r *resultCase) {
			r.commit("fastio-sink-search", index, 60)
			r.index = found{later: 60}
		}, Delivered, ""},
		"compacted and rejected": {"search", func(r *resultCase) {
			r.commit("fastio-sink-search", index, 60)
			r.index = found{later: 60}
			r.rejected(index, 50, record)
		}, Rejected, ""},
		"not written yet": {"search", func(r *resultCase) {
			r.commit("fastio-files", "fastio-events", 100)
			r.commit("fastio-sink-search", index, 60)
			r.index = found{later: 60}
		}, Waiting, "not written"},
		"rejected": {"search", func(r *resultCase) {
			r.commit("fastio-sink-search", index, 51)
			r.rejected(index, 50, record)
		}, Rejected, ""},
		"another version was rejected": {"search", func(r *resultCase) {
			r.commit("fastio-sink-search", index, 51)
			r.rejected(index, 50, strings.Replace(record, `"version":3`, `"version":2`, 1))
		}, Delivered, ""},
		"rejected and replayed": {"search", func(r *resultCase) {
			r.commit("fastio-sink-search", index, 51)
			r.commit("fastio-sink-search", retry, 8)
			d := r.rejected(index, 50, record)
			d.resolved, d.replayedTo = "replayed", retry+"/1:7"
		}, Delivered, "replayed to fastio-sink-retry/1:7"},
		"replayed and not handled": {"search", func(r *resultCase) {
			r.commit("fastio-sink-search", index, 51)
			d := r.rejected(index, 50, record)
			d.resolved, d.replayedTo = "replayed", retry+"/1:7"
		}, Waiting, "replayed to"},
		"replayed and rejected again": {"search", func(r *resultCase) {
			d := r.rejected(index, 50, record)
			d.resolved, d.replayedTo = "replayed", retry+"/1:7"
			r.rejected(retry, 7, record)
		}, Rejected, ""},
		"dropped": {"search", func(r *resultCase) {
			r.rejected(index, 50, record).resolved = "dropped"
		}, Rejected, "dropped"},
		"too many dead letters": {"search", func(r *resultCase) {
			r.commit("fastio-sink-search", index, 51)
			r.dead.cut = true
		}, NotKnown, "dead letters"},
		"no index record": {"search", func(r *resultCase) { r.trace.Verdict, r.trace.Notice = Duplicate, nil }, NotApplicable, ""},
		"expired notice":  {"search", func(r *resultCase) { r.trace.Notice = nil }, NotKnown, "expired"},
		"pending":         {"search", func(r *resultCase) { r.trace.Verdict, r.trace.Notice = Pending, nil }, Waiting, ""},
		"index unreadable": {"search", func(r *resultCase) {
			r.logs[index] = &partitionLog{err: errors.New("may not be read")}
		}, NotKnown, "may not"},
		"archived":     {"archive", func(r *resultCase) { r.commit("fastio-sink-archive", "fastio-events", 101) }, Delivered, ""},
		"not archived": {"archive", func(r *resultCase) { r.commit("fastio-sink-archive", "fastio-events", 100) }, Waiting, ""},
		"sent": {"notify-x", func(r *resultCase) {
			r.deliveries["x"] = delivery{State: "sent", At: at}
		}, Delivered, "sent"},
		"tried again": {"notify-x", func(r *resultCase) {
			r.deliveries["x"] = delivery{State: "failed", At: at, Attempts: 2, Answer: "503"}
		}, Waiting, "2 attempts: 503"},
		"no match": {"notify-x", func(r *resultCase) { r.commit("fastio-sink-notify-x", "fastio-notify", 201) }, NotApplicable, "match"},
		"intent, and too many deliveries": {"notify-x", func(r *resultCase) {
			r.deliveries["x"], r.cut["fastio-deliveries"] = delivery{State: "intent"}, true
		}, NotKnown, "intent"},
		"no notice": {"notify-x", func(r *resultCase) { r.trace.Verdict, r.notice = DeadLettered, nil }, NotApplicable, ""},
		"predicted": {"model-x", func(r *resultCase) {
			r.commit("fastio-sink-model-x", index, 51)
			r.predictions["x"] = true
		}, Delivered, "fastio-predictions"},
		"not predicted": {"model-x", func(r *resultCase) { r.commit("fastio-sink-model-x", index, 51) }, NotApplicable, "match"},
		"unknown sink":  {"telegram", func(*resultCase) {}, NotKnown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResultCase(t)
			test.set(r)
			got := r.of(test.sink, "fastio-sink-"+test.sink)
			if got.Result != test.want || !strings.Contains(got.Detail, test.detail) {
				t.Errorf("%+v, want %s: %s", got, test.want, test.detail)
			}
			if (got.DeadLetter != "") != (test.want == Rejected) {
				t.Errorf("dead letter %q", got.DeadLetter)
			}
		})
	}
}

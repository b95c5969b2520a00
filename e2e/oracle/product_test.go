package oracle

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/e2e/gen"
	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A product does in memory what tidemark's files group does, with its rules, and writes the log that the judge is
// shown.
type product struct {
	t    *testing.T
	log  []*kgo.Record
	next map[int32]int64
	rows map[string]*tidemarkv1.FileState // by key
	lose func(*tidemarkv1.Event) bool     // events of entries that are not written
	// waiting are the events of entries that are not in the log yet, by partition.
	waiting map[int32][]*kgo.Record
}

func newProduct(t *testing.T) *product {
	t.Helper()
	return &product{
		t: t, next: map[int32]int64{}, rows: map[string]*tidemarkv1.FileState{}, waiting: map[int32][]*kgo.Record{},
		lose: func(*tidemarkv1.Event) bool { return false },
	}
}

func (p *product) send(value []byte, at time.Time) {
	e, err := codecs.ParseEvent(value)
	if err != nil {
		p.t.Fatalf("%s: %v", value, err)
	}
	n := int32(Partition("events", e.GetWorkspaceId(), 8))
	p.write(&kgo.Record{Partition: n, Key: []byte(e.GetWorkspaceId()), Value: value, Timestamp: at})
}

// settle folds the events of entries that wait, at most so many, and those that follow from them.
func (p *product) settle(most int) {
	for n := range p.waiting {
		for i := 0; i < most && len(p.waiting[n]) > 0; i++ {
			r := p.waiting[n][0]
			p.waiting[n] = p.waiting[n][1:]
			p.write(r)
		}
	}
}

// write appends a record to the log and folds it.
func (p *product) write(r *kgo.Record) {
	r.Topic, r.Offset = "events", p.next[r.Partition]
	p.next[r.Partition]++
	p.log = append(p.log, r)
	e, err := codecs.ParseEvent(r.Value)
	if err != nil {
		p.t.Fatal(err)
	}
	e.RecordedAt = r.Timestamp.UnixMicro()
	if e.GetReceivedAt() == 0 {
		e.ReceivedAt = e.RecordedAt
	}
	if header(r, "tidemark-cause") != "" {
		if e.Cause, err = codecs.ParseCause(r.Value, e); err != nil {
			p.t.Fatal(err)
		}
	}
	if !file.Touches(e) {
		return
	}
	key := tidemarkv1.JoinKey(e.GetWorkspaceId(), e.GetFileId())
	before := p.rows[key]
	after, _, verdict := file.Apply(before, e, &tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}, "log")
	if after == nil || verdict != file.Accepted && verdict != file.Unchanged &&
		(verdict != file.Duplicate || e.Cause == nil) {
		return
	}
	p.rows[key] = after
	p.follow(before, after, e, r.Timestamp)
}

func (p *product) follow(before, after *tidemarkv1.FileState, e *tidemarkv1.Event, at time.Time) {
	scope := after.GetWorkspaceId()
	own := e
	if e.GetCause() != nil {
		own = nil
	}
	var rows []*tidemarkv1.FileState
	for _, key := range slices.Sorted(maps.Keys(p.rows)) {
		if p.rows[key].GetWorkspaceId() == scope {
			rows = append(rows, p.rows[key])
		}
	}
	folder := func(id string) *tidemarkv1.FileState {
		if f := p.rows[tidemarkv1.JoinKey(scope, id)]; id != "" && f.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
			return f
		}
		return nil
	}
	above := folder(after.GetParentId())
	if above == nil {
		above = file.NearestFolder(rows, after)
	}
	if above != nil && (own == nil || file.ChangesPlaceOrStatus(own)) {
		p.pass(file.Derive(above, after, own), at)
	}
	if after.GetInheritable().GetStamp() == before.GetInheritable().GetStamp() {
		return
	}
	for _, entry := range rows {
		if entry.GetParentId() == after.GetFileId() || folder(entry.GetParentId()) == nil {
			p.pass(file.Derive(after, entry, nil), at)
		}
	}
}

func (p *product) pass(e *tidemarkv1.Event, at time.Time) {
	if e == nil || p.lose(e) {
		return
	}
	n := int32(Partition("events", e.GetWorkspaceId(), 8))
	p.waiting[n] = append(p.waiting[n], &kgo.Record{
		Partition: n, Key: []byte(e.GetWorkspaceId()), Value: codecs.AppendDerived(nil, e), Timestamp: at,
		Headers: []kgo.RecordHeader{{Key: "tidemark-cause", Value: []byte(e.GetCause().GetPosition().Text())}},
	})
}

// table is what the files table then holds.
func (p *product) table(t *testing.T) []*kgo.Record {
	t.Helper()
	var records []*kgo.Record
	for _, key := range slices.Sorted(maps.Keys(p.rows)) {
		value, err := proto.Marshal(p.rows[key])
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, &kgo.Record{Key: []byte(key), Value: value})
	}
	return records
}

// play sends a generated history; what waits comes between later events.
func (p *product) play(seed uint64, events int) {
	h := gen.New(gen.Config{Seed: seed, Events: events, Base: base})
	n := 0
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries {
			if d.Refused {
				continue
			}
			n++
			p.send(d.Body, base.Add(time.Duration(n)*gen.Span/time.Duration(events)))
			p.settle(n % 4)
		}
	}
	p.settle(1 << 30)
}

// The judge and tidemark's own rules make the same of generated histories, and by the provider's events alone each
// entry is where its folder is.
func TestTheRulesAgree(t *testing.T) {
	for seed := uint64(20); seed < 26; seed++ {
		p, r := newProduct(t), &Report{Title: fmt.Sprint("seed ", seed)}
		p.play(seed, 2000)
		m := NewModel("events", 8, p.log)
		m.reportLog(r)
		m.judgeGroupRecords(r)
		m.judgeFiles(slices.Values(p.table(t)), r)
		if r.Broken() > 0 || seed == 0 && testing.Verbose() {
			t.Error(r)
		}
	}
}

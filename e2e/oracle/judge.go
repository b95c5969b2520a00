package oracle

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Topics are the names of an installation's topics: see docs/design.md.
type Topics struct{ Events, Files, Index, Notify, DLQ, Workspaces string }

// TopicsOf returns the names of an installation's topics.
func TopicsOf(prefix string) Topics {
	return Topics{
		Events: prefix + "-events", Files: prefix + "-files-table", Index: prefix + "-index",
		Notify: prefix + "-notify",
		DLQ:    prefix + "-dlq", Workspaces: prefix + "-workspaces-table",
	}
}

// Judge compares the topics of a cluster with the model of its events topic.
type Judge struct {
	Brokers    []string
	Topics     Topics // the index must not be compacted: every version of a file is compared
	Partitions int
	// Workspaces has the workspaces table judged too.
	Workspaces bool
	// Once means exactly_once: outputs may not be repeated either.
	Once bool
	// Sent is compared with the events topic; nil when it is not known.
	Sent *Sent
	// Followed has read the files table while it was written; may be nil.
	Followed *Follower
}

// Run judges every topic, and returns the model of files and workspaces. It goes partition by partition: the outputs
// of an event are in the partition of the same number, in every topic.
func (j Judge) Run(ctx context.Context, r *Report) (*Model, error) {
	parts, found := make([]*Model, j.Partitions), make([]*Report, j.Partitions)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	whole := NewModel(j.Topics.Events, j.Partitions, nil)
	for p := range j.Partitions {
		found[p] = &Report{}
		group.Go(func() error {
			var err error
			parts[p], err = j.judgePartition(ctx, p, found[p])
			return err
		})
	}
	err := group.Wait()
	for p, part := range parts {
		r.Merge(found[p])
		if part != nil {
			whole.absorb(part)
		}
	}
	return whole, err
}

// judgePartition returns the model of the files and workspaces of a partition.
func (j Judge) judgePartition(ctx context.Context, partition int, r *Report) (*Model, error) {
	var failed error
	records := slices.Collect(stream(ctx, j.Brokers, j.Topics.Events, partition, &failed))
	if failed != nil {
		return nil, failed
	}
	m := NewModel(j.Topics.Events, j.Partitions, records)
	m.once = j.Once
	m.reportLog(r)
	m.judgeGroupRecords(r)
	steps := []struct {
		topic string
		judge func(iter.Seq[*kgo.Record], *Report)
	}{
		{j.Topics.Notify, m.judgeNotices},
		{j.Topics.Files, m.judgeFiles},
		{j.Topics.Index, m.judgeIndex},
		{j.Topics.DLQ, m.judgeDead},
		{j.Topics.Workspaces, m.judgeWorkspaces},
	}
	if !j.Workspaces {
		steps = steps[:len(steps)-1]
	}
	for _, step := range steps {
		step.judge(stream(ctx, j.Brokers, step.topic, partition, &failed), r)
		if failed != nil {
			return nil, failed
		}
	}
	if j.Followed != nil {
		m.judgeFollowed(j.Followed.rows[partition], r)
		j.Followed.rows[partition] = nil // not needed any more
	}
	if j.Sent != nil {
		m.judgeSenders(partition, j.Sent, r)
	}
	only := NewModel(m.topic, m.partitions, nil)
	only.absorb(m)
	return only, nil
}

// reportLog adds counts of the events topic.
func (m *Model) reportLog(r *Report) {
	r.count("log: records", m.Records)
	r.count("log: folded / without a row / duplicates / dead", m.Accepted, m.Passed, m.Duplicates, len(m.dead))
	r.count("log: folded late / silent", m.Late, m.Silent)
	r.count("log: records of the files group", m.Own)
	r.count("log: ids forgotten and folded again: undated / tied", m.TwiceUndated, m.TwiceTied)
	never := 0
	for id := range m.beyond {
		if _, folded := m.folded[id]; !folded {
			never++
		}
	}
	r.count("log: ids that always came too late for the window", never)
	r.count("log: files / workspaces", len(m.rows), len(m.counts))
	r.check("ids folded twice")
	for _, at := range m.twice {
		r.Violate("ids folded twice", "%s: %s", at, short(m.events[at].Value))
	}
}

// judgeFiles compares the last row of each key: the table is coalesced and compacted, so only the last is promised. A
// paused owner may append older rows behind its successor's, who then writes its own again; exactly_once fences it.
func (m *Model) judgeFiles(records iter.Seq[*kgo.Record], r *Report) {
	r.check("rows missing", "rows wrong", "rows unexpected")
	if m.once {
		r.check("rows going back in time")
	}
	older, found := 0, 0
	last := map[string]*tidemarkv1.FileState{}
	for rec := range records {
		found++
		state := new(tidemarkv1.FileState)
		if err := proto.Unmarshal(rec.Value, state); err != nil || rec.Value == nil {
			r.Violate("rows wrong", "%q at %d:%d: %v", rec.Key, rec.Partition, rec.Offset, err)
			continue
		}
		key := string(rec.Key)
		if before := last[key]; before != nil && foldsOf(before) > foldsOf(state) {
			older++
			if m.once {
				r.Violate("rows going back in time", "%q: %d folds after %d", key, foldsOf(state), foldsOf(before))
			}
		}
		last[key] = state
	}
	for key, state := range last {
		want := m.rows[key]
		if want == nil {
			r.Violate("rows unexpected", "%q: %v", key, state)
			continue
		}
		if d := stateDoc(state).diff(want.doc()) + bookkeeping(state).diff(want.bookkeeping()); d != "" {
			r.Violate("rows wrong", "%q: %s", key, d)
		}
	}
	for key := range m.rows {
		if last[key] == nil {
			r.Violate("rows missing", "%q", key)
		}
	}
	m.judgeEntries(last, r)
	r.count("table: records / rows", found, len(last))
	r.count("table: records older than the one before, all written again", older)
}

func stateDoc(s *tidemarkv1.FileState) doc {
	status := map[tidemarkv1.Status]string{
		tidemarkv1.Status_STATUS_ACTIVE: "active", tidemarkv1.Status_STATUS_TRASHED: "trashed",
		tidemarkv1.Status_STATUS_ERASED: "erased",
	}[s.GetStatus()]
	d := doc{
		"workspace_id": text(s.GetWorkspaceId()), "file_id": text(s.GetFileId()), "status": text(status),
		"incomplete": boolean(s.GetIncomplete()), "version": number(s.GetVersion()),
		"position": text(position(s.GetPosition().GetPartition(), s.GetPosition().GetOffset())),
	}
	for name, value := range map[string]string{
		"name": s.GetName(), "path": s.GetPath(), "parent_id": s.GetParentId(), "mime": s.GetMime(),
		"hash": s.GetHash(), "actor_id": s.GetActorId(), "last_event": s.GetLastEvent(),
		"last_event_id": s.GetLastEventId(),
	} {
		d.put(name, value)
	}
	if s.Size != nil {
		d["size"] = number(s.GetSize())
	}
	if s.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
		d["kind"] = text("folder")
	}
	d.putTime("created_at", s.CreatedAt)
	d.putTime("updated_at", s.UpdatedAt)
	d.putTime("deleted_at", s.DeletedAt)
	return d
}

// bookkeeping has the fields that only later folds use: the times of the fields, the window, and the number of silent
// folds.
func bookkeeping(s *tidemarkv1.FileState) doc {
	d := doc{
		"seen": text(string(s.GetSeen())), "silent": number(s.GetSilent()),
		"silent_offset": number(s.GetSilentOffset()),
	}
	for i, behind := range s.GetFieldTimes() {
		name := fmt.Sprint("time of field ", i)
		if i < len(dated) {
			name = "time of " + dated[i]
		}
		if behind > 0 {
			d[name] = instant(s.GetLastAt() - int64(behind-1))
		}
	}
	d.putTime("place_at", s.PlaceAt) // these three are of an older format, and must not be written any more
	d.putTime("content_at", s.ContentAt)
	d.putTime("status_at", s.StatusAt)
	d.putTime("last_at", s.LastAt)
	return d
}

// foldsOf is how many events were folded into a row: of two rows, the one with more is newer.
func foldsOf(s *tidemarkv1.FileState) int64 { return s.GetVersion() + s.GetSilent() }

// judgeIndex compares every record with the row of its version. New versions must come in order, and the newest must
// be last.
func (m *Model) judgeIndex(records iter.Seq[*kgo.Record], r *Report) {
	r.check("index records missing", "index records wrong", "index not at the newest version",
		"index versions out of order")
	if m.once {
		r.check("index records repeated")
	}
	seen := map[string]map[int64]bool{}
	last, newest := map[string]int64{}, map[string]int64{}
	found := 0
	for rec := range records {
		found++
		key := string(rec.Key)
		object, err := strictObject(rec.Value)
		if err != nil {
			r.Violate("index records wrong", "%q: %v", key, err)
			continue
		}
		got := toDoc(object, "file")
		var version int64
		if _, err := fmt.Sscanf(got["version"], "number %d", &version); err != nil || m.index[key][version] == nil {
			r.Violate("index records wrong", "%q: no such version in the model: %s", key, rec.Value)
			continue
		}
		if seen[key] == nil {
			seen[key] = map[int64]bool{}
		}
		if m.once && seen[key][version] {
			r.Violate("index records repeated", "%q version %d", key, version)
		}
		if newest[key] > version && !seen[key][version] { // a repeated attempt may be older
			r.Violate("index versions out of order", "%q: version %d for the first time after %d", key, version,
				newest[key])
		}
		newest[key] = max(newest[key], version)
		seen[key][version], last[key] = true, version
		want, wantFile := m.index[key][version].indexed(key)
		var file doc
		if f, ok := object["file"].(map[string]any); ok {
			file = toDoc(f)
		}
		if d := got.diff(want) + file.diff(wantFile); d != "" {
			r.Violate("index records wrong", "%q version %d: %s", key, version, d)
		}
	}
	distinct := 0
	for key, versions := range m.index {
		distinct += len(versions)
		for version := range versions {
			if !seen[key][version] {
				r.Violate("index records missing", "%q version %d", key, version)
			}
		}
		if want := slices.Max(slices.Collect(maps.Keys(versions))); last[key] != want {
			r.Violate("index not at the newest version", "%q: last is %d of %d", key, last[key], want)
		}
	}
	r.count("index: records / expected", found, distinct)
}

// indexed returns the index record of a row, and the document in it.
func (r *row) indexed(key string) (record, file doc) {
	record = doc{
		"op": text("upsert"), "id": text(key), "workspace_id": text(r.scope), "file_id": text(r.object),
		"version": number(r.version), "position": text(r.position),
	}
	if r.status == "trashed" || r.folder {
		record["op"] = text("delete")
		return record, nil
	}
	return record, r.doc()
}

// judgeDead compares the dead letters by their identity: topic, partition and offset of the source.
func (m *Model) judgeDead(records iter.Seq[*kgo.Record], r *Report) {
	r.check("dead letters missing", "dead letters wrong", "dead letters unexpected", "dead letters marked by nobody")
	if m.once {
		r.check("dead letters repeated")
	}
	seen := map[string]bool{}
	found := 0
	for rec := range records {
		headers := map[string]string{}
		for _, h := range rec.Headers {
			headers[h.Key] = string(h.Value)
		}
		if _, marker := headers["dlq.resolved"]; marker { // set by operators, and there was none
			r.Violate("dead letters marked by nobody", "at %d: %v", rec.Offset, headers)
			continue
		}
		found++
		at := headers["dlq.partition"] + ":" + headers["dlq.offset"]
		want := m.dead[at]
		if want == nil || headers["dlq.topic"] != m.topic {
			r.Violate("dead letters unexpected", "%s %s: %v %q", headers["dlq.topic"], at, headers, short(rec.Value))
			continue
		}
		if m.once && seen[at] {
			r.Violate("dead letters repeated", "%s", at)
		}
		seen[at] = true
		source := want.record
		_, keyNull := headers["dlq.key_null"]
		key, value := deadLetterPart(source, headers, "key", source.Key), deadLetterPart(source, headers, "value",
			source.Value)
		switch {
		case headers["dlq.reason"] != want.reason:
			r.Violate("dead letters wrong", "%s: reason %s, wanted %s: %q", at, headers["dlq.reason"], want.reason,
				short(source.Value))
		case !bytes.Equal(rec.Value, value) || (rec.Value == nil) != (value == nil):
			r.Violate("dead letters wrong", "%s: value %q, wanted %q", at, short(rec.Value), short(source.Value))
		case !bytes.Equal(rec.Key, key) || keyNull != (source.Key == nil):
			r.Violate("dead letters wrong", "%s: key %q, null %t, wanted %q", at, rec.Key, keyNull, source.Key)
		case headers["dlq.headers_omitted"] == "" &&
			!slices.EqualFunc(withoutDLQ(rec.Headers), withoutDLQ(source.Headers), sameHeader):
			r.Violate("dead letters wrong", "%s: headers %v, its source had %v", at, headers, source.Headers)
		case headers["dlq.message"] == "" || headers["dlq.exception"] == "" || headers["dlq.first_failed_at"] == "":
			r.Violate("dead letters wrong", "%s: headers %v", at, headers)
		}
	}
	for at, d := range m.dead {
		if !seen[at] {
			r.Violate("dead letters missing", "%s: %s %q", at, d.reason, short(d.record.Value))
		}
	}
	reasons := map[string]int{}
	for _, d := range m.dead {
		reasons[d.reason]++
	}
	r.count("dead letters: records / expected", found, len(m.dead))
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		r.count("dead letters: expected for "+reason, reasons[reason])
	}
}

// withoutDLQ leaves out the headers that describe the dead letter, and sorts the rest.
func withoutDLQ(headers []kgo.RecordHeader) []kgo.RecordHeader {
	kept := slices.DeleteFunc(slices.Clone(headers),
		func(h kgo.RecordHeader) bool { return strings.HasPrefix(h.Key, "dlq.") })
	slices.SortFunc(kept, func(a, b kgo.RecordHeader) int { return cmp.Compare(a.Key, b.Key) })
	return kept
}

func sameHeader(a, b kgo.RecordHeader) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }

// deadLetterPart is the key or value of a dead letter: that of its source, or nothing when the source was too large
// and a header says so.
func deadLetterPart(source *kgo.Record, headers map[string]string, name string, part []byte) []byte {
	const least = 4<<20 - 4096 // headers and a batch add some hundred bytes
	size := len(source.Key) + len(source.Value)
	for _, h := range source.Headers {
		size += len(h.Key) + len(h.Value)
	}
	if size >= least && headers["dlq."+name+"_omitted"] == fmt.Sprint(len(part)) {
		return nil
	}
	return part
}

func short(b []byte) []byte { return b[:min(len(b), 200)] }

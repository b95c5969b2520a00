package oracle

import (
	"context"
	"encoding/json"
	"reflect"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Outputs are the records that sinks deliver: the newest index record of each file, the notices by op id, and the
// events by position.
type Outputs struct {
	index   map[string]map[string]any
	notices map[string]bool
	events  map[string][]byte
}

// ReadOutputs reads the topics, which Judge compares with the model of the events.
func ReadOutputs(ctx context.Context, brokers []string, topics Topics, partitions int) (*Outputs, error) {
	o := &Outputs{index: map[string]map[string]any{}, notices: map[string]bool{}, events: map[string][]byte{}}
	for p := range partitions {
		var failed error
		for r := range stream(ctx, brokers, topics.Index, p, &failed) {
			record, err := strictObject(r.Value)
			if err != nil {
				return nil, err
			}
			workspace, _ := record["workspace_id"].(string)
			file, _ := record["file_id"].(string)
			id := joinKey(workspace, file)
			if versionOf(record) > versionOf(o.index[id]) {
				o.index[id] = record
			}
		}
		for r := range stream(ctx, brokers, topics.Notify, p, &failed) {
			record, err := strictObject(r.Value)
			if err != nil {
				return nil, err
			}
			id, _ := record["op_id"].(string)
			o.notices[id] = true
		}
		for r := range stream(ctx, brokers, topics.Events, p, &failed) {
			o.events[position(r.Partition, r.Offset)] = r.Value
		}
		if failed != nil {
			return nil, failed
		}
	}
	return o, nil
}

func versionOf(record map[string]any) int64 {
	version, _ := record["version"].(json.Number)
	n, _ := version.Int64() // of no record it is 0
	return n
}

// Key is the key of a file's records.
func Key(workspace, file string) string { return joinKey(workspace, file) }

// A Document is one of a search index.
type Document struct {
	Version int64
	Source  json.RawMessage
}

// JudgeSearch compares all documents of an index, by Key, with the newest index records.
func (o *Outputs) JudgeSearch(found map[string]Document, r *Report) {
	r.check("search: documents missing", "search: documents wrong", "search: documents unexpected")
	for id, record := range o.index {
		d, ok := found[id]
		if !ok {
			r.Violate("search: documents missing", "%q", id)
			continue
		}
		source, err := strictObject(d.Source)
		file, active := record["file"].(map[string]any)
		deleted, _ := source["deleted"].(bool)
		switch {
		case err != nil:
			r.Violate("search: documents wrong", "%q: %v", id, err)
		case d.Version != versionOf(record) || versionOf(source) != versionOf(record):
			r.Violate("search: documents wrong", "%q: version %d, wanted %d", id, d.Version, versionOf(record))
		case deleted == active:
			r.Violate("search: documents wrong", "%q: deleted %t", id, deleted)
		case active:
			delete(source, "deleted")
			delete(source, "words")
			if !reflect.DeepEqual(source, file) {
				r.Violate("search: documents wrong", "%q: found %v, wanted %v", id, source, file)
			}
		}
	}
	for id := range found {
		if o.index[id] == nil {
			r.Violate("search: documents unexpected", "%q", id)
		}
	}
	r.Fact("search: documents", len(found))
}

// JudgeMessages compares how often a receiver has accepted a message of each op id with the notices.
func (o *Outputs) JudgeMessages(accepted map[string]int, r *Report) {
	r.check("messages lost", "messages unexpected")
	repeats := 0
	for id := range o.notices {
		if accepted[id] == 0 {
			r.Violate("messages lost", "%q", id)
		}
	}
	for id, n := range accepted {
		repeats += n - 1
		if !o.notices[id] {
			r.Violate("messages unexpected", "%q", id)
		}
	}
	r.Fact("messages: of notices / repeated", []int{len(o.notices), repeats})
}

// JudgeArchive compares archived records, each as often as it was found, with the events.
func (o *Outputs) JudgeArchive(found []*kgo.Record, r *Report) {
	r.check("archive: records missing", "archive: records wrong", "archive: records twice")
	seen := map[string]bool{}
	for _, record := range found {
		at := position(record.Partition, record.Offset)
		if seen[at] {
			r.Violate("archive: records twice", "%s", at)
		}
		seen[at] = true
		if want, ok := o.events[at]; !ok || string(want) != string(record.Value) {
			r.Violate("archive: records wrong", "%s: %q", at, record.Value)
		}
	}
	for at := range o.events {
		if !seen[at] {
			r.Violate("archive: records missing", "%s", at)
		}
	}
	r.Fact("archive: records", len(found))
}

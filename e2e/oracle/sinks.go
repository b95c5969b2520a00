package oracle

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Outputs are the records that sinks deliver: the newest index record of each file, the event of each notice by op id,
// and the events by position.
type Outputs struct {
	index   map[string]map[string]any
	notices map[string]string
	events  map[string][]byte
}

// ReadOutputs reads the topics, which Judge compares with the model of the events.
func ReadOutputs(ctx context.Context, brokers []string, topics Topics, partitions int) (*Outputs, error) {
	o := &Outputs{index: map[string]map[string]any{}, notices: map[string]string{}, events: map[string][]byte{}}
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
			o.notices[id], _ = record["event"].(string)
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

// JudgeWebhooks compares how often a receiver has accepted a message of each op id with the notices.
func (o *Outputs) JudgeWebhooks(accepted map[string]int, r *Report) {
	wanted := map[string]bool{}
	for id := range o.notices {
		wanted[id] = true
	}
	judgeMessages("messages", wanted, accepted, r)
}

// JudgeMail compares the mails by Message-ID with the notices of comments, which the rule selects.
func (o *Outputs) JudgeMail(accepted map[string]int, rule, domain string, r *Report) {
	wanted := map[string]bool{}
	for id, event := range o.notices {
		if event == comment {
			sum := sha256.Sum256([]byte(rule + "\x00" + id))
			wanted[fmt.Sprintf("<%x@%s>", sum[:16], domain)] = true
		}
	}
	judgeMessages("mails", wanted, accepted, r)
}

const comment = "comment_created"

// JudgeChat compares the number of events that messages have named with that of the notices of comments.
func (o *Outputs) JudgeChat(accepted map[string]int, r *Report) {
	r.check("chat messages lost", "chat messages unexpected")
	wanted, repeats := 0, 0
	for _, event := range o.notices {
		if event == comment {
			wanted++
		}
	}
	for _, n := range accepted {
		repeats += n - 1
	}
	if len(accepted) < wanted {
		r.Violate("chat messages lost", "%d of %d", wanted-len(accepted), wanted)
	} else if len(accepted) > wanted {
		r.Violate("chat messages unexpected", "%d more than %d", len(accepted)-wanted, wanted)
	}
	r.Fact("chat messages: of notices / repeated", counts{wanted, repeats})
}

func judgeMessages(name string, wanted map[string]bool, accepted map[string]int, r *Report) {
	r.check(name+" lost", name+" unexpected")
	repeats := 0
	for id := range wanted {
		if accepted[id] == 0 {
			r.Violate(name+" lost", "%q", id)
		}
	}
	for id, n := range accepted {
		repeats += n - 1
		if !wanted[id] {
			r.Violate(name+" unexpected", "%q", id)
		}
	}
	r.Fact(name+": of notices / repeated", counts{len(wanted), repeats})
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

// JudgePredictions compares the newest prediction of each file with the file's newest index record. The model answers
// the bytes of the file's id.
func (o *Outputs) JudgePredictions(
	ctx context.Context, brokers []string, topic string, partitions int, r *Report,
) error {
	r.check("predictions missing", "predictions wrong", "predictions unexpected")
	newest, total := map[string]map[string]any{}, 0
	for p := range partitions {
		var failed error
		for record := range stream(ctx, brokers, topic, p, &failed) {
			prediction, err := strictObject(record.Value)
			if err != nil {
				return err
			}
			workspace, _ := prediction["workspace_id"].(string)
			file, _ := prediction["file_id"].(string)
			id := joinKey(workspace, file)
			if total++; versionOf(prediction) >= versionOf(newest[id]) {
				newest[id] = prediction
			}
		}
		if failed != nil {
			return failed
		}
	}
	for id, record := range o.index {
		prediction, ok := newest[id]
		file, _ := record["file_id"].(string)
		outputs, _ := prediction["outputs"].(map[string]any)
		length, _ := outputs["bytes"].(json.Number)
		right := length == json.Number(strconv.Itoa(len(file)))
		if record["op"] == "delete" {
			right = outputs == nil
		}
		switch {
		case !ok:
			r.Violate("predictions missing", "%q", id)
		case versionOf(prediction) != versionOf(record) || prediction["op"] != record["op"] || !right:
			r.Violate("predictions wrong", "%q: %v for %v", id, prediction, record)
		}
	}
	for id := range newest {
		if o.index[id] == nil {
			r.Violate("predictions unexpected", "%q", id)
		}
	}
	r.Fact("predictions: files / records", counts{len(newest), total})
	return nil
}

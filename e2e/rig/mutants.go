package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Mutant is the product with a line or two changed, so that one promise does not hold: a negative control.
type Mutant []Edit

// An Edit is one place that a mutant changes.
type Edit struct {
	File     string // from the module's root
	Old, New string // Old occurs once
}

// rowsFirst writes a row to the local store in the callback, as goka does: before anything of the event is
// acknowledged. The log of the store's writes is on, so that the row survives kill -9.
var rowsFirst = Mutant{
	{
		"kafka/epochs/context.go",
		"return c.epochs.set(c.Key(), row, value)",
		"return errors.Join(c.epochs.set(c.Key(), row, value), c.epochs.storeAtOnce(c.Key(), row))",
	},
	{
		"kafka/epochs/publish.go",
		"// storeRows writes the acknowledged rows",
		`func (p *partitionEpochs) storeAtOnce(key string, row []byte) error {
	offset, err := p.store.GetOffset(-1)
	if err != nil {
		return err
	}
	return p.store.Update(offset, func(w *localstore.Writer) error {
		w.Set(localstore.Rows, []byte(key), row)
		return nil
	})
}

// storeRows writes the acknowledged rows`,
	},
	{
		"kafka/localstore/store.go",
		"DisableWAL:                  true",
		"DisableWAL:                  false",
	},
}

// Mutants are the negative controls by name.
var Mutants = map[string]Mutant{
	// It does not wait for the followers. Without their acknowledgements a producer cannot be idempotent, and keeps
	// the order by one request at a time.
	"acks=1": {{
		"kafka/producer/producer.go", "kgo.RequiredAcks(kgo.AllISRAcks()),",
		"kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1),",
	}},
	// It commits past events that are not published: goka marks each event when its callback has returned, and sarama
	// commits the largest mark.
	"stock-group": {{
		"kafka/epochs/consumer.go",
		"func (*session) MarkOffset(string, int32, int64, string)     {}\n", "",
	}},
	// It drops an event that it finds in the row, though its outputs may be lost.
	"seen-return": rowsFirst,
	// It repeats the outputs of an event that it finds in the row, from the row as it is now.
	"seen-redo": append(rowsFirst, Edit{
		"processors/files.go", "after, late, verdict := file.Apply(before, a.event, at, f.topicID)\n",
		`after, late, verdict := file.Apply(before, a.event, at, f.topicID)
	if verdict == file.Applied {
		after, verdict = before, file.Accepted
	}
`,
	}),
	// It commits a batch before its sink has delivered it.
	"sink-commits-early": {{
		"sinks/loop.go", "d, err = l.deliver(ctx, pausing, l.records(records))\n",
		"p.Handled(records[len(records)-1])\n			d, err = l.deliver(ctx, pausing, l.records(records))\n",
	}},
	// It commits an epoch before what its callbacks emitted is acknowledged.
	"commit-early": {{
		"kafka/epochs/publish.go", "p, begin := l.partition, time.Now()\n",
		`p, begin := l.partition, time.Now()
	for topic, next := range e.nextOffsets {
		l.commit(topic, next, "")
	}
`,
	}},
	// It answers from the partitions that it has given up to another instance, and so has ceased to read.
	"answers what it gave up": {
		{
			"views/forward.go",
			"	if term == nil {\n		return s.forward(c, r, partition)\n	}\n	c.term = term\n",
			`	if term != nil {
		c.term = term
	} else if !s.files.completePartition(partition) {
		return s.forward(c, r, partition)
	}
`,
		},
		{
			"views/table.go", "	t.frontiers[partition].reset()\n	t.partitions[partition].givenUp.Add(1)\n", "",
		},
	},
	// It does not look for records that a paused owner appended to the index.
	"no index mirror": {{"processors/files.go", "indexMirror(conf),", "nil,"}},
	// It recovers tables from, and folds, what no transaction has committed, and takes the end of a log for that of
	// what is committed.
	"read uncommitted": {
		{
			"kafka/committed/cluster.go",
			"IsolationLevel = sarama.ReadCommitted",
			"IsolationLevel = sarama.ReadUncommitted",
		},
		{"kafka/committed/ends.go", "IsolationLevel: kgo.ReadCommitted()", "IsolationLevel: kgo.ReadUncommitted()"},
	},
	// It recovers tables to whatever end a leader answers, also one that was replaced.
	"stale ends": {{
		"kafka/epochs/progress.go", "committed.TopicManager(e.conf.Cluster, e.minEnd)",
		"committed.TopicManager(e.conf.Cluster, committed.NoMinEnd)",
	}},
	// It commits offsets in a transaction without the generation of the group.
	"no generation": {{
		"kafka/epochs/txnproducer.go",
		"producer, epoch\n\trequest.Group, request.MemberID, request.Generation, request.InstanceID = " +
			"p.group, m.id, m.generation, &p.instance",
		"producer, epoch\n\trequest.Group, _ = p.group, m",
	}},
}

// source returns the file as it is in the mutant.
func (e Edit) source(root string) ([]byte, error) {
	source, err := os.ReadFile(filepath.Join(root, e.File))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(source, []byte(e.Old)); n != 1 {
		return nil, fmt.Errorf("%s has %q %d times, want it once: the mutant has to follow the code", e.File, e.Old, n)
	}
	return bytes.Replace(source, []byte(e.Old), []byte(e.New), 1), nil
}

// moduleRoot is the folder of go.mod.
func moduleRoot() (string, error) {
	file, err := exec.Command("go", "env", "GOMOD").Output()
	return filepath.Dir(strings.TrimSpace(string(file))), err
}

// Build builds the mutant in a folder of its own in dir. The files of the module stay as they are: the compiler reads
// others in their place.
func (m Mutant) Build(dir string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(dir, "mutant-"); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for i, e := range m {
		source, err := e.source(root)
		if err != nil {
			return "", err
		}
		changed := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(changed, source, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, e.File)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	return Build(dir, "tidemark/cmd/tidemark", "-overlay", file, "-ldflags=-s -w") // links in half the time
}

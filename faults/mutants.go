package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// A mutant is the product with something changed, so that what a claim rests on is gone, and all else is as it is released.
type mutant []edit

// An edit is one place that a mutant changes.
type edit struct {
	file     string // from the module's root
	old, new string // old stands there once
}

var (
	// noMirror does not look for what a woken owner appended to the index.
	noMirror = mutant{{"processors/files.go", "indexMirror(conf),", "nil,"}}
	// uncommittedRows recovers tables from, and folds, what no transaction has committed, and takes the end of a log for that of
	// what is committed.
	uncommittedRows = mutant{
		{"kafka/committed/cluster.go", "IsolationLevel = sarama.ReadCommitted", "IsolationLevel = sarama.ReadUncommitted"},
		{"kafka/committed/ends.go", "IsolationLevel: kgo.ReadCommitted()", "IsolationLevel: kgo.ReadUncommitted()"},
	}
	// oldEnds recovers tables to whatever end a leader tells.
	oldEnds = mutant{{"kafka/epochs/epochs.go", "committed.TopicManager(e.conf.Cluster, e.minEnd)", "committed.TopicManager(e.conf.Cluster, committed.NoMinEnd)"}}
	// noGeneration commits offsets in a transaction without saying of which generation of the group.
	noGeneration = mutant{{
		"kafka/epochs/txnproducer.go", `producer, epoch
	request.Group, request.MemberID, request.Generation, request.InstanceID = p.group, m.id, m.generation, &p.instance`, `producer, epoch
	request.Group, _ = p.group, m`,
	}}
)

// source returns the file as it is in the mutant. root is the module's.
func (e edit) source(root string) ([]byte, error) {
	source, err := os.ReadFile(filepath.Join(root, e.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(source, []byte(e.old)); n != 1 {
		return nil, fmt.Errorf("%s has %q %d times, want it once: the mutant has to follow the code", e.file, e.old, n)
	}
	return bytes.Replace(source, []byte(e.old), []byte(e.new), 1), nil
}

// build makes the mutant's binary in a folder of its own below dir. It is run in the module's root, whose files it leaves
// alone: the compiler is told to read others.
func (m mutant) build(dir string) (string, error) {
	root, err := os.Getwd()
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
		replace[filepath.Join(root, e.file)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	return build(dir, "tidemark/cmd/tidemark", "-overlay", file)
}

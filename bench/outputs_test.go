package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/bench/peers/work"
)

// written are the records of one partition.
type written struct{ index, notices, table []*kgo.Record }

// peer folds an input of one partition with the code of the peers.
func peer(t *testing.T, s setup) (out written) {
	t.Helper()
	in, states := newInput(s), map[string]*work.State{}
	add := func(to *[]*kgo.Record, key string, value []byte) {
		*to = append(*to, &kgo.Record{Offset: int64(len(*to)), Key: []byte(key), Value: value})
	}
	for offset := range s.events {
		sent, _ := in.next()
		e, err := work.Parse(sent.value)
		if err != nil {
			t.Fatal(err)
		}
		if states[e.Key()] == nil {
			states[e.Key()] = &work.State{}
		}
		state := states[e.Key()]
		before, ok := state.Fold(e, 0, int64(offset))
		if !ok {
			continue
		}
		add(&out.index, e.Key(), work.IndexOf(&state.File).Append(nil))
		add(&out.notices, e.Key(), work.NoticeOf(e, before, &state.File).Append(nil))
		add(&out.table, e.Key(), state.Append(nil))
	}
	return out
}

// judge checks one partition as want.check does.
func judge(w *want, out written) error {
	for _, c := range []struct {
		checker
		records []*kgo.Record
	}{
		{newOutputs(w, 0, true), out.notices}, {newOutputs(w, 0, false), out.index}, {newChangelog(w, 0), out.table},
	} {
		for _, r := range c.records {
			if err := c.take(r); err != nil {
				return err
			}
		}
		if err := c.end(); err != nil {
			return err
		}
	}
	return nil
}

func TestOutputs(t *testing.T) {
	s := setup{seed: 1, events: 3000, files: 200, workspaces: 5, added: 0.2, partitions: 1}
	w, err := newWant(s)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(r *kgo.Record, old, by string) *kgo.Record {
		changed := *r
		if changed.Value = bytes.Replace(r.Value, []byte(old), []byte(by), 1); bytes.Equal(changed.Value, r.Value) {
			t.Fatalf("%q is not in %s", old, r.Value)
		}
		return &changed
	}
	for _, c := range []struct {
		name  string
		alter func(*written)
		want  string // in the error; empty: accepted
	}{
		{"as it is", func(*written) {}, ""},
		{"an index record lost", func(o *written) { o.index = slices.Delete(o.index, 7, 8) }, "no record of the event"},
		{"the last notice lost", func(o *written) { o.notices = o.notices[:len(o.notices)-1] }, "no record of the event"},
		{"a notice twice", func(o *written) { o.notices = append(o.notices, o.notices[9]) }, "another record"},
		{"a record twice, changed", func(o *written) {
			o.index = append(o.index, replace(o.index[9], `"version":`, `"version":9`))
		}, "another record"},
		{"a wrong version", func(o *written) {
			o.index[20] = replace(o.index[20], `"version":`, `"version":1`)
		}, "not what the event"},
		{"a field less", func(o *written) {
			o.notices[20] = replace(o.notices[20], `"hash":"sha256:`, `"digest":"sha256:`)
		}, "not what the event"},
		{"another payload", func(o *written) {
			o.notices[20] = replace(o.notices[20], `"payload":{"event":"w`, `"payload":{"event":"v`)
		}, "not what the event"},
		{"a wrong key", func(o *written) { o.index[3].Key = []byte("ws/f") }, "not what the event"},
		{"another partition", func(o *written) {
			o.index[3] = replace(o.index[3], `"position":"0:`, `"position":"1:`)
		}, "no event is at"},
		{"a repeat is no event", func(o *written) {
			i := work.Index{Position: fmt.Sprintf("0:%d", slices.Index(w.events[0], outcome{}))}
			o.index[3] = &kgo.Record{Key: o.index[3].Key, Value: i.Append(nil)}
		}, "is a repeat"},
		{"not in order", func(o *written) { slices.Reverse(o.index) }, "comes after"},
		{"no table", func(o *written) { o.table = nil }, "no row of"},
		{"an old row", func(o *written) { o.table = append(o.table, first(o.table)) }, "is not that of"},
		{"a row of no file", func(o *written) { o.table[5].Key = []byte("x") }, "no file has the key"},
	} {
		out := peer(t, s)
		c.alter(&out)
		switch err := judge(w, out); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// first returns the first record of a key that has more than one.
func first(records []*kgo.Record) *kgo.Record {
	for i, r := range records {
		if slices.ContainsFunc(records[i+1:], func(o *kgo.Record) bool { return bytes.Equal(o.Key, r.Key) }) {
			return r
		}
	}
	return nil
}

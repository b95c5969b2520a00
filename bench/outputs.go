package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"tidemark/e2e/oracle"
)

// check reads the committed records of a program's topics and compares every one with what is wanted. An error means
// that no figure of the run counts.
func (w *want) check(ctx context.Context, brokers []string, index, notify, table string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	read := func(topic string, partition int, c checker) {
		group.Go(func() error {
			var failed error // the first
			err := oracle.Each(ctx, brokers, topic, partition, func(r *kgo.Record) {
				if failed == nil {
					failed = c.take(r)
				}
			})
			if failed == nil && err == nil {
				failed = c.end()
			}
			if err = errors.Join(failed, err); err != nil {
				return fmt.Errorf("%s, partition %d: %w", topic, partition, err)
			}
			return nil
		})
	}
	for partition := range w.events {
		read(notify, partition, newOutputs(w, partition, true))
		read(index, partition, newOutputs(w, partition, false))
		read(table, partition, newChangelog(w, partition))
	}
	return group.Wait()
}

// A checker takes the records of one partition in their order.
type checker interface {
	take(r *kgo.Record) error
	end() error
}

// outputs checks index records or notices: one for each event that is no repeat, and those of a file in the order of
// its events.
type outputs struct {
	notices bool
	events  []outcome
	at      string         // the partition as it begins a position
	last    map[string]int // offset of the last event, by key
	seen    []bool
}

func newOutputs(w *want, partition int, notices bool) *outputs {
	return &outputs{
		notices: notices, events: w.events[partition], at: strconv.Itoa(partition) + ":", last: map[string]int{},
		seen: make([]bool, len(w.events[partition])),
	}
}

// read returns the position and the digest of a record.
func (o *outputs) read(r *kgo.Record) (position string, got uint64, err error) {
	if o.notices {
		var n noticeRecord
		if err = jsonv2.Unmarshal(r.Value, &n); err == nil {
			position = n.Position
			got, err = n.digest(string(r.Key))
		}
		return position, got, err
	}
	var i indexRecord
	if err = jsonv2.Unmarshal(r.Value, &i); err == nil {
		position = i.Position
		got, err = digest(string(r.Key), &i, nil)
	}
	return position, got, err
}

func (o *outputs) take(r *kgo.Record) error {
	position, got, err := o.read(r)
	if err != nil {
		return fmt.Errorf("offset %d: %w", r.Offset, err)
	}
	text, ours := strings.CutPrefix(position, o.at)
	offset, err := strconv.Atoi(text)
	if err != nil || !ours || offset < 0 || offset >= len(o.events) {
		return fmt.Errorf("offset %d: no event is at %q", r.Offset, position)
	}
	event := o.events[offset]
	wanted := event.index
	if o.notices {
		wanted = event.notice
	}
	switch last, any := o.last[string(r.Key)]; {
	case event == outcome{}:
		return fmt.Errorf("offset %d: the event at %s is a repeat, and must write nothing", r.Offset, position)
	case o.seen[offset]:
		return fmt.Errorf("offset %d: another record of the event at %s", r.Offset, position)
	case any && last > offset:
		return fmt.Errorf("offset %d: the event at %s comes after that at offset %d", r.Offset, position, last)
	case wanted != got:
		return fmt.Errorf("offset %d: not what the event at %s must write: %s", r.Offset, position, r.Value)
	}
	o.seen[offset], o.last[string(r.Key)] = true, offset
	return nil
}

func (o *outputs) end() error {
	for offset, seen := range o.seen {
		if !seen && o.events[offset] != (outcome{}) {
			return fmt.Errorf("no record of the event at %s%d", o.at, offset)
		}
	}
	return nil
}

// changelog checks the records of a table: the last one of each file has the id and the hash of the file's last event.
// Each program has a format of its own, but all keep these as text.
type changelog struct {
	files map[string]*document
	rows  map[string][]byte
	at    string
}

func newChangelog(w *want, partition int) *changelog {
	return &changelog{files: w.files, rows: map[string][]byte{}, at: strconv.Itoa(partition) + ":"}
}

func (t *changelog) take(r *kgo.Record) error {
	f := t.files[string(r.Key)]
	if f == nil || !strings.HasPrefix(f.Position, t.at) {
		return fmt.Errorf("offset %d: no file has the key %q here", r.Offset, r.Key)
	}
	t.rows[string(r.Key)] = r.Value
	return nil
}

func (t *changelog) end() error {
	for key, f := range t.files {
		if !strings.HasPrefix(f.Position, t.at) {
			continue
		}
		row := t.rows[key]
		if row == nil {
			return fmt.Errorf("no row of %q", key)
		}
		if !bytes.Contains(row, []byte(f.LastEventID)) || !bytes.Contains(row, []byte(f.Hash)) {
			return fmt.Errorf("the last row of %q is not that of %s: %q", key, f.LastEventID, row)
		}
	}
	return nil
}

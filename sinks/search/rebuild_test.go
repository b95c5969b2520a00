package search

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemark/sinks"
)

// A log is a topic of one partition.
type log struct {
	mu      sync.Mutex
	records []*sinks.Record
}

func (l *log) append(r *sinks.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
}

// since returns the records from an offset to the end.
func (l *log) since(offset int) []*sinks.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[offset:]
}

// reader returns a function for Rebuild.
func (l *log) reader(t *testing.T) func(context.Context, sinks.Sink) error {
	t.Helper()
	next := 0
	return func(_ context.Context, to sinks.Sink) error {
		for _, r := range l.since(next) {
			deliverAll(t, to, r)
			next++
		}
		return nil
	}
}

// No update is lost while an index is rebuilt, and what only the old index had is gone.
func TestRebuild(t *testing.T) {
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			deliverAll(t, s, record(t, active("ws", "stale", 7, "/not in the topic")))
			topic, version := &log{}, int64(0)
			write := func() {
				version++
				for i := range 5 {
					topic.append(record(t, active("ws", fmt.Sprint("f", i), version, fmt.Sprintf("/v%d", version))))
				}
			}
			write()
			deliverAll(t, s, topic.since(0)...)
			var stop atomic.Bool
			var traffic sync.WaitGroup
			traffic.Go(func() { // another process's sink
				for offset := len(topic.since(0)); !stop.Load(); {
					write()
					batch := topic.since(offset)
					deliverAll(t, s, batch...)
					offset += len(batch)
				}
			})
			if err := s.Rebuild(t.Context(), topic.reader(t)); err != nil {
				t.Fatal(err)
			}
			stop.Store(true)
			traffic.Wait()
			want := []string{}
			for i := range 5 {
				want = append(want, fmt.Sprintf("f%d@%d", i, version))
			}
			if diff := cmp.Diff(want, found(t, s, Query{Workspace: "ws"})); diff != "" {
				t.Error(diff)
			}
			if err := s.Check(t.Context()); err != nil || s.Incomplete() {
				t.Errorf("after the rebuild: incomplete %v, %v", s.Incomplete(), err)
			}
		})
	}
}

// What another process wrote to the old index, and committed, just before the replacement is in the new one.
func TestRebuildCatchesUp(t *testing.T) {
	s := openSearchForTest(t)
	topic := &log{}
	topic.append(record(t, active("ws", "f", 1, "/v1")))
	read, calls := topic.reader(t), 0
	err := s.Rebuild(t.Context(), func(ctx context.Context, to sinks.Sink) error {
		calls++
		err := read(ctx, to)
		if calls == 1 {
			topic.append(record(t, active("ws", "f", 2, "/v2")))
			deliverAll(t, s, topic.since(1)...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"f@2"}, found(t, s, Query{Workspace: "ws"})); diff != "" {
		t.Error(diff)
	}
}

// A rebuild that fails leaves the index that serves, and can be started again.
func TestRebuildInterrupted(t *testing.T) {
	s := openSearchForTest(t)
	topic := &log{}
	topic.append(record(t, active("ws", "f", 1, "/v1")))
	deliverAll(t, s, topic.since(0)...)
	broken := errors.New("broken")
	fails := func(context.Context, sinks.Sink) error { return broken }
	if err := s.Rebuild(t.Context(), fails); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"f@1"}, found(t, s, Query{Workspace: "ws"})); diff != "" {
		t.Error(diff)
	}
	if err := s.Rebuild(t.Context(), topic.reader(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"f@1"}, found(t, s, Query{Workspace: "ws"})); diff != "" {
		t.Error(diff)
	}
	indexes, err := s.index.(*server).indexes(t.Context(), s.index.(*server).alias)
	if _, third := indexes[s.index.(*server).numbered(3)]; err != nil || !third || len(indexes) != 1 {
		t.Errorf("the alias names %v (%v), want the third index", indexes, err)
	}
}

// An index that somebody deletes during its rebuild is not created again by the next write, with what is left.
func TestRebuildIndexDeleted(t *testing.T) {
	s := openSearchForTest(t)
	index := s.index.(*server)
	err := s.Rebuild(t.Context(), func(ctx context.Context, to sinks.Sink) error {
		if err := index.do(ctx, "DELETE", "/"+index.numbered(2), nil, nil); err != nil {
			t.Error(err)
		}
		return to.Deliver(ctx, files(t, 1))
	})
	if len(againOf(err)) != 1 {
		t.Error(err)
	}
	if indexes, err := index.indexes(t.Context(), index.alias+"-0*"); err != nil || len(indexes) != 1 {
		t.Errorf("%v %v", indexes, err)
	}
}

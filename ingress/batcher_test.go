package ingress

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// produce gives records with these values to p, and returns what they ended with, by value, once they have.
func produce(p Producer, values ...string) *sync.Map {
	ended := &sync.Map{}
	for _, value := range values {
		p.TryProduce(context.Background(), &kgo.Record{Value: []byte(value)}, func(r *kgo.Record, err error) {
			ended.Store(string(r.Value), fmt.Sprint(r.Offset, err))
		})
	}
	return ended
}

// sent wants the values that a log got, in order.
func sent(t *testing.T, log *memoryLog, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for _, r := range log.all() {
		got = append(got, string(r.value))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

// A record that comes alone is sent at once. Those that come while it is in flight are sent together after it, also
// when it fails.
func TestBatchesFollowAcknowledgements(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{nil, errors.New("not enough replicas")} {
		synctest.Test(t, func(t *testing.T) {
			log := &memoryLog{hold: true, err: failure}
			b := newBatcher(log, time.Second)
			first := produce(b, "a")
			sent(t, log, "a")
			others := produce(b, "b", "c")
			time.Sleep(time.Second - time.Nanosecond)
			sent(t, log, "a")
			log.acknowledge()
			sent(t, log, "a", "b", "c")
			if got, _ := first.Load("a"); got != fmt.Sprint(0, failure) {
				t.Errorf("a ended with %v", got)
			}
			if _, early := others.Load("b"); early {
				t.Error("b ended before it was acknowledged")
			}
			log.acknowledge()
			synctest.Wait()
			if got, _ := others.Load("c"); got != fmt.Sprint(2, failure) {
				t.Errorf("c ended with %v", got)
			}
			produce(b, "d")
			sent(t, log, "a", "b", "c", "d")
		})
	}
}

// A partition that acknowledges nothing delays the records of others by the linger time.
func TestRecordsWaitNoLongerThanLinger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memoryLog{hold: true}
		b := newBatcher(log, time.Second)
		produce(b, "stuck")
		time.Sleep(10 * time.Second)
		produce(b, "x")
		time.Sleep(time.Second / 2)
		produce(b, "y")
		time.Sleep(time.Second/2 - time.Nanosecond)
		sent(t, log, "stuck")
		time.Sleep(time.Nanosecond)
		sent(t, log, "stuck", "x", "y")
		produce(b, "z")
		time.Sleep(time.Second - time.Nanosecond)
		sent(t, log, "stuck", "x", "y")
		time.Sleep(time.Nanosecond)
		sent(t, log, "stuck", "x", "y", "z")
	})
}

// Run with -race. Records of one sender keep their order, and each ends once.
func TestBatchesKeepTheOrder(t *testing.T) {
	t.Parallel()
	const senders, each = 8, 500
	log := &memoryLog{}
	b := newBatcher(log, time.Millisecond)
	var all, acknowledged sync.WaitGroup
	acknowledged.Add(senders * each) // Done panics when a record ends twice
	for sender := range senders {
		all.Go(func() {
			for i := range each {
				record := &kgo.Record{Key: fmt.Append(nil, sender), Value: fmt.Append(nil, i)}
				b.TryProduce(context.Background(), record, func(*kgo.Record, error) { acknowledged.Done() })
			}
		})
	}
	all.Wait()
	acknowledged.Wait()
	next := map[string]int{}
	for _, r := range log.all() {
		if string(r.value) != fmt.Sprint(next[r.key]) {
			t.Fatalf("sender %s: %s after %d", r.key, r.value, next[r.key]-1)
		}
		next[r.key]++
	}
}

package epochs

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka/committed"
)

type ledgerTest struct {
	conf  Config
	topic string
	admin *kadm.Client
}

func newLedgerTest(t *testing.T) *ledgerTest {
	t.Helper()
	name := fmt.Sprintf("ledger%d", time.Now().UnixNano())
	x := &ledgerTest{topic: name, conf: Config{
		Cluster: committed.At(devbroker.ForTest(t)...), Name: name, InstanceID: "one",
		Log: slog.New(slog.DiscardHandler),
	}}
	client, err := x.conf.opener()()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	x.admin = kadm.NewClient(client)
	if _, err := x.admin.CreateTopic(t.Context(), 1, 1, nil, name); err != nil {
		t.Fatal(err)
	}
	devbroker.AwaitTopics(t, client, name)
	return x
}

func (x *ledgerTest) open(t *testing.T, m *groupMember) *kafkaTxnProducer {
	t.Helper()
	l, err := openTxnProducer(x.conf, x.conf.opener(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.client.Close)
	l.session.Store(m)
	l.bind()
	return l
}

// write leaves a transaction open with one record in it.
func (x *ledgerTest) write(t *testing.T, l *kafkaTxnProducer) {
	t.Helper()
	if err := l.begin(); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	l.send(&kgo.Record{Topic: x.topic, Value: []byte("v")}, func(_ *kgo.Record, err error) { sent <- err })
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// committed counts the records that a read_committed consumer gets.
func (x *ledgerTest) committed(t *testing.T) (n int) {
	t.Helper()
	ends, err := x.admin.ListCommittedOffsets(t.Context(), x.topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(x.topic, 0)
	all := committed.Spans{0: {From: 0, To: end.Offset}}
	if err := committed.Read(t.Context(), x.conf.opener(), x.topic, all,
		func(*kgo.Record) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// A former member of the group can write, but not commit, with outputs or without.
func TestAFormerMemberCannotCommit(t *testing.T) {
	x := newLedgerTest(t)
	l := x.open(t, &groupMember{id: "one-of-before", generation: 3})
	next := map[partitionID]inputOffset{{x.topic, 0}: {offset: 7}}
	x.write(t, l)
	if err := l.addOffsets(t.Context(), next); !refusedMember(err) {
		t.Errorf("offsets in a transaction: %v", err)
	}
	if err := l.end(t.Context(), false); err != nil {
		t.Error(err)
	}
	if err := l.commitOffsets(t.Context(), next); !refusedMember(err) {
		t.Errorf("offsets alone: %v", err)
	}
	if n := x.committed(t); n != 0 {
		t.Errorf("%d records are visible", n)
	}
}

func refusedMember(err error) bool {
	for _, refusal := range []error{
		kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.FencedInstanceID,
		kerr.GroupIDNotFound,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// A restarted instance aborts the open transaction of its predecessor, which cannot commit even if it still runs.
func TestRestartFencesItsPredecessor(t *testing.T) {
	x := newLedgerTest(t)
	nobody := &groupMember{generation: -1} // a group without members takes offsets from who claims no membership
	former := x.open(t, nobody)
	x.write(t, former)
	next := x.open(t, nobody)
	if err := former.end(t.Context(), true); !errors.Is(err, kerr.ProducerFenced) &&
		!errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Errorf("the former committed: %v", err)
	}
	x.write(t, next)
	if err := next.end(t.Context(), true); err != nil {
		t.Error(err)
	}
	for range 100 { // markers are written a moment after the end
		if x.committed(t) == 1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d records are visible, want the one of the next", x.committed(t))
}

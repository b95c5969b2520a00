package proxy

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// between returns a proxy before a fake cluster with one topic, a client behind it, and what is in the topic.
func between(t *testing.T) (p *Proxy, client *kgo.Client, end func() int64) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	if p, err = Start(Config{Brokers: cluster.ListenAddrs()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if client, err = kgo.NewClient(kgo.SeedBrokers(p.Addrs()...), kgo.DefaultProduceTopic("t")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	direct, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("warm")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return p, client, func() int64 {
		ends, err := kadm.NewClient(direct).ListEndOffsets(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		o, _ := ends.Lookup("t", 0)
		return o.Offset
	}
}

func write(t *testing.T, client *kgo.Client) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	client.Produce(t.Context(), kgo.StringRecord("x"), func(_ *kgo.Record, err error) { done <- err })
	return done
}

func toT(r Request) bool {
	return r.Key == kmsg.Produce.Int16() && len(r.Topics) == 1 && r.Topics[0] == "t"
}

// while injects a fault for a moment in which one record is written, and says what was in the topic before it was
// lifted.
func while(t *testing.T, f *Fault) (held int64) {
	t.Helper()
	p, client, end := between(t)
	lift := p.Inject(f)
	done := write(t, client)
	time.Sleep(300 * time.Millisecond)
	select {
	case err := <-done:
		t.Fatalf("acknowledged under the fault: %v", err)
	default:
	}
	held = end()
	if f.Hits.Load() == 0 {
		t.Error("the fault met nothing")
	}
	lift()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("not acknowledged after the fault")
	}
	if n := end(); n != 2 {
		t.Errorf("%d records, wanted 2", n)
	}
	return held
}

func TestHeldAnswerIsWritten(t *testing.T) {
	if n := while(t, &Fault{Effect: HoldAnswers, Match: toT}); n != 2 {
		t.Errorf("%d records under the fault, wanted 2: only the answer waits", n)
	}
}

func TestHeldRequestIsNotWritten(t *testing.T) {
	if n := while(t, &Fault{Effect: HoldRequests, Match: toT}); n != 1 {
		t.Errorf("%d records under the fault, wanted 1", n)
	}
}

// TestWhoDiedHadNotSentIt kills a client while its request is held.
func TestWhoDiedHadNotSentIt(t *testing.T) {
	for forget, want := range map[bool]int64{true: 1, false: 2} {
		p, client, end := between(t)
		f := &Fault{Effect: HoldRequests, Match: toT, Forget: forget}
		lift := p.Inject(f)
		write(t, client)
		for begin := time.Now(); !f.Holds(func(int) bool { return true }); {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("nothing is held")
			}
			time.Sleep(5 * time.Millisecond)
		}
		if f.Holds(func(port int) bool { return port == 1 }) {
			t.Error("it holds what nobody sent")
		}
		client.Close()
		for begin := time.Now(); p.Serves(func(int) bool { return true }); {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("its end is not noticed")
			}
			time.Sleep(5 * time.Millisecond)
		}
		lift()
		time.Sleep(300 * time.Millisecond)
		if n := end(); n != want {
			t.Errorf("forget %t: %d records, wanted %d", forget, n, want)
		}
	}
}

func TestSilence(t *testing.T) {
	if n := while(t, &Fault{Effect: Silence}); n != 1 {
		t.Errorf("%d records under the fault, wanted 1", n)
	}
}

func TestCutAnswerIsWritten(t *testing.T) {
	if n := while(t, &Fault{Effect: CutAnswers, Match: toT}); n != 2 {
		t.Errorf("%d records under the fault, wanted 2", n)
	}
}

func TestRefuse(t *testing.T) {
	if n := while(t, &Fault{Effect: Refuse}); n != 1 {
		t.Errorf("%d records under the fault, wanted 1", n)
	}
}

func TestDelay(t *testing.T) {
	p, client, _ := between(t)
	const delay = 200 * time.Millisecond
	defer p.Inject(&Fault{Effect: DelayAnswers, Delay: delay})()
	begin := time.Now()
	if err := <-write(t, client); err != nil || time.Since(begin) < delay {
		t.Errorf("%v after %v, wanted %v at least", err, time.Since(begin), delay)
	}
}

func TestIdleOut(t *testing.T) {
	p, client, _ := between(t)
	f := &Fault{Effect: IdleOut, Delay: 100 * time.Millisecond}
	defer p.Inject(f)()
	time.Sleep(400 * time.Millisecond)
	if f.Hits.Load() == 0 {
		t.Error("no idle connection was closed")
	}
	if err := <-write(t, client); err != nil {
		t.Error(err)
	}
}

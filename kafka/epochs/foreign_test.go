package epochs_test

import (
	"os"
	"testing"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/epochs"
)

// Foreign records in a table or its mirror are repaired: by the running owner, by the next one when none ran, and from
// the log when the local store was lost as well. The counts go on.
func TestForeignNullsAndOlderRowsAreUndone(t *testing.T) { eachGuarantee(t, testForeign) }

func testForeign(t *testing.T, guarantee epochs.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	dir, events, hot := t.TempDir(), 0, 0
	deface := func() {
		t.Helper()
		for _, topic := range []string{c.table, c.counts} {
			for key, value := range map[string][]byte{"hot": nil, "1": []byte("1 0")} {
				r := &kgo.Record{Topic: topic, Partition: partitionOf(key), Key: []byte(key + "/row"), Value: value}
				if err := c.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	fed := func() {
		t.Helper()
		c.produce(t, 100) // 50 of hot, 2 of 1
		events, hot = events+100, hot+50
	}
	right := func() bool {
		for _, topic := range []string{c.table, c.counts} {
			last := map[string]int{}
			for _, r := range c.read(t, topic) {
				last[string(r.Key)] = number(r.Value) // 0 of a null
			}
			if last["hot/row"] != hot || last["1/row"] != events/50 {
				return false
			}
		}
		return true
	}
	group := func() *epochs.Group {
		conf := c.conf("one", dir, c.count)
		conf.Mirror = &epochs.Mirror{
			Topic:  c.counts,
			Older:  func(record, row []byte) bool { return number(record) < number(row) },
			Record: func(row []byte) ([]byte, error) { return row, nil },
		}
		return epochs.NewGroup(conf)
	}

	fed()
	run(t, group(), right)
	defaced := false
	run(t, group(), func() bool {
		switch {
		case !right():
			return false
		case !defaced:
			deface()
			defaced = true
			return false
		}
		return true
	})
	deface()
	run(t, group(), right)
	fed()
	run(t, group(), right)
	for _, wipe := range []func(){func() {}, deface} { // the owner had answered; and it had not
		wipe()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		fed()
		run(t, group(), right)
	}
}

// A processor's own delete is not repaired, in this or a later recovery.
func TestOwnDeletesStay(t *testing.T) {
	c := newCounter(t, epochs.ExactlyOnce)
	deleting := func(ctx goka.Context, message any) {
		if ctx.Key() == "hot/row" {
			ctx.Delete()
			return
		}
		c.count(ctx, message)
	}
	tables := func(n int) func() bool { return func() bool { return len(c.read(t, c.table)) >= n } }
	c.produce(t, 2) // hot, and 1
	run(t, c.one(t.TempDir(), c.count), tables(2))
	c.produce(t, 2)
	run(t, c.one(t.TempDir(), deleting), tables(4))
	c.produce(t, 2)
	run(t, c.one(t.TempDir(), c.count), tables(6))
	last := map[string]int{}
	for _, r := range c.read(t, c.table) {
		last[string(r.Key)] = number(r.Value)
	}
	if last["hot/row"] != 1 || last["1/row"] != 3 {
		t.Errorf("after a delete it counts %d, and of what was not deleted %d", last["hot/row"], last["1/row"])
	}
}

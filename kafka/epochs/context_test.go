package epochs

import (
	"testing"

	"github.com/lovoo/goka"
)

// A lenientContext is goka's while it stops: Fail returns, and a value that cannot be encoded is ignored.
type lenientContext struct {
	gokaContext
	did string
}

func (*lenientContext) Fail(error)                          {}
func (*lenientContext) Key() string                         { return "k" }
func (*lenientContext) SetValue(any, ...goka.ContextOption) {}
func (c *lenientContext) Delete(...goka.ContextOption)      { c.did = "delete" }
func (c *lenientContext) DeferCommit() func(error) {
	c.did = "defer"
	return func(error) {}
}

// Calls that break the guarantee fail the partition, also when goka lets the callback go on.
func TestCallsThatBreakTheGuaranteeFail(t *testing.T) {
	deletes := func(c goka.Context) { c.Delete() }
	defers := func(c goka.Context) { c.DeferCommit() }
	for _, test := range []struct {
		name   string
		shared bool // as with exactly_once
		do     func(goka.Context)
		fails  bool
	}{
		{"a row that cannot be encoded", false, func(c goka.Context) { c.SetValue("v") }, true},
		{"a delete that cannot be ordered", false, deletes, true},
		{"a delete in a transaction", true, deletes, false},
		{"a commit that waits", false, defers, false},
		{"a commit that a transaction would not wait for", true, defers, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p *partitionEpochs
			if test.shared {
				p = newTransactionTest(t, 1).partitions[0]
			} else {
				p = newEpochTest(t).partitionEpochs
			}
			test.do(&gatedContext{gokaContext: &lenientContext{}, epochs: p})
			if failed := p.failure() != nil; failed != test.fails {
				t.Errorf("failed: %v", p.failure())
			}
		})
	}
}

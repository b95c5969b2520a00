package epochs

import (
	"errors"
	"fmt"

	"github.com/lovoo/goka"
)

// A gatedContext poisons the epoch when the callback fails: while goka is stopping, its Fail returns and the callback goes on. What
// would break the promise is refused.
type gatedContext struct {
	gokaContext
	epochs *partitionEpochs
}

// gokaContext is embedded under this name because the interface has a method Context.
type gokaContext = goka.Context

func (c *gatedContext) Fail(err error) {
	c.epochs.fail(err)
	c.gokaContext.Fail(err)
}

// Value fails the epoch when there is a row and goka cannot decode it: while goka is stopping it would be none.
func (c *gatedContext) Value() any {
	c.epochs.rowFound.Store(false)
	value := c.gokaContext.Value()
	if value == nil && c.epochs.rowFound.Load() {
		c.Fail(fmt.Errorf("the row of %q cannot be decoded", c.Key()))
	}
	return value
}

// SetValue fails the epoch when goka cannot encode the row: while goka is stopping it would be the one before.
func (c *gatedContext) SetValue(value any, options ...goka.ContextOption) {
	c.epochs.rowSet = false
	c.gokaContext.SetValue(value, options...)
	if !c.epochs.rowSet {
		c.Fail(fmt.Errorf("the row of %q cannot be encoded", c.Key()))
	}
}

var (
	errDelete = errors.New("with at_least_once a row cannot be deleted: a delete and a row of an owner that was paused cannot be ordered; keep a row that says so, as a stub")
	errDefer  = errors.New("with exactly_once a commit cannot be deferred: the record is committed with the effects of its callback")
)

// Delete is refused where an owner that was paused may write the row again afterwards.
func (c *gatedContext) Delete(options ...goka.ContextOption) {
	if c.epochs.transactions == nil {
		c.Fail(errDelete)
	}
	c.gokaContext.Delete(options...)
}

// DeferCommit is refused where the commit would not wait for it.
func (c *gatedContext) DeferCommit() func(error) {
	if c.epochs.transactions != nil {
		c.Fail(errDefer)
	}
	return c.gokaContext.DeferCommit()
}

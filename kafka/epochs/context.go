package epochs

import (
	"errors"
	"fmt"

	"github.com/lovoo/goka"
)

// A gatedContext fails the partition when the callback fails: while goka stops, its own Fail returns and the callback
// goes on. It refuses calls whose effects would not be exactly once.
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

// Value fails when there is a row that goka cannot decode: while goka stops, it would return nil.
func (c *gatedContext) Value() any {
	c.epochs.rowFound.Store(false)
	value := c.gokaContext.Value()
	if value == nil && c.epochs.rowFound.Load() {
		c.Fail(fmt.Errorf("the row of %q cannot be decoded", c.Key()))
	}
	return value
}

// SetValue fails when goka cannot encode the row: while goka stops, the row before it would stay.
func (c *gatedContext) SetValue(value any, options ...goka.ContextOption) {
	c.epochs.rowSet = false
	c.gokaContext.SetValue(value, options...)
	if !c.epochs.rowSet {
		c.Fail(fmt.Errorf("the row of %q cannot be encoded", c.Key()))
	}
}

var (
	errDelete = errors.New(
		"with at_least_once a row cannot be deleted: a delete and the row of a paused former owner " +
			"cannot be ordered; keep a row that marks the deletion")
	errDefer = errors.New(
		"with exactly_once a commit cannot be deferred: the record is committed with the effects of its callback")
)

// Delete is refused with AtLeastOnce: a zombie may write the row again afterwards.
func (c *gatedContext) Delete(options ...goka.ContextOption) {
	if c.epochs.transactions == nil {
		c.Fail(errDelete)
	}
	c.gokaContext.Delete(options...)
}

// DeferCommit is refused with ExactlyOnce: the transaction would not wait for it.
func (c *gatedContext) DeferCommit() func(error) {
	if c.epochs.transactions != nil {
		c.Fail(errDefer)
	}
	return c.gokaContext.DeferCommit()
}

package epochs_test

import (
	"strings"
	"testing"

	"github.com/lovoo/goka"

	"tidemark/kafka/committed"
	"tidemark/kafka/epochs"
)

// A configuration that cannot work, or would not be exactly once, is refused before anything is read.
func TestGroupRefusesWhatCannotWork(t *testing.T) {
	stream := func(callback goka.ProcessCallback) goka.Edge { return goka.Input("in", raw{}, callback) }
	graph := func(group string, edges ...goka.Edge) func(*epochs.Epochs) *goka.GroupGraph {
		return func(e *epochs.Epochs) *goka.GroupGraph {
			none := e.Callback(func(goka.Context, any) {})
			return goka.DefineGroup(goka.Group(group), append(edges, stream(none))...)
		}
	}
	loop := goka.Loop(raw{}, func(goka.Context, any) {})
	for _, c := range []struct {
		name, want string
		change     func(*epochs.Config)
	}{
		{"no table", "goka.Persist", func(c *epochs.Config) { c.Graph = graph("g") }},
		{"another group's graph", "of group h", func(c *epochs.Config) { c.Graph = graph("h", goka.Persist(raw{})) }},
		{"another table", "g-table", func(c *epochs.Config) { c.Table = "other" }},
		{"a loop", "loop", func(c *epochs.Config) { c.Graph = graph("g", goka.Persist(raw{}), loop) }},
		{"a join", "join", func(c *epochs.Config) { c.Graph = graph("g", goka.Persist(raw{}), goka.Join("t", raw{})) }},
		{"a lookup", "lookup", func(c *epochs.Config) { c.Graph = graph("g", goka.Persist(raw{}), goka.Lookup("t", raw{})) }},
		{"no order of rows", "Older", func(c *epochs.Config) { c.Older = nil }},
		{"a guarantee of no such name", "exactly-once", func(c *epochs.Config) { c.Guarantee = "exactly-once" }},
		{"a callback of its own", "Epochs.Callback", func(c *epochs.Config) {
			c.Graph = func(*epochs.Epochs) *goka.GroupGraph {
				return goka.DefineGroup("g", goka.Persist(raw{}), stream(func(goka.Context, any) {}))
			}
		}},
		{"no name in transactions", "instance id", func(c *epochs.Config) { c.Guarantee = epochs.ExactlyOnce }},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := epochs.Config{
				Cluster: committed.At("127.0.0.1:1"), Name: "g", Table: "g-table", Dir: t.TempDir(),
				Graph: graph("g", goka.Persist(raw{})),
				Older: func([]byte, []byte) bool { return false },
			}
			c.change(&conf)
			group := epochs.NewGroup(conf)
			if err := group.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want something about %q", err, c.want)
			}
			if group.Ready() == nil {
				t.Error("ready")
			}
		})
	}
}

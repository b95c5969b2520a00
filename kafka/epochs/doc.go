// Package epochs gives the effects of a goka processor exactly once: over a crash at any step, a paused owner that wakes, a lost
// disk and a broker that fails. goka is not changed, and nothing here knows what the processor is for: with its neighbours
// committed, localstore and producer the package can be lifted into any program that uses goka.
//
// A Group takes the place of goka.NewProcessor and its Run. What it asks of a processor:
//
//   - Its callback goes through Epochs.Callback, and has a row to show for every input with an effect: the row says which offset
//     made it, so that an input that comes again after a restart is recognised. Only AtLeastOnce needs that.
//   - An output belongs to a partition of the input (PartitionOf), which most do because input, table and outputs are keyed alike.
//   - Rows are ordered: Older tells a row that a paused owner appended late from the newest.
//   - Its topics exist, table and inputs with as many partitions; the table is compacted.
//
// What it then promises is a Guarantee's to say: with AtLeastOnce a state that is as if each input had been processed once, in
// order, and outputs that may be repeated byte for byte; with ExactlyOnce each output once as well, for who reads committed records.
//
// It refuses joins, lookups and loops of goka, iterators over the table, and a second table: they would read what is not published.
// Loss of power on all replicas at once is Kafka's to survive.
package epochs

// Package epochs gives the effects of a goka processor exactly once: over a crash at any step, a paused owner that wakes, a lost
// disk and a broker that fails. goka is not changed, and nothing here knows what the processor is for: with its neighbours
// committed, localstore and producer the package can be lifted into any program that uses goka.
//
// A Group takes the place of goka.NewProcessor and its Run. What it asks of a processor:
//
//   - Its callbacks go through Epochs.Callback, and leave a row for every input with an effect: the row says which offset
//     made it, so that an input that comes again after a restart is recognised. Only AtLeastOnce needs that.
//   - An output goes to the partition of the input that it came from, in its own topic (PartitionOf).
//   - Rows are ordered: Older tells a row that a paused owner appended late from the newest.
//   - Its topics exist: inputs, table and outputs with as many partitions, none that takes less than MaxMessageBytes, the table
//     compacted with a delete.retention.ms of 24 h or more, which is how long a local store may sleep.
//   - It may read and write its table, read its inputs and the mirror, write its outputs, and with ExactlyOnce write under the
//     TransactionalID. Brokers are Kafka 2.8 or newer; what was measured is 4.1.
//
// What it then promises is a Guarantee's to say: with AtLeastOnce a state that is as if each input had been processed once, in
// order, and outputs that may be repeated byte for byte; with ExactlyOnce each output once as well, for who reads committed records.
//
// The group's commits say in their metadata how far the table reached (committed.Standing), and an owner that takes over accepts no
// less. Who commits for the group by other means, as Kafka's own reset does, takes that back.
//
// A callback may look at other rows of its partition, by key or by an index of the local store (Rows), to decide what it emits to
// one of the group's own inputs. Such a record is then processed like any other; see there why what is read may not go into a row.
//
// It refuses goka's joins, lookups and loops, and iterators over the table: they would read, or be read, before things are published.
// A callback is refused a Delete with AtLeastOnce, where nothing would order it with the rows of an owner that was paused, and a
// DeferCommit with ExactlyOnce. Codecs must not fail: goka publishes a null for an output that it cannot encode while it is stopping.
// Loss of power on all replicas at once is Kafka's to survive.
package epochs

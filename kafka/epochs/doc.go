// Package epochs gives the effects of a goka processor exactly once: over a crash at any step, a zombie (a paused
// former owner that resumes), a lost disk and a failed broker. goka is not changed, and the package does not know what
// the processor is for: with its neighbours committed, localstore and producer it can be taken into any program that
// uses goka.
//
// # Use
//
// A Group replaces goka.NewProcessor and Run. What it requires of a processor:
//
//   - Its callbacks go through Epochs.Callback, and set a row for every input with an effect: the row says which offset
//     made it, so that an input which is processed again after a restart is recognised. Only AtLeastOnce needs that.
//   - An output goes to the partition of its input, in its own topic (PartitionOf).
//   - Rows are ordered: Older distinguishes a row that a zombie appended late from the newest one.
//   - Its topics exist. Inputs, table and outputs have the same number of partitions and accept MaxMessageBytes. The
//     table is compacted with a delete.retention.ms of 24 h or more, which is how long a local store may be unused.
//   - It may read and write its table, read its inputs and the mirror, write its outputs, and with ExactlyOnce use the
//     TransactionalID. Brokers are Kafka 2.8 or newer; it was measured with 4.1.
//
// It refuses goka's joins, lookups and loops, and iterators over the table: they would read rows, or be read, before
// these are published. With AtLeastOnce a callback may not call Delete, because a zombie's row could follow the delete.
// With ExactlyOnce it may not call DeferCommit. Codecs must not fail: while goka stops, it publishes a null for an
// output that it cannot encode. A power loss on all replicas at once is outside the promise.
//
// A callback may read other rows of its partition, by key or by an index of the local store (Rows), to decide what it
// emits to one of the group's own inputs. Such a record is then processed like any other; see Rows for why what is read
// may not go into a row.
//
// # The way of a record
//
// Each row of this table is one step of an input record's way, in order. "Epoch" is what one partition publishes
// together.
//
//	step                                          file             type or function
//	1  fetched by sarama, Prepare is called       consumer.go      preparedClaim
//	2  its prepared message waits for goka        prepared.go      preparedQueue
//	3  its callback runs, within an epoch         epochs.go        Epochs.Callback
//	   what goka's context allows                 context.go       gatedContext
//	   reads and sets rows, in memory             storage.go       epochStorage
//	   reads other rows                           rows.go          Rows
//	   emits outputs                              epochs.go        epochProducer
//	4  its effects are buffered in the epoch      partition.go     partitionEpochs, epoch
//	5  the epoch is published
//	   with AtLeastOnce, per partition            publish.go       partitionEpochs.publish
//	   with ExactlyOnce, all partitions at once   transaction.go   transactions
//	   the requests of the transaction            txnproducer.go   kafkaTxnProducer
//	6  its rows are written to the disk           ../localstore    Partition
//	7  its offset is committed
//	   with AtLeastOnce, through sarama           prefix.go        prefix, session (consumer.go)
//	   with ExactlyOnce, in the transaction       txnproducer.go   kafkaTxnProducer.addOffsets
//	   the metadata of the commit                 changelogend.go  committed.ChangelogEnd
//
// Step 5 differs most:
//
//	AtLeastOnce   outputs sent, acknowledged → rows sent, acknowledged → local store → goka's promises → commit
//	ExactlyOnce   outputs and rows sent → offsets added → transaction committed → local store → goka's promises
//
// Besides, while a partition is assigned:
//
//	readback.go   reads the changelog back; rewrites a row when another writer has appended an older one or a null
//	mirror.go     does the same for a compacted output
//	markers.go    commits past transaction markers at the end of an idle input
//	group.go      restarts the processor after a failure
//
// # What is promised
//
// AtLeastOnce: the state is as if each input had been processed once, in order. Outputs may be repeated, byte for byte.
//
// ExactlyOnce: each output is there once as well, for consumers with isolation level read_committed.
//
// The group's commits carry in their metadata the changelog offset that the table had reached (committed.ChangelogEnd).
// A new owner accepts no shorter changelog. A commit by other means, such as a reset with Kafka's tools, has no such
// metadata, and gives this up.
package epochs

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
//   - An output goes to the partition of its input, in its own topic.
//   - Rows are ordered: Older distinguishes a row that a zombie appended late from the newest one.
//   - Its topics exist. Inputs, table and outputs have the same number of partitions and accept MaxMessageBytes. The
//     table is compacted with a delete.retention.ms of 24 h or more, which is how long a local store may be unused.
//   - It may read and write its table, read its inputs and the mirror, write its outputs, and with ExactlyOnce use the
//     TransactionalID. Brokers are Kafka 2.8 or newer; it was measured with 4.1.
//
// It refuses goka's joins, lookups and loops, iterators over the table, and options of goka's context: Emit emits with
// headers. With AtLeastOnce a callback may not call Delete, because a zombie's row could follow the delete. With
// either guarantee it may not call DeferCommit. A power loss on all replicas at once is outside the promise.
//
// A callback may read other rows of its partition, by key or by an index of the local store (Rows), to decide what it
// emits to one of the group's own inputs. Such a record is then processed like any other; see Rows for why what is read
// may not go into a row.
//
// # The way of a record
//
// A record goes through these stages, in order. "Epoch" is what one partition publishes together. The guard alone goes
// back: what it repairs is a row or an output of the open epoch.
//
//	stage       file            what it does                                          type or function
//	intake      consumer.go     fetches with sarama, calls Prepare, keeps goka's      preparedClaim, session
//	                            marks from being committed
//	            input.go        keeps what Prepare returned until goka calls          input
//	gate        epochs.go       runs the callback within an epoch                     Epochs.Callback
//	            context.go      reads and sets its row, emits outputs                 gatedContext, Emit
//	            buffers.go      what outputs are encoded in                           outputBuffers
//	            rows.go         reads other rows of the partition                     Rows
//	            partition.go    buffers the effects in the open epoch; a row is       partitionEpochs, epoch
//	                            looked up there, in the row cache (rowcache.go),
//	                            in the key filter (keyfilter.go), in the store
//	publisher   publish.go      AtLeastOnce, one for each partition                   pipeline
//	            transaction.go  ExactlyOnce, one for all partitions                   transactions
//	            txnproducer.go  the requests of a transaction                         kafkaTxnProducer
//	            pace.go         decides when an epoch is closed                       pace
//	guard       ownlog.go       finds records of other writers, in the table and      ownLog
//	                            its mirror, by the offsets that are not ours
//	            guard.go        reads those, and has our record written again         guard
//	store       ../localstore   has the published rows on the disk                    Partition
//
// The publishers differ most:
//
//	AtLeastOnce   outputs sent, acknowledged → rows sent, acknowledged → local store → commit through sarama
//	ExactlyOnce   outputs and rows sent → offsets added → transaction committed → local store
//
// Besides:
//
//	group.go         runs one attempt after the other
//	recovery.go      fills the store from the changelog before the first record
//	progress.go      says how much of that is done
//	storage.go       goka's storage: the offset at which it recovers, and the end of a partition
//	changelogend.go  the metadata of a commit (committed.ChangelogEnd)
//	markers.go       commits past transaction markers at the end of an idle input
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

// Package kafka connects tidemark to the cluster: client settings, checks of ACLs and topics whose errors name the
// cause, the partition of a key, and bounded reads of a topic.
//
// No client loses or reorders records. A topic is as package topology defines it, or the difference is named. The
// package knows no events and no files. The packages below it, committed, localstore, producer and epochs, give a
// processor its guarantees, and import nothing else of tidemark.
package kafka

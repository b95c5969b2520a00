// Package kafka reaches the cluster for tidemark: client settings, rights and topics checked with the cause named, the partition of
// a key, and what can be read of a log.
//
// It promises that no client loses or reorders what it is given, and that a topic is what package topology says or the difference is
// named. It knows no event and no file. What makes a processor's effects exact stands below it, in packages that know nothing of
// tidemark: committed, localstore, producer and epochs.
package kafka

// Package kafka makes goka, sarama and franz-go safe for tidemark: client settings, topic checks, the partition of a key, and
// groups whose effects happen once.
//
// It promises that an input is committed only when all before it is done, that outputs are in the log before the state that
// proves them, or with it and once where ExactlyOnce is asked for, and that a topic is what package topology says. It knows no event and no file: what a record means is for the
// packages above.
package kafka

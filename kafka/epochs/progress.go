package epochs

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"tidemark/kafka/committed"
)

// A recoveryProgress says how much of a partition's changelog is read.
type recoveryProgress struct {
	began          time.Time // zero: goka has not asked for the end
	first, at, end int64     // offsets: where recovery began, the next one, and the end
	records        int
}

// endObserver notes the end of the changelog that goka asks for when it begins to recover a partition.
type endObserver struct {
	goka.TopicManager
	epochs *Epochs
}

func (e *Epochs) topicManagerBuilder(brokers []string) (goka.TopicManager, error) {
	inner, err := committed.TopicManager(e.conf.Cluster, e.minEnd)(brokers)
	if err != nil {
		return nil, err
	}
	return &endObserver{inner, e}, nil
}

func (o *endObserver) GetOffset(topic string, partition int32, at int64) (int64, error) {
	offset, err := o.TopicManager.GetOffset(topic, partition, at)
	p := o.epochs.partition(partition)
	if p != nil && err == nil && topic == o.epochs.conf.Table && at == sarama.OffsetNewest {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.progress = recoveryProgress{began: time.Now(), first: -1, end: offset}
	}
	return offset, err
}

// note notes that a changelog record was recovered; p.mu is locked.
func (r *recoveryProgress) note(offset int64) {
	if r.first < 0 {
		r.first = offset
	}
	r.at = offset + 1
	r.records++
}

// recoverySoFar describes how much of the changelogs of the partitions that are not recovered is read; empty when there
// are none.
func (e *Epochs) recoverySoFar(now time.Time) string {
	var total recoveryProgress
	partitions := 0
	for _, p := range e.partitions() {
		if p.recovered.Load() {
			continue
		}
		partitions++
		p.mu.Lock()
		r := p.progress
		p.mu.Unlock()
		if r.records == 0 {
			continue
		}
		if total.began.IsZero() || r.began.Before(total.began) {
			total.began = r.began
		}
		total.records += r.records
		total.at += r.at - r.first
		total.end += r.end - r.first
	}
	if total.end == 0 {
		return ""
	}
	share := float64(total.at) / float64(total.end)
	left := time.Duration(float64(now.Sub(total.began)) * (1 - share) / share)
	return fmt.Sprintf("%d records of %d partitions, %.0f %%, about %.0f s left", total.records, partitions, 100*share,
		left.Seconds())
}

const logProgressEvery = 10 * time.Second

// logRecovery logs how much is recovered, until stop is closed.
func (e *Epochs) logRecovery(stop <-chan struct{}) {
	tick := time.NewTicker(logProgressEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if progress := e.recoverySoFar(now); progress != "" {
				e.conf.Log.Info("the table is being recovered", "group", e.conf.Name, "table", e.conf.Table,
					"read", progress)
			}
		case <-stop:
			return
		}
	}
}

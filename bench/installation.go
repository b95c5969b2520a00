package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// An installation has the topics of one measurement.
type installation struct {
	setup
	prefix string
	topics oracle.Topics
	client *kgo.Client
	admin  *kadm.Client
	unique int // events that are no repeats
	files  int
}

// install creates topics with a name of their own and fills the input.
func (s setup) install(ctx context.Context) (_ *installation, err error) {
	i := &installation{setup: s, prefix: fmt.Sprintf("bench%d", time.Now().UnixNano())}
	i.topics = oracle.TopicsOf(i.prefix)
	if err := rig.CreateTopics(ctx, s.binary, i.flags()...); err != nil {
		return nil, err
	}
	if i.client, err = rig.Client(s.brokers); err != nil {
		return nil, err
	}
	i.admin = kadm.NewClient(i.client)
	i.unique, i.files, err = s.fill(ctx, i.topics.Events)
	return i, err
}

// close deletes the topics.
func (i *installation) close(ctx context.Context) error {
	defer i.client.Close()
	return i.deleteTopics(ctx, "")
}

// deleteTopics deletes all topics but one, with those that other programs created for themselves. It returns when the
// broker does not list them any more: `topics apply` would not create what is still there.
func (i *installation) deleteTopics(ctx context.Context, keep string) error {
	deleted := map[string]bool{}
	_, err := rig.Until(ctx, time.Minute, func() (bool, error) {
		all, err := i.admin.ListTopics(ctx)
		if err != nil {
			return false, err
		}
		old := slices.DeleteFunc(all.Names(), func(name string) bool {
			return name == keep || !strings.HasPrefix(name, i.prefix+"-")
		})
		left := len(old)
		old = slices.DeleteFunc(old, func(name string) bool { return deleted[name] })
		if len(old) == 0 {
			return left == 0, nil
		}
		for _, name := range old {
			deleted[name] = true
		}
		answers, err := i.admin.DeleteTopics(ctx, old...)
		return false, errors.Join(err, answers.Error())
	})
	return err
}

// flags are what every command needs.
func (i *installation) flags() []string {
	return []string{
		"--brokers", strings.Join(i.brokers, ","), "--topic-prefix", i.prefix,
		"--partitions", strconv.Itoa(i.partitions), "--replication", "1", "--min-insync", "1",
	}
}

// process starts the files group.
func (i *installation) process() (*rig.Program, error) {
	command := slices.Concat([]string{"process", "--groups", "files", "--instance-id", instance}, i.flags())
	p := rig.New(i.binary, i.dir, "process", command...).Store()
	return p, p.Start()
}

// group is tidemark's consumer group.
func (i *installation) group() string { return i.prefix + "-files" }

// awaitCommit waits until a group has committed all of the input.
func (i *installation) awaitCommit(ctx context.Context, group string, programs ...*rig.Program) error {
	_, err := rig.Until(ctx, patience, func() (bool, error) {
		for _, p := range programs {
			if err := p.Signal(0); err != nil {
				return false, err
			}
		}
		lag, err := rig.Lag(ctx, i.client, group, i.topics.Events)
		return lag == 0 && err == nil, nil // else the group does not exist yet
	})
	if err != nil {
		return fmt.Errorf("the group has not committed its input: %w", err)
	}
	return nil
}

// sizes returns the bytes of each topic.
func (i *installation) sizes(ctx context.Context) (map[string]float64, error) {
	dirs, err := i.admin.DescribeAllLogDirs(ctx, nil)
	sizes := map[string]float64{}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) { sizes[p.Topic] += float64(p.Size) })
	})
	return sizes, err
}

// count returns how many records a topic has, without markers of transactions.
func (i *installation) count(ctx context.Context, topic string) (n int, err error) {
	for partition := range i.partitions {
		err = errors.Join(err, oracle.Each(ctx, i.brokers, topic, partition, func(*kgo.Record) { n++ }))
	}
	return n, err
}

const (
	patience   = 10 * time.Minute
	drainLimit = 90 * time.Second
)

// stop ends a process with SIGTERM; it must drain.
func stop(p *rig.Program) error {
	_, err := p.Term(drainLimit)
	return err
}

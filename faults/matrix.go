package main

import (
	"time"

	"tidemark/kafka"
)

// faults are all kinds, with how often each hits in a long and in a short run. The rows are those of docs/reliability.md.
func faults(guarantee kafka.Guarantee) []*fault {
	all := []*fault{
		{1, "broker kill -9", 20, 1, 20 * time.Second, killBroker(false)},
		{1, "controller kill -9", 8, 1, 25 * time.Second, killBroker(true)},
		{1, "broker SIGSTOP", 5, 0, 20 * time.Second, pauseBroker},
		{1, "lone leader kill -9", 6, 0, 25 * time.Second, loneLeader},
		{2, "two brokers down", 5, 0, 90 * time.Second, killTwo},
		{3, "acks of events cut", 6, 1, 6 * time.Second, cutAcks},
		{4, "ingress kill -9", 24, 2, 2 * time.Second, killIngress},
		{5, "broker 2 s slow", 3, 0, 16 * time.Second, slowBroker},
		{6, "idle connections closed", 2, 0, 20 * time.Second, idle},
		{7, "leaders moved", 3, 0, 16 * time.Second, moveLeaders},
		{8, "processor kill -9", 24, 2, 5 * time.Second, killProcessor},
		{10, "acks held, then kill -9", 5, 1, 8 * time.Second, holdAcks},
		{11, "processor SIGSTOP past session", 10, 1, 20 * time.Second, pauseProcessor(true)},
		{11, "processor SIGSTOP", 6, 0, 6 * time.Second, pauseProcessor(false)},
		{12, "rebalance storm", 2, 0, 60 * time.Second, storm},
		{13, "store wiped", 3, 1, 5 * time.Second, spoil(wipe)},
		{13, "store bit-flipped", 2, 0, 5 * time.Second, spoil(flipBits)},
		{13, "store truncated", 2, 0, 5 * time.Second, spoil(truncate)},
		{14, "disk full", 2, 0, 15 * time.Second, fillDisk},
		{16, "dead letters refused", 2, 0, 20 * time.Second, refuseDLQ},
		{20, "broker cut off", 5, 0, 20 * time.Second, partition},
		{20, "connections reset", 5, 0, 8 * time.Second, reset},
		{21, "wrong settings", 1, 0, 20 * time.Second, wrong},
		{22, "hostile HTTP", 2, 0, 12 * time.Second, hostile},
		{24, "rolling SIGTERM", 2, 1, 15 * time.Second, rolling},
	}
	gaps := epochGaps
	if guarantee == kafka.ExactlyOnce {
		gaps = transactionGaps
		all = append(all, &fault{7, "coordinator moved in a commit", 5, 1, 12 * time.Second, moveCoordinator})
	}
	for _, g := range gaps {
		all = append(all, &fault{9, "kill -9, " + g.name, 20, g.short, 5 * time.Second, killInGap(g)})
	}
	return all
}

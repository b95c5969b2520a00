package main

import (
	"slices"
	"strings"
	"time"

	"tidemark/e2e/rig"
	"tidemark/kafka/epochs"
)

const (
	allReplicas = true
	anyReplicas = false
)

// faults are all kinds, with how often each hits in a long and in a short run, and how long that takes on two cores.
// The rows are those of docs/reliability.md.
func faults(guarantee epochs.Guarantee) []*fault {
	all := []*fault{
		{1, "broker kill -9", 15, 1, 18 * time.Second, killBroker(false), allReplicas},
		{1, "controller kill -9", 6, 0, 19 * time.Second, killBroker(true), allReplicas},
		{1, "broker SIGSTOP", 4, 0, 13 * time.Second, pauseBroker, allReplicas},
		{1, "lone leader kill -9", 4, 0, 17 * time.Second, loneLeader, allReplicas},
		{2, "two brokers down", 6, 0, 78 * time.Second, killTwo, allReplicas},
		{3, "acks of events cut", 6, 1, 5 * time.Second, cutAcks, anyReplicas},
		{4, "ingress kill -9", 24, 2, 2 * time.Second, killIngress, anyReplicas},
		{5, "broker 2 s slow", 3, 0, 13 * time.Second, slowBroker, allReplicas},
		{6, "idle connections closed", 2, 0, 18 * time.Second, idle, allReplicas},
		{7, "leaders moved", 3, 0, 14 * time.Second, moveLeaders, allReplicas},
		{8, "processor kill -9", 16, 2, 5 * time.Second, killProcessor, anyReplicas},
		{8, "view kill -9", 6, 0, 3 * time.Second, killServe, anyReplicas},
		{10, "acks held, then kill -9", 4, 1, 8 * time.Second, holdAcks, anyReplicas},
		{11, "processor SIGSTOP past session", 9, 1, 20 * time.Second, pauseProcessor(true), anyReplicas},
		{11, "processor SIGSTOP", 8, 0, 6 * time.Second, pauseProcessor(false), anyReplicas},
		{12, "rebalance storm", 2, 0, 50 * time.Second, storm, anyReplicas},
		{13, "store wiped", 3, 1, 6 * time.Second, breakStore(rig.Wipe, false), anyReplicas},
		{13, "store bit-flipped", 2, 0, 6 * time.Second, breakStore(flipBits, true), anyReplicas},
		{13, "store truncated", 2, 0, 6 * time.Second, breakStore(truncate, true), anyReplicas},
		{14, "disk full", 2, 0, 15 * time.Second, fillDisk, anyReplicas},
		{16, "dead letters refused", 2, 0, 14 * time.Second, refuseDLQ, anyReplicas},
		{20, "broker cut off", 4, 0, 15 * time.Second, cutOff, allReplicas},
		{20, "broker isolated", 4, 0, 35 * time.Second, isolateBroker, allReplicas},
		{20, "broker isolated, store wiped", 4, 0, 45 * time.Second, wipeBesideIsolated, allReplicas},
		{20, "connections reset", 4, 0, 7 * time.Second, reset, allReplicas},
		{21, "wrong settings", 1, 0, 12 * time.Second, wrong, anyReplicas},
		{22, "hostile HTTP", 2, 0, 12 * time.Second, hostile, anyReplicas},
		{24, "rolling SIGTERM", 2, 1, 16 * time.Second, rolling, allReplicas},
	}
	gaps := epochGaps
	if guarantee == epochs.ExactlyOnce {
		gaps = transactionGaps
		all = append(all, &fault{
			7, "coordinator moved in a commit", 5, 1, 8 * time.Second, moveCoordinator,
			allReplicas,
		})
	}
	for _, g := range gaps {
		all = append(all, &fault{9, g.fault(), 21, g.short, 5 * time.Second, killInGap(g), anyReplicas})
	}
	return all
}

// An aim is how often something must be hit in a long run.
type aim struct {
	what   string
	least  int
	counts func(row int, fault string) bool
}

func inRows(rows ...int) func(int, string) bool {
	return func(row int, _ string) bool { return slices.Contains(rows, row) }
}

func named(name string) func(int, string) bool {
	return func(_ int, fault string) bool { return fault == name }
}

func aims(guarantee epochs.Guarantee) []aim {
	all := []aim{
		{"faults while traffic flows", 120, func(int, string) bool { return true }},
		{
			"processor kill -9: rows 8 and 9", 40,
			func(row int, fault string) bool { return row == 9 || fault == "processor kill -9" },
		},
		{"ingress kill -9: row 4", 20, inRows(4)},
		{
			"broker kill -9: rows 1 and 2", 25,
			func(row int, fault string) bool { return row == 2 || row == 1 && strings.HasSuffix(fault, "kill -9") },
		},
		{"pauses: row 11", 15, inRows(11)},
		{"pauses past the session", 8, named("processor SIGSTOP past session")},
		{"acknowledgements cut, brokers cut off, connections reset: rows 3 and 20", 10, inRows(3, 20)},
		{"stores wiped or corrupted: row 13", 5, inRows(13)},
		{"outages of 60 s: row 2", 5, inRows(2)},
	}
	gaps := epochGaps
	if guarantee == epochs.ExactlyOnce {
		gaps = transactionGaps
	}
	for _, g := range gaps {
		all = append(all, aim{"gap: " + g.name, 20, named(g.fault())})
	}
	return all
}

package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tidemark/kafka/epochs"
)

// TestLongPlanReachesItsAims also bounds how long it takes.
func TestLongPlanReachesItsAims(t *testing.T) {
	for _, guarantee := range []epochs.Guarantee{epochs.AtLeastOnce, epochs.ExactlyOnce} {
		all := plan(rand.New(rand.NewPCG(1, 3)), options{guarantee: guarantee, scale: 1})
		for _, a := range aims(guarantee) {
			n := 0
			for _, f := range all {
				if a.counts(f.row, f.name) {
					n++
				}
			}
			if n < a.least {
				t.Errorf("%s, %s: %d, want %d", guarantee, a.what, n, a.least)
			}
		}
		if d := duration(all, nil); d > 55*time.Minute {
			t.Errorf("%s: %d faults take %v", guarantee, len(all), d)
		}
		for i, f := range all[1:] {
			if f.allReplicas && all[i].allReplicas {
				t.Errorf("%s: %s follows %s at once", guarantee, f.name, all[i].name)
			}
		}
	}
}

func TestShortPlan(t *testing.T) {
	all := plan(rand.New(rand.NewPCG(1, 3)), options{guarantee: epochs.AtLeastOnce, short: true})
	if len(all) < 12 {
		t.Errorf("%d faults, want a dozen", len(all))
	}
	if d := duration(all, nil); d > 150*time.Second {
		t.Errorf("they take %v", d)
	}
}

// TestNarrowPlan selects by row and name together.
func TestNarrowPlan(t *testing.T) {
	all := plan(rand.New(rand.NewPCG(1, 3)),
		options{guarantee: epochs.AtLeastOnce, scale: 1, rows: map[int]bool{20: true}, kinds: "isolated"})
	if len(all) == 0 {
		t.Fatal("no faults")
	}
	for _, f := range all {
		if f.row != 20 || !strings.Contains(f.name, "isolated") {
			t.Errorf("row %d, %s", f.row, f.name)
		}
	}
	if _, err := parse([]string{"-rows", "8", "-faults", "isolated"}); err == nil ||
		!strings.Contains(err.Error(), "no fault is left") {
		t.Errorf("a plan without a fault: %v", err)
	}
}

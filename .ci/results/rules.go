package main

import (
	"regexp"
	"slices"
)

// rules decide what counts as failed.
type rules struct {
	firstCounts *regexp.Regexp // tests whose first attempt counts; nil for none
	skipFails   bool
}

// judge divides tests. Of a test that failed only because of its subtests, only these are returned.
func (r rules) judge(tests []*test) (skipped, flaky, failed []*test) {
	for _, t := range tests {
		switch {
		case t.fails == 0:
			if t.last != "skip" || t.name == "" { // a package without tests is "skipped"
				continue
			}
			if r.skipFails {
				t.failed = []string{"it was skipped, which is a failure here"}
				t.failed = append(t.failed, t.current...)
				failed = append(failed, t)
				continue
			}
			skipped = append(skipped, t)
		// gotestsum is content when a package that failed without a failed test passes without one, and when the second
		// attempt skips.
		case t.name == "" || t.last != "pass" || r.firstCounts != nil && r.firstCounts.MatchString(t.name):
			failed = append(failed, t)
		default:
			flaky = append(flaky, t)
		}
	}
	return skipped, leaves(flaky, slices.Concat(flaky, failed)), leaves(failed, failed)
}

// leaves returns the tests of which none of others is a subtest.
func leaves(tests, others []*test) (all []*test) {
	for _, t := range tests {
		if !slices.ContainsFunc(others, t.holds) {
			all = append(all, t)
		}
	}
	return all
}

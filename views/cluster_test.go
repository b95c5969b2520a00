package views

import (
	"slices"
	"testing"
)

// An end below a committed offset is from a stale leader.
func TestEndsBelowACommitAreUnknown(t *testing.T) {
	got := dropStale([]int64{4, 5, 7, 3}, []int64{5, 5, 0, unknown})
	if want := []int64{unknown, 5, 7, 3}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := dropStale([]int64{1, 2}, nil); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("without commits: %v", got)
	}
}

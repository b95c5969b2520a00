package views

import (
	"slices"
	"testing"
)

// An end below what a commit proves to be there is an old one: nothing is promised by it.
func TestEndsBelowACommitAreUnknown(t *testing.T) {
	got := notBelow([]int64{5, 5, 0, unknown}, []int64{4, 5, 7, 3})
	if want := []int64{unknown, 5, 7, 3}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := notBelow(nil, []int64{1, 2}); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("without commits: %v", got)
	}
}

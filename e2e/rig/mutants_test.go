package rig

import "testing"

// TestMutantsFitTheCode finds in seconds what a negative control would find an hour into a run.
func TestMutantsFitTheCode(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range Mutants {
		for _, e := range m {
			if _, err := e.source(root); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

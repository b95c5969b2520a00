package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// An event is a line of `go test -json`: see `go doc cmd/test2json`.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string // of builds
}

// A test has all its attempts. One without a name is a package, for failures that are of no test: it does not build, or
// its process ended.
type test struct {
	pkg, name string
	last      string // fail, pass or skip
	fails     int
	current   []string // output of this attempt
	failed    []string // output of the last attempt that failed
}

func (t *test) String() string { return strings.TrimSpace(folder(t.pkg) + " " + t.name) }

// holds reports whether other is a subtest of t.
func (t *test) holds(other *test) bool {
	return t.pkg == other.pkg && strings.HasPrefix(other.name, t.name+"/")
}

var progress = regexp.MustCompile(`^\s*(=== |--- (PASS|FAIL|SKIP)|FAIL$|FAIL\t|exit status |\s*$)`)

// tail returns the last lines of the last attempt that failed, without the progress of tests and without repetitions.
func (t *test) tail(most int) (lines []string) {
	for _, line := range slices.Backward(t.failed) {
		line = cut(strings.TrimRight(line, "\n\r\t "))
		if !progress.MatchString(line) && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
		if len(lines) == most {
			break
		}
	}
	slices.Reverse(lines)
	return lines
}

var message = regexp.MustCompile(`\w\.go:\d+:|^panic: `)

// cause returns the last message that has a file and a line, or the last line.
func (t *test) cause() (last string) {
	for _, line := range t.tail(1000) {
		if message.MatchString(line) || last == "" || !message.MatchString(last) {
			last = strings.TrimSpace(line)
		}
	}
	return last
}

// read returns the tests of a log, sorted by package and name.
func read(from io.Reader) ([]*test, error) {
	type key struct{ pkg, name string }
	tests, builds, failing := map[key]*test{}, map[string][]string{}, map[string]bool{}
	running := map[string]map[string]bool{} // names of tests, by package
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%w: %.100s", err, line)
		}
		if e.Action == "build-output" {
			builds[e.ImportPath] = append(builds[e.ImportPath], e.Output)
		}
		if e.Package == "" {
			continue
		}
		t := tests[key{e.Package, e.Test}]
		if t == nil {
			t = &test{pkg: e.Package, name: e.Test}
			tests[key{e.Package, e.Test}] = t
		}
		switch e.Action {
		case "start", "run":
			t.current = nil
			if e.Test == "" {
				failing[e.Package], running[e.Package] = false, map[string]bool{}
			} else {
				running[e.Package][e.Test] = true
			}
		case "output":
			t.current = append(t.current, e.Output)
		case "pass", "skip", "fail":
			t.last = e.Action
			delete(running[e.Package], e.Test)
			if e.Action != "fail" {
				continue
			}
			output := append(builds[e.FailedBuild], t.current...)
			if e.Test != "" {
				failing[e.Package] = true
			} else if cut := slices.Sorted(maps.Keys(running[e.Package])); len(cut) > 0 { // others may never have run
				output = append(output, "the process ended during "+strings.Join(cut, ", "))
			} else if failing[e.Package] {
				continue // it failed because a test of it did
			}
			t.fails++
			t.failed = output
		}
	}
	return slices.SortedFunc(maps.Values(tests), func(a, b *test) int {
		return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name)
	}), nil
}

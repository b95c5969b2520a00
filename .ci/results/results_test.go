package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Lines are "ACTION PACKAGE TEST OUTPUT"; TEST is "-" for a package.
func write(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.json")
	var b strings.Builder
	for _, line := range lines {
		f := append(strings.SplitN(line, " ", 4), "")
		b.WriteString(`{"Action":"` + f[0] + `","Package":"tidemark/` + f[1] + `"`)
		if f[2] != "-" {
			b.WriteString(`,"Test":"` + f[2] + `"`)
		}
		if f[3] != "" {
			b.WriteString(`,"Output":"` + f[3] + `\n"`)
		}
		b.WriteString("}\n")
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	fails  = []string{"start a -", "run a TestX", "output a TestX     x_test.go:1: late", "fail a TestX", "fail a -"}
	passes = []string{"start a -", "run a TestX", "output a TestX --- PASS: TestX", "pass a TestX", "pass a -"}
	skips  = []string{"start a -", "run a TestX", "skip a TestX", "pass a -"}
)

func TestRun(t *testing.T) {
	both := func(first, second []string) []string { return append(append([]string{}, first...), second...) }
	for name, test := range map[string]struct {
		log    []string
		env    map[string]string
		ok     bool
		expect map[string]string // by suffix; empty for all others
	}{
		"passed": {log: passes, ok: true},
		"skipped": {
			log: skips, ok: true, env: map[string]string{"NO_SKIP": "1", "CI": ""},
			expect: map[string]string{"skipped": "unit: a: 1: TestX\n"},
		},
		"skipped where it must not be": {
			log: skips, env: map[string]string{"NO_SKIP": "1", "CI": "true"}, expect: map[string]string{
				"failed": "FAILED unit: a TestX\n    it was skipped, which is a failure here\n",
				"names":  "unit: a TestX it was skipped, which is a failure here\n",
			},
		},
		"failed twice": {log: both(fails, fails), expect: failedX},
		"passed at the second attempt": {
			log: both(fails, passes), ok: true,
			expect: map[string]string{"flaky": "FLAKY unit: a TestX\n        x_test.go:1: late\n"},
		},
		"passed at the second attempt, and the first counts": {
			log: both(fails, passes), env: map[string]string{"NO_RETRY": "^Test(X|Y)$"}, expect: failedX,
		},
		"skipped at the second attempt": {log: both(fails, skips), expect: failedX},
		"only a subtest": {
			log: []string{
				"start a -", "run a TestX", "run a TestX/y", "output a TestX/y     x_test.go:1: late", "fail a TestX/y",
				"fail a TestX", "fail a -",
			},
			expect: map[string]string{
				"failed": "FAILED unit: a TestX/y\n        x_test.go:1: late\n",
				"names":  "unit: a TestX/y x_test.go:1: late\n",
			},
		},
		// gotestsum runs the package again, without a test, and is content.
		"a process that failed without a failed test": {
			log: both(
				[]string{"start a -", "run a TestX", "pass a TestX", "output a - not closed", "fail a -"}, passes),
			expect: map[string]string{
				"failed": "FAILED unit: a\n    not closed\n", "names": "unit: a not closed\n",
			},
		},
		// gotestsum runs X and Y again, each alone, and no test that comes after them.
		"a process that ended during a test after one that failed": {
			log: both([]string{
				"start a -", "run a TestX", "output a TestX     x_test.go:1: late", "fail a TestX", "run a TestY",
				"fail a -",
			}, both(passes, []string{"start a -", "run a TestY", "pass a TestY", "pass a -"})),
			expect: map[string]string{
				"flaky":  "FLAKY unit: a TestX\n        x_test.go:1: late\n",
				"failed": "FAILED unit: a\n    the process ended during TestY\n",
				"names":  "unit: a the process ended during TestY\n",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_SKIP", "")
			t.Setenv("NO_RETRY", "")
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			prefix := filepath.Join(t.TempDir(), "unit")
			if err := run([]string{write(t, test.log...), prefix}); (err == nil) != test.ok {
				t.Errorf("got the error %v", err)
			}
			for _, suffix := range []string{"skipped", "flaky", "failed", "names"} {
				got, err := os.ReadFile(prefix + "." + suffix)
				if diff := cmp.Diff(test.expect[suffix], string(got)); err != nil || diff != "" {
					t.Errorf("%s: %v (-want +got):\n%s", suffix, err, diff)
				}
			}
		})
	}
}

var failedX = map[string]string{
	"failed": "FAILED unit: a TestX\n        x_test.go:1: late\n", "names": "unit: a TestX x_test.go:1: late\n",
}

// TestBuild has the messages of the compiler.
func TestBuild(t *testing.T) {
	tests, err := read(strings.NewReader(`{"ImportPath":"a [a.test]","Action":"build-output","Output":"./x.go:1:1: bad\n"}
{"ImportPath":"a [a.test]","Action":"build-fail"}
{"Action":"start","Package":"a"}
{"Action":"output","Package":"a","Output":"FAIL\ta [build failed]\n"}
{"Action":"fail","Package":"a","FailedBuild":"a [a.test]"}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, _, failed := rules{}.judge(tests)
	if got := excerpts("FAILED", failed, 9); got != "FAILED: a\n    ./x.go:1:1: bad\n" {
		t.Error(got)
	}
}

// TestBounds limits what is printed of many tests with much output.
func TestBounds(t *testing.T) {
	var many []*test
	for range 100 {
		one := &test{pkg: "tidemark/a", name: "TestSomethingWithALongName", last: "fail", fails: 1}
		for i := range 100 {
			line := fmt.Sprint(i, strings.Repeat("x", 1000), "\n")
			one.failed = append(one.failed, line, line, "=== RUN\n", "\n")
		}
		many = append(many, one)
	}
	if got := strings.Split(excerpts("FAILED unit", many, mostLines), "\n"); len(got) != mostTests*(mostLines+1)+2 ||
		len(got[1]) > mostChars+10 {
		t.Errorf("%d lines of %d", len(got), len(got[1]))
	}
	if got := causes("unit", many); strings.Count(got, "\n") != mostTests+1 || !strings.Contains(got, "94 more") {
		t.Error(got)
	}
	if got := names("unit", many); strings.Count(got, "\n") != 1 || len(got) > mostChars+20 {
		t.Error(got)
	}
}

// Command results reads what `go test -json` wrote in a step of `make test`, and writes what its end prints: the tests
// that were skipped, those that passed only at their second attempt, and those that failed.
//
//	go run ./.ci/results LOG PREFIX: writes PREFIX.skipped, PREFIX.flaky, PREFIX.failed and PREFIX.names
//
// It exits with 1 if a test failed, or is counted as failed: gotestsum is content with a second attempt that passes.
//
//	NO_RETRY          regular expression: tests whose first attempt counts
//	NO_SKIP, CI       with 1 and true a skipped test is a failure
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	mostTests = 6   // whose output is printed
	mostLines = 15  // of each of them
	mostChars = 180 // of a line
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "results:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: results LOG PREFIX")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	log, err := read(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	r := rules{skipFails: os.Getenv("NO_SKIP") == "1" && os.Getenv("CI") == "true"}
	if pattern := os.Getenv("NO_RETRY"); pattern != "" {
		if r.firstCounts, err = regexp.Compile(pattern); err != nil {
			return fmt.Errorf("NO_RETRY: %w", err)
		}
	}
	step := filepath.Base(args[1])
	skipped, flaky, failed := r.judge(log)
	for suffix, text := range map[string]string{
		"skipped": names(step, skipped), "flaky": excerpts("FLAKY "+step, flaky, 5),
		"failed": excerpts("FAILED "+step, failed, mostLines), "names": causes(step, failed),
	} {
		err = errors.Join(err, os.WriteFile(args[1]+"."+suffix, []byte(text), 0o644))
	}
	if err == nil && len(failed) > 0 {
		fmt.Print("\n", excerpts("FAILED "+step, failed, mostLines))
		err = fmt.Errorf("%s: %d failed", step, len(failed))
	}
	return err
}

// names writes a line for each package with the number of its tests and their names.
func names(step string, tests []*test) string {
	var b strings.Builder
	for len(tests) > 0 {
		n := 1
		for n < len(tests) && tests[n].pkg == tests[0].pkg {
			n++
		}
		line := fmt.Sprintf("%s: %s: %d:", step, folder(tests[0].pkg), n)
		for i, t := range tests[:n] {
			if len(line)+len(t.name) > mostChars {
				line += fmt.Sprintf(" and %d more", n-i)
				break
			}
			line += " " + t.name
		}
		b.WriteString(line + "\n")
		tests = tests[n:]
	}
	return b.String()
}

// excerpts writes the name of each test and the end of its output.
func excerpts(title string, tests []*test, lines int) string {
	var b strings.Builder
	for i, t := range tests {
		if i == mostTests {
			fmt.Fprintf(&b, "%s: and %d more, see .cache/test\n", title, len(tests)-i)
			break
		}
		fmt.Fprintf(&b, "%s: %s\n", title, t)
		for _, line := range t.tail(lines) {
			b.WriteString("    " + line + "\n")
		}
	}
	return b.String()
}

// causes writes a line for each test with the last message that has a file and a line.
func causes(step string, tests []*test) string {
	var b strings.Builder
	for i, t := range tests {
		if i == mostTests {
			fmt.Fprintf(&b, "%s: and %d more\n", step, len(tests)-i)
			break
		}
		b.WriteString(cut(strings.TrimSpace(fmt.Sprintf("%s: %s %s", step, t, t.cause()))) + "\n")
	}
	return b.String()
}

func folder(pkg string) string { return strings.TrimPrefix(pkg, "tidemark/") }

func cut(line string) string {
	if runes := []rune(line); len(runes) > mostChars {
		return string(runes[:mostChars-1]) + "…"
	}
	return line
}

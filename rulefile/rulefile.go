// Package rulefile reads YAML files of rules strictly: an unknown setting, one that is given twice, a value of another
// type and a secret are errors. It finds all errors of a file, not only the first, and says of each where it is: file,
// line, setting, and what to do.
//
// The schema is a struct with yaml tags. The decoder of package yaml stops at the first error of meaning, has lines
// only, and names Go types.
package rulefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A File collects what is wrong in a file. A setting is named by its path, for example "rules[0].channel".
type File struct {
	name     string
	lines    map[string]int // of the settings
	errs     []finding
	warnings []finding
}

type finding struct {
	line int
	text string
}

// A Checker is a struct that checks what no single setting can. Read calls it for each that it has read.
type Checker interface {
	Check(f *File, at string)
}

// Load reads a file into v. Only its own reading is an error here: see File.Err.
func Load(path string, v any) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	return Read(path, data, v), nil
}

// Read reads the contents of a file into v, a pointer to a struct.
func Read(name string, data []byte, v any) *File {
	f := &File{name: name, lines: map[string]int{}}
	documents := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := documents.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		f.errs = append(f.errs, finding{text: fmt.Sprintf("%s: %v", name, err)})
	} else if len(doc.Content) == 0 || !errors.Is(documents.Decode(new(yaml.Node)), io.EOF) {
		f.errs = append(f.errs, finding{text: name + ": want one YAML document, not empty"})
	} else {
		f.read(doc.Content[0], v)
	}
	return f
}

// Err returns an error with a line for each fault, nil if there is none.
func (f *File) Err() error {
	if len(f.errs) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts(f.errs), "\n"))
}

// Warnings returns what is valid, but probably not meant.
func (f *File) Warnings() []string { return texts(f.warnings) }

// texts returns the texts in the order of the file.
func texts(findings []finding) (all []string) {
	slices.SortStableFunc(findings, func(a, b finding) int { return a.line - b.line })
	for _, found := range findings {
		all = append(all, found.text)
	}
	return all
}

// Failf adds an error.
func (f *File) Failf(at, format string, args ...any) {
	f.errs = append(f.errs, f.finding(at, fmt.Sprintf(format, args...)))
}

// Warnf adds a warning.
func (f *File) Warnf(at, format string, args ...any) {
	f.warnings = append(f.warnings, f.finding(at, fmt.Sprintf(format, args...)))
}

// finding has the line of the setting, or else that of the nearest one around it.
func (f *File) finding(at, text string) finding {
	line, known := f.lines[at]
	for around := at; !known && around != ""; line, known = f.lines[around] {
		around = around[:max(strings.LastIndexAny(around, ".["), 0)]
	}
	if at != "" {
		at += ": "
	}
	return finding{line, fmt.Sprintf("%s:%d: %s%s", f.name, line, at, text)}
}

var validName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// Name checks a name that the file declares, and appends it to those that are taken.
func (f *File) Name(taken []string, at, name string) []string {
	if !validName.MatchString(name) {
		f.Failf(at, "want a name of 1 to 40 of a-z, 0-9 and -, found %q", name)
	} else if slices.Contains(taken, name) {
		f.Failf(at, "the name %s is taken: choose another", name)
	}
	return append(taken, name)
}

// Declared checks a name that the file refers to.
func (f *File) Declared(at, name string, declared []string) bool {
	known := slices.Contains(declared, name)
	if !known {
		f.Failf(at, "%q is not declared in this file%s", name, Nearest(name, declared))
	}
	return known
}

// OneOf checks that one of several settings is given.
func (f *File) OneOf(at, names string, given ...bool) {
	n := 0
	for _, is := range given {
		if is {
			n++
		}
	}
	if n != 1 {
		f.Failf(at, "want exactly one of %s, found %d", names, n)
	}
}

// Nearest returns the most similar of the known names as a question, or else all of them if they are few.
func Nearest(name string, known []string) string {
	best, least := "", len(name)/3+1
	for _, candidate := range known {
		if n := editDistance(name, candidate); n < least {
			best, least = candidate, n
		}
	}
	switch {
	case best != "":
		return ": did you mean " + best + "?"
	case len(known) > 0 && len(known) <= 20:
		return ": want one of " + strings.Join(known, ", ")
	}
	return ""
}

// editDistance is the number of bytes to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

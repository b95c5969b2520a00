package oracle

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Report has the figures of a run and the violations found.
type Report struct {
	Title      string
	Facts      []Fact // in the order they were added
	Violations []Violation
}

// A Fact is one figure.
type Fact struct {
	Name  string
	Value any
}

// A Violation counts one kind of violation. One that was checked and not found counts zero.
type Violation struct {
	Name     string
	Count    int
	Examples []string
}

const (
	examplesKept = 5
	exampleBytes = 700 // of each, printed
)

// Fact adds a figure.
func (r *Report) Fact(name string, value any) { r.Facts = append(r.Facts, Fact{name, value}) }

// count adds to the counts of that name: each partition adds its part.
func (r *Report) count(name string, n ...int) {
	i := slices.IndexFunc(r.Facts, func(f Fact) bool { return f.Name == name })
	if i < 0 {
		r.Fact(name, counts(n))
		return
	}
	sum := slices.Clone(r.Facts[i].Value.(counts))
	for k := range n {
		sum[k] += n[k]
	}
	r.Facts[i].Value = sum
}

// counts are sums that are shown together.
type counts []int

func (c counts) String() string {
	texts := make([]string, len(c))
	for i, n := range c {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, " / ")
}

// MarshalText writes them as String does.
func (c counts) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Check declares a violation that is checked, so that its zero is printed too.
func (r *Report) Check(name string) { r.find(name) }

// check declares violations: see Check.
func (r *Report) check(names ...string) {
	for _, name := range names {
		r.find(name)
	}
}

func (r *Report) find(name string) *Violation {
	i := slices.IndexFunc(r.Violations, func(v Violation) bool { return v.Name == name })
	if i < 0 {
		i = len(r.Violations)
		r.Violations = append(r.Violations, Violation{Name: name})
	}
	return &r.Violations[i]
}

// Violate counts a violation with an example of it.
func (r *Report) Violate(name, format string, args ...any) {
	v := r.find(name)
	v.Count++
	if len(v.Examples) < examplesKept {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

// Merge adds another report.
func (r *Report) Merge(other *Report) {
	for _, f := range other.Facts {
		if n, ok := f.Value.(counts); ok {
			r.count(f.Name, n...)
		} else {
			r.Facts = append(r.Facts, f)
		}
	}
	for _, v := range other.Violations {
		mine := r.find(v.Name)
		mine.Count += v.Count
		mine.Examples = append(mine.Examples, v.Examples[:min(len(v.Examples), examplesKept-len(mine.Examples))]...)
	}
}

// Count returns how often a violation was found.
func (r *Report) Count(name string) int { return r.find(name).Count }

// Broken counts all violations.
func (r *Report) Broken() (n int) {
	for _, v := range r.Violations {
		n += v.Count
	}
	return n
}

// String is the report as one table, with examples below it.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "== %s\n", r.Title)
	for _, f := range r.Facts {
		fmt.Fprintf(&b, "   %-52s %v\n", f.Name, f.Value)
	}
	for _, v := range r.Violations {
		mark := "ok"
		if v.Count > 0 {
			mark = "BROKEN"
		}
		fmt.Fprintf(&b, "   %-52s %-8d %s\n", v.Name, v.Count, mark)
	}
	for _, v := range r.Violations {
		for _, example := range v.Examples {
			fmt.Fprintf(&b, "   %s: %s\n", v.Name, strings.ToValidUTF8(example[:min(len(example), exampleBytes)], "…"))
		}
	}
	return b.String()
}

// JSON is the report as one line.
func (r *Report) JSON() string {
	facts, broken := map[string]any{}, map[string]int{}
	for _, f := range r.Facts {
		facts[f.Name] = fmt.Sprint(f.Value)
	}
	for _, v := range r.Violations {
		broken[v.Name] = v.Count
	}
	raw, err := json.Marshal(map[string]any{"title": r.Title, "facts": facts, "violations": broken})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return string(raw)
}

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/kafka/epochs"
)

// A report has the results of a run, for the product and the negative controls.
type report struct {
	Seed      uint64
	Guarantee epochs.Guarantee
	Short     bool
	Began     time.Time
	Hits      []hit
	Peak      map[string]float64
	Product   *oracle.Report
	Controls  []control
}

// A control is the result of a negative control.
type control struct {
	Name, Fault string
	Hits        int
	Broken      map[string]int
	Missed      []string // violations that should have been found
}

// verdict returns an error when the product is guilty, or a control is not.
func (r *report) verdict() error {
	if r.Product != nil && r.Product.Broken() > 0 {
		return fmt.Errorf("a promise was broken, or the run did not reach its aims:\n%s", r.Product)
	}
	for _, c := range r.Controls {
		if len(c.Missed) > 0 {
			return fmt.Errorf("control %s was not found guilty of %v: the judge may have missed violations of the "+
				"product too", c.Name, c.Missed)
		}
	}
	return nil
}

// missing returns the aims that were not reached.
func (r *report) missing() (texts []string) {
	for _, a := range aims(r.Guarantee) {
		if n := r.count(a); n < a.least {
			texts = append(texts, fmt.Sprintf("%s: %d of %d", a.what, n, a.least))
		}
	}
	return texts
}

func (r *report) count(a aim) (n int) {
	for _, h := range r.Hits {
		if a.counts(h.Row, h.Fault) {
			n++
		}
	}
	return n
}

func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "report.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	text := r.markdown()
	fmt.Print(text)
	return os.WriteFile(filepath.Join(dir, "report.md"), []byte(text), 0o644)
}

// A line has the hits of one kind of fault.
type line struct {
	row    int
	fault  string
	hits   int
	values map[string][]float64
}

func (r *report) lines() []*line {
	byFault := map[string]*line{}
	for _, h := range r.Hits {
		l := byFault[h.Fault]
		if l == nil {
			l = &line{row: h.Row, fault: h.Fault, values: map[string][]float64{}}
			byFault[h.Fault] = l
		}
		l.hits++
		for name, v := range h.Figures {
			l.values[name] = append(l.values[name], v)
		}
	}
	return slices.SortedFunc(maps.Values(byFault), func(a, b *line) int {
		return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.fault, b.fault))
	})
}

// spread writes a figure's median and its largest.
func spread(values []float64) string {
	sorted := slices.Sorted(slices.Values(values))
	most := sorted[len(sorted)-1]
	if len(sorted) == 1 {
		return fmt.Sprintf("%.4g", most)
	}
	return fmt.Sprintf("%.4g, at most %.4g", sorted[(len(sorted)-1)/2], most)
}

// aimed compares the hits with the aims of a long run.
func (r *report) aimed() string {
	var b strings.Builder
	b.WriteString("\n| of these | hits | aimed at |\n|---|---|---|\n")
	for _, a := range aims(r.Guarantee) {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", a.what, r.count(a), a.least)
	}
	return b.String()
}

func (r *report) markdown() string {
	var b strings.Builder
	form := "long"
	if r.Short {
		form = "short"
	}
	fmt.Fprintf(&b, "Seed %d, %s, %s form, %s.\n\n", r.Seed, r.Guarantee, form,
		r.Began.UTC().Format("2006-01-02 15:04 UTC"))
	counted := 0
	b.WriteString("| row | fault | hits | chance of a violation, at most | figures: median, largest " +
		"|\n|---|---|---|---|---|\n")
	for _, l := range r.lines() {
		counted += l.hits
		var figs []string
		for _, name := range slices.Sorted(maps.Keys(l.values)) {
			figs = append(figs, name+" "+spread(l.values[name]))
		}
		bound := "-"
		if l.hits > 0 && r.Product != nil && r.Product.Broken() == 0 {
			bound = fmt.Sprintf("%.3g %%", min(100, 300/float64(l.hits)))
		}
		fmt.Fprintf(&b, "| %d | %s | %d | %s | %s |\n", l.row, l.fault, l.hits, bound, strings.Join(figs, "; "))
	}
	fmt.Fprintf(&b, "\n%d faults met traffic.\n", counted)
	if !r.Short {
		b.WriteString(r.aimed())
	}
	if r.Product != nil {
		b.WriteString("\n| found | count |\n|---|---|\n")
		for _, v := range r.Product.Violations {
			fmt.Fprintf(&b, "| %s | %d |\n", v.Name, v.Count)
		}
		b.WriteString("\n| of the run | |\n|---|---|\n")
		for _, f := range r.Product.Facts {
			fmt.Fprintf(&b, "| %s | %v |\n", f.Name, f.Value)
		}
		for _, name := range slices.Sorted(maps.Keys(r.Peak)) {
			fmt.Fprintf(&b, "| %s: largest RSS, MB | %.0f |\n", name, r.Peak[name])
		}
		for _, v := range r.Product.Violations {
			for _, example := range v.Examples {
				fmt.Fprintf(&b, "\n    %s: %s\n", v.Name, strings.ToValidUTF8(example[:min(len(example), 600)], "…"))
			}
		}
	}
	if len(r.Controls) > 0 {
		b.WriteString("\n| negative control | fault | hits | found guilty of |\n|---|---|---|---|\n")
		for _, c := range r.Controls {
			var guilty []string
			for _, name := range slices.Sorted(maps.Keys(c.Broken)) {
				if c.Broken[name] > 0 {
					guilty = append(guilty, fmt.Sprintf("%s %d", name, c.Broken[name]))
				}
			}
			for _, name := range c.Missed {
				guilty = append(guilty, "NOT FOUND: "+name)
			}
			fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", c.Name, c.Fault, c.Hits, strings.Join(guilty, "; "))
		}
	}
	return b.String()
}

package model

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/rulefile"
)

// Rules are a rules file. testdata/rules.yaml explains the settings.
type Rules struct {
	Rules []Rule `yaml:"rules"`
}

// A Rule selects files, which must meet all conditions, and a model.
type Rule struct {
	Name        string          `yaml:"name"`
	Workspaces  []rulefile.Glob `yaml:"workspaces"`
	Paths       []rulefile.Glob `yaml:"paths"`
	Mimes       []rulefile.Glob `yaml:"mimes"`
	MinSize     *int64          `yaml:"min_size"`
	MaxSize     *int64          `yaml:"max_size"`
	KServe      *Endpoint       `yaml:"kserve"`
	TensorFlow  *Endpoint       `yaml:"tensorflow"`
	Headers     []Header        `yaml:"headers"`
	Inputs      []Input         `yaml:"inputs"`
	Outputs     []string        `yaml:"outputs"`
	Into        string          `yaml:"into"`
	Deadline    time.Duration   `yaml:"deadline"`
	MaxInFlight int             `yaml:"max_in_flight"`
	Batch       int             `yaml:"batch"`
}

// An Endpoint is a model on a server.
type Endpoint struct {
	URL       string `yaml:"url"`
	Model     string `yaml:"model"`
	Version   string `yaml:"version"`
	Signature string `yaml:"signature"` // only of TensorFlow
}

// A Header is sent with every request. Its value is read again for each.
type Header struct {
	Name  string          `yaml:"name"`
	Value rulefile.Secret `yaml:"value"`
}

// An Input is a tensor of the shape [files], a column [files, 1].
type Input struct {
	Name     string `yaml:"name"`
	Field    string `yaml:"field"`
	Datatype string `yaml:"datatype"` // only of KServe
	Column   bool   `yaml:"column"`
}

var fields = map[string]func(f *tidemarkv1.FileState) any{
	"document":     func(f *tidemarkv1.FileState) any { return string(codecs.AppendFile(nil, f)) },
	"file_id":      func(f *tidemarkv1.FileState) any { return f.GetFileId() },
	"hash":         func(f *tidemarkv1.FileState) any { return f.GetHash() },
	"mime":         func(f *tidemarkv1.FileState) any { return f.GetMime() },
	"name":         func(f *tidemarkv1.FileState) any { return f.GetName() },
	"path":         func(f *tidemarkv1.FileState) any { return f.GetPath() },
	"size":         func(f *tidemarkv1.FileState) any { return f.GetSize() },
	"workspace_id": func(f *tidemarkv1.FileState) any { return f.GetWorkspaceId() },
}

// Load reads and checks a rules file. The error has a line for each fault: file, line, setting, and what to do.
func Load(path string) ([]Rule, error) {
	rules := new(Rules)
	f, err := rulefile.Load(path, rules)
	if err != nil {
		return nil, err
	}
	return rules.Rules, f.Err()
}

// Check checks the names of the rules.
func (r *Rules) Check(f *rulefile.File, _ string) {
	var names []string
	for i, rule := range r.Rules {
		names = f.Name(names, fmt.Sprintf("rules[%d].name", i), rule.Name)
	}
	if len(names) == 0 {
		f.Failf("rules", "want at least one rule")
	}
}

// Check sets defaults, and checks what no single setting can.
func (r *Rule) Check(f *rulefile.File, at string) {
	r.Deadline, r.MaxInFlight = cmp.Or(r.Deadline, 5*time.Second), cmp.Or(r.MaxInFlight, 4)
	r.Batch = cmp.Or(r.Batch, 1)
	if r.Deadline < 0 || r.Deadline > 10*time.Minute {
		f.Failf(at+".deadline", "want 10m at most, found %v", r.Deadline)
	}
	if r.MaxInFlight < 1 || r.MaxInFlight > 8 {
		f.Failf(at+".max_in_flight", "want 1 to 8, found %d", r.MaxInFlight)
	}
	if r.Batch < 1 || r.Batch > 256 {
		f.Failf(at+".batch", "want 1 to 256, found %d", r.Batch)
	}
	if r.Into != "" && r.Into != "search" {
		f.Failf(at+".into", "want search, or leave it out, found %q", r.Into)
	}
	f.OneOf(at, "kserve and tensorflow", r.KServe != nil, r.TensorFlow != nil)
	var names []string
	for i, in := range r.Inputs {
		names = f.Name(names, fmt.Sprintf("%s.inputs[%d].name", at, i), in.Name)
	}
	if len(names) == 0 {
		f.Failf(at, "want inputs, a list of what the model gets")
	}
}

// Check checks the URL and the model.
func (e *Endpoint) Check(f *rulefile.File, at string) {
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		f.Failf(at+".url", "want a URL like http://localhost:8080; credentials are headers")
	}
	if e.Model == "" || e.Signature != "" && strings.HasSuffix(at, "kserve") {
		f.Failf(at, "want model, a name; and a signature only with tensorflow")
	}
}

// Check checks that there is a value.
func (h *Header) Check(f *rulefile.File, at string) {
	if _, err := h.Value.Read(); err != nil || h.Name == "" {
		f.Failf(at, "want name, and value_file or value_env: %v", err)
	}
}

// Check checks the field, and sets the default of the datatype.
func (in *Input) Check(f *rulefile.File, at string) {
	if fields[in.Field] == nil {
		f.Failf(at+".field", "want one of %v, found %q", slices.Sorted(maps.Keys(fields)), in.Field)
	}
	in.Datatype = cmp.Or(in.Datatype, map[string]string{"size": "INT64"}[in.Field], "BYTES")
}

// match reports whether the rule selects the file of an index record. Of a deleted one only the workspace is known. A
// file of unknown size is not selected if the rule uses the size.
func (r *Rule) match(op *tidemarkv1.IndexOp) bool {
	f := op.GetFile()
	if !matchAny(r.Workspaces, op.GetWorkspaceId()) {
		return false
	} else if op.GetOp() == tidemarkv1.IndexOp_OP_DELETE {
		return true
	}
	mime, _, _ := strings.Cut(strings.ToLower(f.GetMime()), ";")
	sized := r.MinSize != nil || r.MaxSize != nil ||
		slices.ContainsFunc(r.Inputs, func(in Input) bool { return in.Field == "size" })
	return matchAny(r.Paths, f.GetPath()) && matchAny(r.Mimes, strings.TrimSpace(mime)) && (f.Size != nil || !sized) &&
		(r.MinSize == nil || f.GetSize() >= *r.MinSize) && (r.MaxSize == nil || f.GetSize() <= *r.MaxSize)
}

// matchAny reports whether one of the globs matches, or there are only globs with a !, and none of these matches.
func matchAny(globs []rulefile.Glob, text string) bool {
	matches := !slices.ContainsFunc(globs, func(g rulefile.Glob) bool { return g[0] != '!' })
	for _, g := range globs {
		if g.Match(text) {
			if matches = true; g[0] == '!' {
				return false
			}
		}
	}
	return matches
}

package model_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks/model"
)

func TestLoad(t *testing.T) {
	t.Setenv("MODEL_AUTHORIZATION", "Bearer x")
	rules, err := model.Load("testdata/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	first, second := rules[0], rules[1]
	if len(rules) != 2 || first.KServe.Version != "3" || first.Batch != 16 || first.Inputs[1].Datatype != "FP32" {
		t.Errorf("got %+v", rules)
	}
	if second.Deadline != 5*time.Second || second.MaxInFlight != 4 || second.Batch != 1 {
		t.Errorf("defaults: %+v", second)
	}
}

// All that is wrong, with line and setting.
func TestLoadBadRules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(`rules:
- name: Big
  pths: [/a]
  paths: ["[a"]
  min_size: many
  kserve: {url: "http://u:pw@host", model: m, signature: s}
  tensorflow: {url: "host:80"}
  headers:
  - {name: Authorization, value: hunter2}
  inputs:
  - {name: a, field: siz}
  deadline: 11m
  max_in_flight: 17
  batch: -1
- name: b
  batch: 2
  batch: 3
- name: b
`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := model.Load(path)
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "pw") {
		t.Fatalf("got %v", err)
	}
	got := strings.Split(strings.ReplaceAll(err.Error(), path, "F"), "\n")
	for i, line := range got {
		place, rest, _ := strings.Cut(line, ": ")
		setting, _, _ := strings.Cut(rest, ": ")
		got[i] = place + " " + setting
	}
	want := []string{
		"F:2 rules[0].name",
		"F:3 rules[0].pths",
		"F:4 rules[0].paths[0]",
		"F:5 rules[0].min_size",
		"F:6 rules[0].kserve.url",
		"F:6 rules[0].kserve",
		"F:7 rules[0].tensorflow.url",
		"F:7 rules[0].tensorflow",
		"F:9 rules[0].headers[0].value",
		"F:9 rules[0].headers[0]",
		"F:11 rules[0].inputs[0].field",
		"F:12 rules[0].deadline",
		"F:13 rules[0].max_in_flight",
		"F:14 rules[0].batch",
	}
	for _, line := range want {
		if !strings.Contains("\n"+strings.Join(got, "\n")+"\n", "\n"+line+"\n") {
			t.Errorf("no error at %s", line)
		}
	}
	for _, part := range []string{
		":17: rules[1].batch: ", "kserve and tensorflow", "rules[2].name: the name b is taken",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q", part)
		}
	}
}

func TestLoadNoRules(t *testing.T) {
	if _, err := model.Load("nowhere.yaml"); err == nil {
		t.Error("a missing file is accepted")
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	for _, text := range []string{"", "{}", "rules: []", "rules: [{}]"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := model.Load(path); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestMatch(t *testing.T) {
	for name, test := range map[string]struct {
		conditions string
		change     func(f *tidemarkv1.FileState)
		want       bool
	}{
		"none":               {"", func(*tidemarkv1.FileState) {}, true},
		"path":               {"paths: [/docs/**/*.pdf]", func(f *tidemarkv1.FileState) { f.Path = "/docs/a/b/c.pdf" }, true},
		"path, no slash":     {"paths: [/docs/*.pdf]", func(f *tidemarkv1.FileState) { f.Path = "docs/c.pdf" }, true},
		"other path":         {"paths: [/docs/*.pdf, /x]", func(f *tidemarkv1.FileState) { f.Path = "/docs/a/c.pdf" }, false},
		"excluded path":      {`paths: ["/docs/**", "!/docs/a/**"]`, func(f *tidemarkv1.FileState) { f.Path = "/docs/a/c.pdf" }, false},
		"not excluded":       {`paths: ["/docs/**", "!/docs/a/**"]`, func(f *tidemarkv1.FileState) { f.Path = "/docs/b/c.pdf" }, true},
		"only an exclusion":  {`paths: ["!/docs/a/**"]`, func(f *tidemarkv1.FileState) { f.Path = "/x" }, true},
		"mime":               {"mimes: [text/*]", func(f *tidemarkv1.FileState) { f.Mime = "Text/Plain; charset=x" }, true},
		"mime, exact":        {"mimes: [text/plain]", func(f *tidemarkv1.FileState) { f.Mime = "text/plain ;x" }, true},
		"other mime":         {"mimes: [text/*]", func(f *tidemarkv1.FileState) { f.Mime = "image/png" }, false},
		"workspace":          {"workspaces: [ws]", func(*tidemarkv1.FileState) {}, true},
		"other workspace":    {"workspaces: [ws2]", func(*tidemarkv1.FileState) {}, false},
		"excluded workspace": {`workspaces: ["!ws"]`, func(*tidemarkv1.FileState) {}, false},
		"at the bounds":      {"min_size: 5, max_size: 5", size(5), true},
		"too small":          {"min_size: 6", size(5), false},
		"too large":          {"max_size: 4", size(5), false},
		"unknown size":       {"max_size: 4", func(*tidemarkv1.FileState) {}, false},
		"one of two is met":  {"min_size: 1, paths: [/no]", size(5), false},
	} {
		t.Run(name, func(t *testing.T) {
			sink, published := start(t,
				"{name: r, tensorflow: {url: %q, model: m}, inputs: [{name: n, field: name}], %s}", test.conditions, answer(`{"outputs":[1]}`))
			skipped(t, sink.Deliver(t.Context(), append(files(t), index(t, "a", 1, test.change))))
			if diff := cmp.Diff(test.want, len(published.all(t)) == 1); diff != "" {
				t.Errorf("selected (-want +got):\n%s", diff)
			}
		})
	}
}

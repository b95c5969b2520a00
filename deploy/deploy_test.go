// Package deploy holds no code: its tests keep the files that others run in step with the program.
package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"tidemark/topology"
)

const root = ".."

// loadCompose loads the services of the profiles "search,notify,archive", or of none.
func loadCompose(t *testing.T, profiles string, env ...string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithName("tidemark"), cli.WithEnv(env), cli.WithProfiles(strings.Split(profiles, ",")))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func TestCompose(t *testing.T) {
	const secret = "TIDEMARK_WEBHOOK_SECRETS=a-secret-that-is-long-enough"
	for profile, more := range map[string][]string{
		"": nil, "search": {"opensearch", "sink-search"}, "notify": {"sink-notify"}, "archive": {"s3", "sink-archive"},
	} {
		project, err := loadCompose(t, profile, secret)
		if err != nil {
			t.Fatal(err)
		}
		want := append(more, "grafana", "ingest", "kafka", "process", "prometheus", "serve", "topics")
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(got, want) {
			t.Errorf("profile %q: services %v, want %v", profile, got, want)
		}
	}
	project, err := loadCompose(t, "*", secret)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	for name, service := range project.Services {
		for _, p := range service.Ports {
			if other, taken := ports[p.Published]; taken {
				t.Errorf("%s and %s both want port %s", name, other, p.Published)
			}
			ports[p.Published] = name
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to the network", name, p.Published)
			}
		}
		for _, v := range service.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, role := range []string{"ingest", "process", "serve", "sink-search", "sink-notify", "sink-archive"} {
		on := project.Services[role].DependsOn["topics"]
		if on.Condition != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("%s starts before the topics are there", role)
		}
	}
	for sink, destination := range map[string]string{"sink-search": "opensearch", "sink-archive": "s3"} {
		if on := project.Services[sink].DependsOn[destination]; on.Condition != types.ServiceConditionHealthy {
			t.Errorf("%s starts before %s answers", sink, destination)
		}
	}
	if on := project.Services["topics"].DependsOn["kafka"]; on.Condition != types.ServiceConditionHealthy {
		t.Error("topics are applied before Kafka answers")
	}
}

func TestComposeWantsASecret(t *testing.T) {
	if _, err := loadCompose(t, ""); err == nil || !strings.Contains(err.Error(), "TIDEMARK_WEBHOOK_SECRETS") {
		t.Errorf("without a webhook secret: got %v, want it asked for", err)
	}
}

// A variable that no flag reads would be ignored without a word.
func TestComposeSetsWhatTheProgramReads(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "tidemark")
	if out, err := exec.Command("go", "build", "-o", binary,
		filepath.Join(root, "cmd", "tidemark")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	project, err := loadCompose(t, "*", "TIDEMARK_WEBHOOK_SECRETS=a-secret-that-is-long-enough")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for name, service := range project.Services {
		if service.Build == nil {
			continue
		}
		help, err := exec.Command(binary, append(slices.Clone([]string(service.Command)), "--help")...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: tidemark %v --help: %v\n%s", name, service.Command, err, help)
		}
		for variable := range service.Environment {
			if strings.HasPrefix(variable, "AWS_") { // of the S3 client
				continue
			}
			asked++
			if !strings.Contains(string(help), variable) {
				t.Errorf("%s: tidemark %v does not read %s", name, service.Command, variable)
			}
		}
	}
	if asked == 0 {
		t.Error("compose sets nothing")
	}
}

// Every metric that a rule or a panel asks for is one that the program has.
func TestMetricsExist(t *testing.T) {
	known := metricNames(t)
	for _, file := range []string{
		"prometheus/rules.yml", "prometheus/rules_test.yml",
		"grafana/dashboards/tidemark.json",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used := regexp.MustCompile(`\btidemark_[a-z_]+`).FindAllString(string(text), -1)
		if len(used) == 0 {
			t.Errorf("%s asks for nothing", file)
		}
		for _, name := range used {
			if !known[name] && !known[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s asks for %s, which no package has", file, name)
			}
		}
	}
}

// metricNames reads them off the metrics.go of each package: whole, as a name below a subsystem, or below a namespace
// that is given, which is ours.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "*", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob(filepath.Join(root, "*", "*", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, below...)
	names := map[string]bool{}
	word := regexp.MustCompile(`"([a-z_]+)"`)
	subsystem := regexp.MustCompile(`Subsystem: "([a-z]+)"`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		prefix := ""
		if m := subsystem.FindSubmatch(text); m != nil {
			prefix = "tidemark_" + string(m[1]) + "_"
		} else if bytes.Contains(text, []byte("Namespace: namespace")) {
			prefix = "tidemark_"
		}
		for _, m := range word.FindAllStringSubmatch(string(text), -1) {
			names[prefix+m[1]] = true
		}
	}
	return names
}

// A panel of the dashboard, as far as it matters here.
type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource struct{ UID string }
	Targets    []struct{ Expr string }
}

func panels(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile("grafana/dashboards/tidemark.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	return dashboard.Panels
}

func TestDashboardIsWhole(t *testing.T) {
	sources, err := os.ReadFile("grafana/provisioning/datasources/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range panels(t) {
		if seen[p.ID] {
			t.Errorf("panel %q: number %d is taken", p.Title, p.ID)
		}
		seen[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID == "" || !strings.Contains(string(sources), "uid: "+p.Datasource.UID) {
			t.Errorf("panel %q: data source %q is not provisioned", p.Title, p.Datasource.UID)
		}
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
	}
}

// Where promtool is installed (Debian: apt install prometheus), the rules are run against made-up series, and the
// panels' questions are read as rules.
func TestPrometheus(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not installed")
	}
	var questions strings.Builder
	questions.WriteString("groups: [{name: panels, rules: [\n")
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")
			fmt.Fprintf(&questions, "{record: 'panel:%d:%d', expr: '%s'},\n", p.ID, questions.Len(), expr)
		}
	}
	questions.WriteString("]}]\n")
	file := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(file, []byte(questions.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"test", "rules", "rules_test.yml"},
		{"check", "rules", file},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// A connector reads topics that exist, as all do with the default prefix, and writes dead letters to one of its own.
func TestConnectors(t *testing.T) {
	topics, err := topology.New("fastio", topology.Default)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{topics.Events.Name: true, topics.Index.Name: true, topics.Notify.Name: true}
	files, err := filepath.Glob("connect/*.properties")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		set := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if _, twice := set[name]; twice && value != "" {
				t.Errorf("%s sets %s twice", file, name)
			}
			set[name] = value
		}
		if set["connector.class"] == "" {
			continue // the worker
		}
		names[set["name"]] = true
		for topic := range strings.SplitSeq(set["topics"], ",") {
			if !known[topic] {
				t.Errorf("%s reads %q", file, topic)
			}
		}
		if dlq := set["errors.deadletterqueue.topic.name"]; dlq != "connect-"+set["name"]+"-dlq" {
			t.Errorf("%s writes dead letters to %q", file, dlq)
		}
	}
	if len(names) != 4 { // the two for S3 have one name: they are alternatives
		t.Errorf("connectors %v", names)
	}
}

// The image must build with the Go that go.mod asks for: its own images forbid fetching another one.
func TestDockerfileHasTheGoOfTheModule(t *testing.T) {
	find := func(file, pattern string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s has no %s", file, pattern)
		}
		return string(m[1])
	}
	module, image := find(filepath.Join(root, "go.mod"), `(?m)^go (\S+)$`), find("Dockerfile", `FROM golang:([0-9.]+)`)
	if module != image {
		t.Errorf("go.mod wants Go %s, the Dockerfile has %s", module, image)
	}
}

// A script that lost its executable bit, or that bash cannot read, fails on somebody else's machine only.
func TestScripts(t *testing.T) {
	scripts := 0
	for _, dir := range []string{".", filepath.Join(root, ".ci")} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil || !strings.HasPrefix(string(text), "#!") {
				return err
			}
			scripts++
			info, err := entry.Info()
			if err != nil {
				return err
			}
			if info.Mode()&0o111 == 0 {
				t.Errorf("%s is not executable", path)
			}
			if out, err := exec.Command("bash", "-n", path).CombinedOutput(); err != nil {
				t.Errorf("%s: %s", path, out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if scripts < 5 {
		t.Errorf("only %d scripts found", scripts)
	}
}

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"

	"github.com/parquet-go/parquet-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"
)

// TestSinks sends a history while the sinks are killed and their destinations fail, and compares the destinations with
// the topics, and these with the model. OPENSEARCH_URL names an OpenSearch: `.ci/opensearch` starts one.
func TestSinks(t *testing.T) {
	server := os.Getenv("OPENSEARCH_URL")
	if server == "" {
		t.Skip("OPENSEARCH_URL is not set: .ci/opensearch starts an OpenSearch")
	}
	t.Parallel()
	t.Run("product", func(t *testing.T) {
		t.Parallel()
		conclude(t, runSinks(t, server, build(t)))
	})
	if !*long {
		return
	}
	t.Run("commits early", func(t *testing.T) { // the negative control
		t.Parallel()
		path, err := rig.Mutants["sink-commits-early"].Build(builds.dir)
		if err != nil {
			t.Fatal(err)
		}
		r := runSinks(t, server, path)
		t.Log("\n" + r.String())
		if r.Count("messages lost") == 0 { // a document that was lost is often replaced by its next version
			t.Error("the mutant was not found guilty: the test proves less than it says")
		}
	})
}

// destinations are the sinks of an installation, and what they deliver to.
type destinations struct {
	*fixture
	rnd                     *rand.Rand
	sinks                   []*rig.Program
	index, hook, model      *hostile
	chat, post              *hostile
	hooked, chatted, posted mailbox
	folder                  string
}

// sinks returns the sinks of a binary. In the long form each has a second process.
func (f *fixture) sinks(t *testing.T, server, binary string, seed uint64) *destinations {
	t.Helper()
	d := &destinations{fixture: f, rnd: rand.New(rand.NewPCG(seed, 19)), folder: filepath.Join(f.dir, "archive")}
	var indexURL, hookURL, chatURL, modelURL, postAddr string
	d.index, indexURL = newHostile(t, seed, 0.2, forward(t, server))
	d.hook, hookURL = newHostile(t, seed+1, 0.01, d.hooked.webhook)
	d.chat, chatURL = newHostile(t, seed+2, 0.2, d.chatted.slack)
	d.post, postAddr = newMailServer(t, seed+3, 0.2, &d.posted)
	d.model, modelURL = newHostile(t, seed+4, 0.1, predict)
	settings := map[string][]string{
		"search": {"--search-url", indexURL, "--search-index", f.prefix},
		"notify": {
			"--notify-allow-cidr", "127.0.0.0/8", "--smtp-url", "smtp://" + postAddr + "?tls=off",
			"--notify-rules", f.write("rules.yml", fmt.Sprintf(notifyRules, hookURL)),
		},
		"archive": {"--archive-url", "file://" + d.folder, "--archive-window", "3s"},
		"model":   {"--model-rules", f.write("models.yml", fmt.Sprintf(modelRules, modelURL))},
	}
	for _, instance := range []string{"1", "2"}[:sinkProcesses()] {
		for _, name := range sinkNames {
			p := f.role(name+instance, "sink", append([]string{name, "--instance-id", "e2e" + instance},
				settings[name]...)...)
			if p.Path = binary; name == "archive" {
				p.Store()
			}
			p.Env = append(p.Env, "RECEIVER_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
				"CHAT_URL="+chatURL)
			d.sinks = append(d.sinks, p)
		}
	}
	return d
}

var sinkNames = []string{"search", "notify", "archive", "model"}

func sinkProcesses() int {
	if *long {
		return 2
	}
	return 1
}

const (
	notifyRules = `channels:
  - name: receiver
    webhook: {url: %q, secret_env: RECEIVER_SECRET}
  - name: chat
    slack: {webhook_url_env: CHAT_URL}
  - name: post
    email: {to: [to@example.com], from: from@example.com}
rules:
  - {name: all, channel: receiver, children: true}
  - {name: chat, channel: chat, events: [comment_created], children: true}
  - {name: post, channel: post, events: [comment_created], children: true}
`
	modelRules = `rules:
  - name: bytes
    kserve: {url: %q, model: bytes}
    inputs: [{name: id, field: file_id}]
    batch: 16
`
)

// write writes a file of settings.
func (f *fixture) write(name, text string) (path string) {
	f.t.Helper()
	path = filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// accepted is how much the destination of a sink has accepted.
func (d *destinations) accepted(ctx context.Context, sink string) int {
	switch sink {
	case "search":
		return d.index.count()
	case "notify":
		return d.hook.count()
	case "archive":
		return len(objects(d.t, d.folder))
	}
	return int(rig.End(ctx, d.client, d.prefix+"-predictions"))
}

// chaos kills each sink so many times, once it has delivered something. At half of that all destinations are down for a
// while. In the long form an owner of partitions is also stopped until another one has taken them, and continues.
func (d *destinations) chaos(ctx context.Context, kills int) error {
	var order []*rig.Program
	for len(order) < kills*len(sinkNames) {
		order = append(order, d.sinks...)
	}
	d.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for i, p := range order {
		name := strings.TrimRight(p.Name, "12") // of its instance
		before := d.accepted(ctx, name)
		flows := func() (bool, error) { return d.accepted(ctx, name) > before, nil }
		if _, err := rig.Until(ctx, time.Minute, flows); err != nil {
			return fmt.Errorf("%s delivers nothing: %w\n%s", name, err, p.Tail())
		}
		sleep(ctx, time.Duration(d.rnd.IntN(700))*time.Millisecond)
		if err := errors.Join(p.Kill(), p.Start()); err != nil {
			return err
		}
		if i == len(order)/2 {
			d.outage(ctx)
		}
		if !*long || i%10 != 0 {
			continue
		}
		owner := d.sinks[d.rnd.IntN(len(d.sinks))]
		if err := owner.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		sleep(ctx, 13*time.Second) // its session takes 10 s
		if err := owner.Signal(syscall.SIGCONT); err != nil {
			return err
		}
	}
	return nil
}

func (d *destinations) hostiles() []*hostile {
	return []*hostile{d.index, d.hook, d.chat, d.post, d.model}
}

func (d *destinations) outage(ctx context.Context) {
	for _, h := range d.hostiles() {
		h.setDown(true)
	}
	sleep(ctx, 10*time.Second)
	for _, h := range d.hostiles() {
		h.setDown(false)
	}
}

// drained waits until the groups of the sinks have committed all records, and returns how long that took.
func (d *destinations) drained() time.Duration {
	d.t.Helper()
	topics := map[string]string{
		"search": d.topics.Index, "archive": d.topics.Events, "model-bytes": d.topics.Index,
		"notify-all": d.topics.Notify, "notify-chat": d.topics.Notify, "notify-post": d.topics.Notify,
	}
	lags := map[string]int64{}
	took, err := rig.Until(d.t.Context(), 30*time.Minute, func() (bool, error) {
		total := int64(0)
		for group, topic := range topics {
			lag, err := rig.Lag(d.t.Context(), d.client, d.prefix+"-sink-"+group, topic)
			if err != nil {
				return false, err
			}
			lags[group], total = lag, total+lag
		}
		return total == 0, nil
	})
	if err != nil {
		for _, p := range d.sinks {
			d.t.Log(p.Name + ":\n" + p.Tail())
		}
		d.t.Fatalf("the sinks do not drain: %v: %v", err, lags)
	}
	return took
}

// runSinks runs the sinks of a binary.
func runSinks(t *testing.T, server, binary string) *oracle.Report {
	t.Helper()
	events, kills := 4000, 3
	if *long {
		events, kills = 100_000, 20
	}
	if *size > 0 {
		events = *size
	}
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	f := newFixture(t, 0)
	d := f.sinks(t, server, binary, s)
	programs := append(slices.Clone(d.sinks), f.ingest, f.process)
	f.start(programs...)
	f.awaitReady(programs...)

	r := &oracle.Report{Title: "sinks"}
	sent := f.traffic(events, plan{during: func(ctx context.Context, pace *rate.Limiter) error {
		pace.SetLimit(rate.Limit(max(100, events/(16*kills)))) // the history outlasts the kills
		return d.chaos(ctx, kills)
	}}, r)
	r.Fact("kills of each sink", kills)
	f.drain(5*time.Minute, true)
	for i, h := range d.hostiles() {
		r.Fact("faults of "+[]string{"search", "the webhook", "Slack", "mail", "the model"}[i], fmt.Sprint(h.calm()))
	}
	r.Fact("sinks drained after the processors, s", seconds(d.drained()))
	for _, p := range d.sinks {
		r.Fact("memory of "+p.Name+" at most, MB", fmt.Sprintf("%.0f", p.Usage().PeakMB))
	}
	f.term(programs...)
	f.judge(oracle.Judge{Workspaces: true, Sent: sent}, r)
	outputs, err := oracle.ReadOutputs(t.Context(), f.brokers, f.topics, partitions)
	if err != nil {
		t.Fatal(err)
	}
	outputs.JudgeSearch(documents(t, server, f.prefix), r)
	outputs.JudgeWebhooks(d.hooked.got, r)
	outputs.JudgeMail(d.posted.got, "post", "example.com", r)
	outputs.JudgeChat(d.chatted.got, r)
	outputs.JudgeArchive(archived(t, d.folder), r)
	if err := outputs.JudgePredictions(t.Context(), f.brokers, f.prefix+"-predictions", partitions, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// objects returns the Parquet files below a folder.
func objects(t *testing.T, folder string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".parquet" {
			found = append(found, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// archived returns the records in all objects.
func archived(t *testing.T, folder string) (records []*kgo.Record) {
	t.Helper()
	type row struct {
		Partition int32   `parquet:"partition"`
		Offset    int64   `parquet:"offset"`
		Value     *string `parquet:"value,optional"`
		Bytes     *[]byte `parquet:"value_bytes,optional"`
	}
	for _, path := range objects(t, folder) {
		rows, err := parquet.ReadFile[row](path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, row := range rows {
			r := &kgo.Record{Partition: row.Partition, Offset: row.Offset}
			if row.Value != nil {
				r.Value = []byte(*row.Value)
			} else if row.Bytes != nil {
				r.Value = *row.Bytes
			}
			records = append(records, r)
		}
	}
	return records
}

// documents returns all documents behind an alias by workspace/file.
func documents(t *testing.T, server, alias string) map[string]oracle.Document {
	t.Helper()
	ask := func(method, path, body string, into any) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, server+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(into); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s, %v", method, path, response.Status, err)
		}
	}
	alias = url.PathEscape(alias)
	ask(http.MethodPost, "/"+alias+"/_refresh", "", new(any))
	found, after := map[string]oracle.Document{}, ""
	for {
		var page struct {
			Hits struct {
				Hits []struct {
					Version int64           `json:"_version"`
					Source  json.RawMessage `json:"_source"`
					Sort    json.RawMessage
				}
			}
		}
		ask(http.MethodPost, "/"+alias+"/_search",
			`{"size":5000,"version":true,"sort":["workspace_id","file_id"]`+after+`}`, &page)
		if len(page.Hits.Hits) == 0 {
			return found
		}
		for _, hit := range page.Hits.Hits {
			var ids struct {
				Workspace string `json:"workspace_id"`
				File      string `json:"file_id"`
			}
			if err := json.Unmarshal(hit.Source, &ids); err != nil {
				t.Fatal(err)
			}
			found[oracle.Key(ids.Workspace, ids.File)] = oracle.Document{Version: hit.Version, Source: hit.Source}
			after = `,"search_after":` + string(hit.Sort)
		}
	}
}

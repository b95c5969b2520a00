package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidemark/devbroker"
	"tidemark/e2e/oracle"
	"tidemark/e2e/proxy"
	"tidemark/kafka/committed"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions = 8
	secret     = "e2e-secret-of-thirty-two-bytes-or-more"
)

// A rig is a cluster behind a proxy, and the programs of one installation on it.
type rig struct {
	t      *testing.T
	dir    string // logs and local stores
	prefix string
	topics oracle.Topics
	once   bool // the processors promise exactly_once

	brokers []string // direct, for the oracle
	proxy   *proxy.Proxy
	client  *kgo.Client
	admin   *kadm.Client

	ingest, process, serve             *program
	ingestURL, apiURL                  string
	ingestAdmin, procAdmin, serveAdmin string
}

// newRig has a cluster and topics ready, and starts no role. Writes to every topic but the events are acknowledged late: in
// that window a crash tells who commits or keeps what is not yet in the log.
func newRig(t *testing.T, latency time.Duration) *rig {
	t.Helper()
	name := fmt.Sprintf("e2e-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9)
	g := &rig{t: t, dir: artifacts(t), prefix: name, brokers: devbroker.ForTest(t)}
	g.topics = oracle.Topics{
		Events: name + "-events", Files: name + "-files-table", Index: name + "-index", Notify: name + "-notify",
		DLQ: name + "-dlq", Workspaces: name + "-workspaces-table",
	}
	late := map[string]bool{g.topics.Files: true, g.topics.Index: true, g.topics.Notify: true, g.topics.DLQ: true, g.topics.Workspaces: true}
	var err error
	if g.proxy, err = proxy.Start(proxy.Config{Brokers: g.brokers, Late: func(topic string) bool { return late[topic] }, Latency: latency}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.proxy.Close)
	if g.client, err = kgo.NewClient(kgo.SeedBrokers(g.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.client.Close)
	g.admin = kadm.NewClient(g.client)

	apply := exec.Command(build(t, "tidemark/cmd/tidemark"), g.flags("topics", "apply")...)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("topics apply: %v\n%s", err, out)
	}
	t.Cleanup(func() { // a shared cluster outlives the test
		if _, err := g.admin.DeleteTopics(context.Background(), g.topics.Events, g.topics.Files, g.topics.Index, g.topics.Notify, g.topics.DLQ, g.topics.Workspaces); err != nil {
			t.Logf("delete topics: %v", err)
		}
	})
	g.wire()
	return g
}

// artifacts is where logs stay when the test fails, and are removed when it passes.
func artifacts(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tidemark-"+strings.ReplaceAll(t.Name(), "/", "-")+"-") //nolint:usetesting // what failed must stay to be looked at
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs and stores are in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// flags are a command with what every one of them needs.
func (g *rig) flags(command ...string) []string {
	return append(command, "--brokers", strings.Join(g.proxy.Addrs(), ","), "--topic-prefix", g.prefix,
		"--partitions", strconv.Itoa(partitions), "--replication", "1", "--min-insync", "1")
}

// wire says how the roles are started; none is.
func (g *rig) wire() {
	ingress, api := freeAddr(g.t), freeAddr(g.t)
	g.ingestAdmin, g.procAdmin, g.serveAdmin = freeAddr(g.t), freeAddr(g.t), freeAddr(g.t)
	g.ingestURL, g.apiURL = "http://"+ingress, "http://"+api
	role := func(name string, args ...string) *program {
		p := &program{
			name: name, path: build(g.t, "tidemark/cmd/tidemark"), args: append(g.flags(name), args...),
			env: []string{"TIDEMARK_WEBHOOK_SECRETS=" + secret}, log: filepath.Join(g.dir, name+".log"),
		}
		g.t.Cleanup(func() {
			if p.alive() {
				_ = p.kill() // it was alive: nothing to learn from the kill
			}
		})
		return p
	}
	g.ingest = role("ingest", "--ingress-addr", ingress, "--admin-addr", g.ingestAdmin)
	g.process = role("process", "--data", g.data("process"), "--admin-addr", g.procAdmin)
	g.serve = role("serve", "--data", g.data("serve"), "--api-addr", api, "--admin-addr", g.serveAdmin)
}

func (g *rig) data(role string) string { return filepath.Join(g.dir, "data-"+role) }

// awaitReady waits until a role's admin address says that it is ready.
func (g *rig) awaitReady(p *program, admin string, limit time.Duration) {
	g.t.Helper()
	last := "no answer yet"
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !p.alive() {
			g.t.Fatalf("%s ended: %v\n%s", p.name, p.exit(), p.tail())
		}
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			continue
		}
		last = resp.Status
		_ = resp.Body.Close() // only the status is asked for
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	g.t.Fatalf("%s is not ready after %v (%s)\n%s", p.name, limit, last, p.tail())
}

// ends returns a topic's end offsets, summed over its partitions.
func (g *rig) end(topic string) int64 {
	ends, err := g.admin.ListEndOffsets(context.Background(), topic)
	if err != nil {
		return 0 // asked again in a moment by those who wait for it to grow
	}
	var sum int64
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum
}

// lag is how many records of a topic a group has not committed.
func (g *rig) lag(ctx context.Context, group, topic string) (lag int64, err error) {
	ends, err := g.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	commits, err := g.admin.FetchOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	read := map[int32]int64{} // a group does not commit past the marker of a transaction
	ends.Each(func(o kadm.ListedOffset) { read[o.Partition] = o.Offset })
	if read, err = committed.Ends(ctx, g.client, topic, read); err != nil {
		return 0, err
	}
	ends.Each(func(o kadm.ListedOffset) {
		at, _ := commits.Lookup(topic, o.Partition)
		end, decided := read[o.Partition]
		if !decided {
			end = o.Offset
		}
		lag += max(0, end-max(0, at.At))
	})
	return lag, nil
}

// drain waits until the groups have committed all there is to read, and returns how long that took.
func (g *rig) drain(limit time.Duration, workspaces bool) time.Duration {
	g.t.Helper()
	begin := time.Now()
	var files, spaces int64
	for time.Since(begin) < limit {
		var err1, err2 error
		files, err1 = g.lag(context.Background(), g.prefix+"-files", g.topics.Events)
		if workspaces {
			spaces, err2 = g.lag(context.Background(), g.prefix+"-workspaces", g.topics.Notify)
		}
		if err1 == nil && err2 == nil && files == 0 && spaces == 0 {
			return time.Since(begin)
		}
		time.Sleep(100 * time.Millisecond)
	}
	g.t.Fatalf("not drained after %v: %d events and %d notices are not committed\n%s", limit, files, spaces, g.process.tail())
	return 0
}

// awaitView waits until the API says that it holds all there is.
func (g *rig) awaitView(limit time.Duration) time.Duration {
	g.t.Helper()
	begin := time.Now()
	last := ""
	for time.Since(begin) < limit {
		resp, err := http.Get(g.apiURL + "/v1/status")
		if err == nil {
			var status struct {
				Ready      bool
				Partitions []struct {
					LagRecords int64 `json:"lag_records"`
				}
			}
			err = json.NewDecoder(resp.Body).Decode(&status)
			_ = resp.Body.Close() // read to its end
			lag := int64(0)
			for _, p := range status.Partitions {
				lag += p.LagRecords
			}
			if last = fmt.Sprintf("%s ready %t lag %d %v", resp.Status, status.Ready, lag, err); err == nil && status.Ready && lag == 0 {
				return time.Since(begin)
			}
		} else {
			last = err.Error()
		}
		time.Sleep(50 * time.Millisecond)
	}
	g.t.Fatalf("the view does not catch up within %v: %s\n%s", limit, last, g.serve.tail())
	return 0
}

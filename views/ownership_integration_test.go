package views_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/devbroker"
	"tidemark/views"
)

// A member is an instance that holds a share.
type member struct {
	url   string
	stop  context.CancelFunc
	ended chan error
}

func (r *rig) member(name string, edit ...func(*views.Config)) *member {
	r.t.Helper()
	server := httptest.NewServer(nil)
	r.t.Cleanup(server.Close)
	conf := views.Config{
		Kafka: r.conf, Streams: r.streams, Dir: filepath.Join(r.dir, name), Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(), Share: &views.Share{URL: server.URL},
	}
	for _, e := range edit {
		e(&conf)
	}
	s, err := views.New(conf)
	if err != nil {
		r.t.Fatal(err)
	}
	server.Config.Handler = s.Handler()
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{url: server.URL, stop: cancel, ended: make(chan error, 1)}
	go func() { m.ended <- s.Run(ctx) }()
	r.t.Cleanup(func() { // a test that has waited has closed it
		cancel()
		<-m.ended
	})
	r.until(name+" is ready", func() bool { return s.Ready() == nil || len(m.ended) > 0 })
	return m
}

// end stops the member, or waits for its own end, and returns why it ended.
func (m *member) end() error {
	defer close(m.ended)
	return <-m.ended
}

func (m *member) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	response, err := http.Get(m.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func (m *member) complete(t *testing.T) bool {
	t.Helper()
	_, body := m.get(t, "/v1/status")
	var status struct{ Ready bool }
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(body)
	}
	return status.Ready
}

// Two instances divide the partitions. A feed goes on, at any of them, when one joins and when one leaves.
func TestInstancesDivideThePartitions(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	first := r.member("first")
	r.until("the first holds all", func() bool { return first.complete(t) })
	var workspaces []string
	for i := range 12 {
		workspaces = append(workspaces, fmt.Sprint("ws", i))
	}
	version := int64(0)
	write := func() {
		version++
		for _, ws := range workspaces {
			r.row(ws, "f", "/a", version, r.event(ws))
		}
	}
	cursors := map[string]string{}
	follow := func(instances ...*member) {
		t.Helper()
		write()
		for i, ws := range workspaces {
			in := instances[i%len(instances)]
			r.until(fmt.Sprintf("%s reads version %d", ws, version), func() bool {
				path := "/v1/workspaces/" + ws + "/changes?wait=1"
				if cursors[ws] != "" {
					path += "&cursor=" + cursors[ws]
				}
				status, body := in.get(t, path)
				if status == http.StatusServiceUnavailable || status == http.StatusNotFound {
					return false
				}
				var page struct {
					Changes []struct{ Version int64 }
					Cursor  string
				}
				if err := json.Unmarshal([]byte(body), &page); err != nil || status != http.StatusOK {
					t.Fatal(status, body)
				}
				cursors[ws] = page.Cursor
				if len(page.Changes) > 0 && (len(page.Changes) > 1 || page.Changes[0].Version != version) {
					t.Fatalf("%s: %s, want version %d once", ws, body, version)
				}
				return len(page.Changes) == 1
			})
		}
	}
	follow(first)
	second := r.member("second")
	follow(first, second)
	r.until("both hold all", func() bool { return first.complete(t) && second.complete(t) })
	begin := time.Now()
	first.stop()
	if err := first.end(); err != nil {
		t.Error(err)
	}
	follow(second)
	if took := time.Since(begin); took > 8*time.Second { // its session has 10 s
		t.Errorf("after an instance left, its share was not answered for %v", took)
	}
}

func TestTwoInstancesWithOneAddress(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	first := r.member("first")
	r.member("second", func(c *views.Config) { c.Share.URL = first.url })
	select {
	case err := <-first.ended:
		close(first.ended)
		if err == nil || !strings.Contains(err.Error(), "--advertise-url") {
			t.Errorf("the first ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the first has not noticed that another instance has its address")
	}
}

// Without a broker the instances lose their places in the group, and answer on from what they have. With a broker they
// divide the partitions again.
func TestInstancesOutliveTheBroker(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the sessions to expire")
	}
	dir := t.TempDir()
	broker, err := devbroker.Start(context.Background(), devbroker.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() }) // after the members have left
	r := newRig(t, []string{broker.Addr()})
	both := []*member{r.member("first"), r.member("second")}
	var workspaces []string
	for i := range 12 {
		workspaces = append(workspaces, fmt.Sprint("ws", i))
	}
	write := func(version int64) {
		for _, ws := range workspaces {
			r.row(ws, "f", "/a", version, r.event(ws))
		}
		for _, in := range both {
			for _, ws := range workspaces {
				r.until(fmt.Sprintf("%s has version %d", ws, version), func() bool {
					_, body := in.get(t, "/v1/workspaces/"+ws+"/files/f")
					return strings.Contains(body, fmt.Sprintf(`"version":%d`, version))
				})
			}
		}
	}
	write(1)
	if err := broker.Close(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 14*time.Second; time.Sleep(200 * time.Millisecond) {
		for _, in := range both {
			for _, ws := range workspaces {
				if status, body := in.get(t, "/v1/workspaces/"+ws+"/files/f"); status != http.StatusOK {
					t.Fatalf("after %v without a broker: %d %s", time.Since(begin), status, body)
				}
			}
		}
	}
	again := devbroker.Config{Dir: dir, Addr: broker.Addr()}
	if broker, err = devbroker.Start(context.Background(), again); err != nil {
		t.Fatal(err)
	}
	write(2)
}

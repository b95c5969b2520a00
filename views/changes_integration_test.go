package views_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"tidemark/devbroker"
)

// changes reads a page of changes; list has the ids, with "-" before those of deletes.
func (u *running) changes(query string) (list, cursor string, status int) {
	u.r.t.Helper()
	response, err := http.Get(u.url + "/v1/workspaces/ws/changes" + query)
	if err != nil {
		u.r.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		u.r.t.Fatal(err)
	}
	var page struct {
		Changes []struct {
			FileID string `json:"file_id"`
			File   struct {
				FileID string `json:"file_id"`
			}
		}
		Cursor string
	}
	if err := json.Unmarshal(body, &page); err != nil {
		u.r.t.Fatalf("%d %s", response.StatusCode, body)
	}
	var all []string
	for _, c := range page.Changes {
		if c.FileID != "" {
			all = append(all, "-"+c.FileID)
		} else {
			all = append(all, c.File.FileID)
		}
	}
	return strings.Join(all, " "), page.Cursor, response.StatusCode
}

// Two instances with copies of their own continue each other's cursors and streams: one after a restart, one that is
// rebuilt from the changelog.
func TestChangesOverInstances(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	for i := range 5 {
		r.row("ws", fmt.Sprint("f", i), fmt.Sprint("/f", i), 1, r.event("ws"))
	}
	one := r.serve()
	first := r.dir
	r.dir = t.TempDir()
	two := r.serve()
	list, cursor, _ := one.changes("?limit=2")
	if list != "f0 f1" {
		t.Fatalf("the first page: %q", list)
	}
	if list, cursor, _ = two.changes("?cursor=" + cursor); list != "f2 f3 f4" {
		t.Fatalf("the second page, of the other instance: %q", list)
	}
	woke := make(chan string, 1)
	go func() {
		list, _, _ := one.changes("?wait=30s&cursor=" + cursor)
		woke <- list
	}()
	time.Sleep(200 * time.Millisecond)
	p := r.event("ws")
	r.row("ws", "f1", "/moved", 2, p)
	if list := <-woke; list != "f1" {
		t.Errorf("the long poll has %q", list)
	}
	one.stop()
	r.row("ws", "f0", "/f0", 1, nil) // written again, as the owner does
	r.row("ws", "f2", "/f2", 2, r.event("ws"))
	if list, cursor, _ = two.changes("?wait=30s&cursor=" + cursor); list == "" {
		t.Error("nothing after the row was written")
	}
	r.until("the last row", func() bool { return two.version("ws", "f2", nil) == 2 })
	_, cursor, _ = two.changes("?cursor=" + cursor)
	for _, dir := range []string{first, t.TempDir()} {
		r.dir = dir
		one = r.serve()
		if list, _, status := one.changes("?cursor=" + cursor); list != "" || status != 200 {
			t.Errorf("after a restart: %q, %d", list, status)
		}
		if list, _, _ := one.changes(""); list != "f3 f4 f1 f0 f2" {
			t.Errorf("from the beginning: %q", list)
		}
		one.stop()
	}
	two.streamFrom(cursor)
}

// streamFrom reads a change from a stream that begins at a cursor, with a real connection.
func (u *running) streamFrom(cursor string) {
	t := u.r.t
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.url+"/v1/workspaces/ws/changes", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Last-Event-ID", cursor)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "event: heartbeat") {
		if strings.HasPrefix(lines.Text(), "event: ") {
			t.Errorf("before the first heartbeat: %s", lines.Text())
		}
	}
	begin := time.Now()
	u.r.row("ws", "live", "/live", 1, u.r.event("ws"))
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"file_id":"live"`) {
			t.Logf("a row was in the stream %s after it was written", time.Since(begin))
			return
		}
	}
	t.Errorf("the stream ends: %v", lines.Err())
}

// A table that was recreated has other records at the same offsets.
func TestCursorsOfARecreatedTable(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	r.row("ws", "a", "/a", 1, r.event("ws"))
	up := r.serve()
	_, cursor, _ := up.changes("")
	up.stop()
	if _, err := r.admin.DeleteTopics(t.Context(), r.streams.Files.Name); err != nil {
		t.Fatal(err)
	}
	devbroker.CreateTopic(t, r.conf.Brokers, r.streams.Files.Name, partitions, r.streams.Files.Config())
	r.client.PurgeTopicsFromClient(r.streams.Files.Name)
	r.row("ws", "b", "/b", 1, nil)
	up = r.serve()
	if _, _, status := up.changes("?cursor=" + cursor); status != http.StatusGone {
		t.Errorf("a cursor of the table before: %d", status)
	}
	if list, _, _ := up.changes(""); list != "b" {
		t.Errorf("from the beginning: %q", list)
	}
}

// The table is recreated while it is served.
func TestATableThatIsRecreatedWhileServed(t *testing.T) {
	t.Parallel()
	r := newRig(t, devbroker.ForTest(t))
	r.row("ws", "a", "/a", 1, r.event("ws"))
	r.row("ws", "a2", "/a2", 1, r.event("ws"))
	up := r.serve()
	_, cursor, _ := up.changes("")
	if _, err := r.admin.DeleteTopics(t.Context(), r.streams.Files.Name); err != nil {
		t.Fatal(err)
	}
	devbroker.CreateTopic(t, r.conf.Brokers, r.streams.Files.Name, partitions, r.streams.Files.Config())
	r.client.PurgeTopicsFromClient(r.streams.Files.Name)
	r.row("ws", "b", "/b", 1, nil)
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, _, old := up.changes("?cursor=" + cursor)
		list, _, status := up.changes("")
		if old == http.StatusGone && status == http.StatusOK && list == "b" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the old cursor is answered %d, the beginning %d with %q", old, status, list)
		}
	}
}

package views

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A sharing is some instances that hold a share of the partitions each, without a broker.
type sharing struct {
	t         *testing.T
	instances []*fixture
	servers   []*httptest.Server
}

// share starts instances; instance i holds the partitions of held[i].
func share(t *testing.T, held [][]int32, edit ...func(*Config)) *sharing {
	t.Helper()
	s := &sharing{t: t}
	for range held {
		server := httptest.NewServer(nil)
		t.Cleanup(server.Close)
		f := newFixture(t, append(edit, func(c *Config) { c.Share = &Share{URL: server.URL} })...)
		server.Config.Handler = f.Handler()
		s.instances, s.servers = append(s.instances, f), append(s.servers, server)
	}
	s.move(held)
	return s
}

// move changes the assignment of all instances at once.
func (s *sharing) move(held [][]int32) {
	owners := make([]string, 4)
	for i, f := range s.instances {
		f.members.revoked(missingFrom(f.held.partitions(), held[i]))
		f.members.assigned(held[i])
		for _, p := range held[i] {
			owners[p] = s.servers[i].URL
		}
	}
	for _, f := range s.instances {
		f.members.owners.Store(&owners)
		f.poll()
	}
}

func missingFrom(all, kept []int32) []int32 {
	return slices.DeleteFunc(all, func(p int32) bool { return slices.Contains(kept, p) })
}

// on returns a workspace of a partition.
func on(partition int32) string {
	for i := 0; ; i++ {
		if id := fmt.Sprintf("ws/%d", i); kafka.Partition(id, 4) == partition {
			return id
		}
	}
}

// putOn applies a row at the instance that holds its partition.
func (s *sharing) putOn(instance int, row *tidemarkv1.FileState) {
	s.instances[instance].put(row)
	s.instances[instance].putWorkspace(&tidemarkv1.WorkspaceState{
		WorkspaceId: row.GetWorkspaceId(), Files: 1, Version: 1,
	})
}

// A reply is an answer without its body.
type reply struct {
	StatusCode int
	Status     string
	Header     http.Header
}

func (s *sharing) do(instance int, method, path, body string, header ...string) (reply, string) {
	s.t.Helper()
	address := s.servers[instance].URL + path
	request, err := http.NewRequestWithContext(s.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	var b strings.Builder
	if _, err := bufio.NewReader(response.Body).WriteTo(&b); err != nil {
		s.t.Fatal(err)
	}
	return reply{response.StatusCode, response.Status, response.Header}, b.String()
}

func problemCode(body string) string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(body), &p) // no problem has no code
	return p.Code
}

func TestRequestsAreForwardedToTheOwner(t *testing.T) {
	s := share(t, [][]int32{{0, 1}, {2, 3}})
	ws := on(2)
	s.putOn(1, fileRow(ws, "..", "/a", isActive, 3))
	path := "/v1/workspaces/" + url.PathEscape(ws)
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", path + "/files/%2E%2E", "", `"version":3`},
		{"GET", path + "/files?path_prefix=%2Fa&limit=1", "", `"path":"/a"`},
		{"GET", path, "", `"files":1`},
		{"GET", path + "/changes?wait=0", "", `"op":"upsert"`},
		{"POST", path + "/changes/diff", `{"files":[{"id":"..","version":2}]}`, `"changed":[{`},
		{"GET", path + "/files/none", "", codeUnknownFile},
	} {
		direct, wanted := s.do(1, c.method, c.path, c.body)
		response, body := s.do(0, c.method, c.path, c.body)
		if response.StatusCode != direct.StatusCode || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %s %s, want %s %s", c.method, c.path, response.Status, body, direct.Status, wanted)
		}
		if response.Header.Get(headerLag) == "" || len(response.Header.Values("Cache-Control")) != 1 {
			t.Errorf("%s %s: headers %v", c.method, c.path, response.Header)
		}
	}
	response, body := s.do(0, "HEAD", path+"/files/%2E%2E", "")
	if response.Header.Get("ETag") != `"3"` || body != "" || response.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %s, %v", response.Status, response.Header)
	}
	if response, _ = s.do(0, "GET", path+"/files/%2E%2E", "", "If-None-Match", `"3"`); response.StatusCode != 304 {
		t.Errorf("If-None-Match: %s", response.Status)
	}
}

// A forwarded request goes no further, also if each instance takes the other one for the owner.
func TestForwardedRequestsAreNotForwardedAgain(t *testing.T) {
	t.Parallel()
	s := share(t, [][]int32{{0, 1}, {2}})
	s.instances[0].members.owners.Store(&[]string{"", "", "", s.servers[1].URL})
	s.instances[1].members.owners.Store(&[]string{"", "", "", s.servers[0].URL})
	path := "/v1/workspaces/" + url.PathEscape(on(3))
	for name, header := range map[string][]string{"of a client": nil, "forwarded": {headerForwarded, "1"}} {
		response, body := s.do(0, "GET", path, "", header...)
		if response.StatusCode != 503 || problemCode(body) != codeNotOwner || response.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s %s", name, response.Status, body)
		}
	}
}

func TestAnOwnerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := share(t, [][]int32{{0, 1}, {2, 3}})
	s.servers[1].Close()
	path := "/v1/workspaces/" + url.PathEscape(on(2))
	for _, target := range []string{path, path + "/files", "/v1/workspaces"} {
		response, body := s.do(0, "GET", target, "")
		if response.StatusCode != 503 || problemCode(body) != codeOwnerUnavailable ||
			response.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s %s", target, response.Status, body)
		}
	}
	response, body := s.do(0, "GET", path+"/changes", "", "Accept", "text/event-stream")
	if response.StatusCode != 200 || !strings.Contains(body, "retry: ") {
		t.Errorf("events: %s %s", response.Status, body)
	}
	var status statusReport
	response, body = s.do(0, "GET", "/v1/status", "")
	if err := json.Unmarshal([]byte(body), &status); err != nil || response.StatusCode != 200 {
		t.Fatal(response.Status, body)
	}
	var ready []bool
	for _, p := range status.Partitions {
		ready = append(ready, p.Ready)
	}
	if want := []bool{true, true, false, false}; !slices.Equal(ready, want) || status.Ready || status.Reason == "" {
		t.Errorf("status: %s", body)
	}
}

// An owner that hangs after the headers does not keep the client waiting.
func TestAnOwnerThatHangs(t *testing.T) {
	s := share(t, [][]int32{{0, 1}, {2, 3}})
	s.instances[0].heartbeat = 100 * time.Millisecond
	ended := make(chan struct{})
	s.servers[1].Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != strings.TrimPrefix(s.servers[1].URL, "http://") {
			t.Errorf("without tokens the owner is asked as %s", r.Host)
		}
		w.Header().Set("Content-Type", eventsType)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	})
	begin := time.Now()
	response, _ := s.do(0, "GET", "/v1/workspaces/"+url.PathEscape(on(2))+"/changes", "", "Accept", eventsType)
	if response.StatusCode != 200 || time.Since(begin) > 5*time.Second {
		t.Errorf("%s after %v", response.Status, time.Since(begin))
	}
	<-ended
}

// A token that is revoked while a request waits at the owner gets no answer, and no empty one either.
func TestAForwardedRequestEndsWithItsToken(t *testing.T) {
	var revoked atomic.Bool
	s := share(t, [][]int32{{0, 1}, {2, 3}}, func(c *Config) {
		c.Authorize = func(*http.Request, string) (bool, error) { return !revoked.Load(), nil }
	})
	s.instances[0].recheckEvery = 50 * time.Millisecond
	asked := make(chan struct{})
	s.servers[1].Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	go func() { <-asked; revoked.Store(true) }()
	response, err := http.Get(s.servers[0].URL + "/v1/workspaces/" + url.PathEscape(on(2)) + "/changes?wait=10")
	if err == nil {
		response.Body.Close()
		t.Errorf("answered %s", response.Status)
	}
}

// The body of a diff may arrive as slowly at an instance that passes it on.
func TestASlowUploadIsForwarded(t *testing.T) {
	s := share(t, [][]int32{{0, 1}, {2, 3}})
	ws := on(2)
	s.putOn(1, fileRow(ws, "f", "/a", isActive, 1))
	for _, server := range s.servers {
		server.Config.ReadTimeout = 100 * time.Millisecond
	}
	body, write := io.Pipe()
	go func() {
		for _, part := range []string{`{"fi`, `les"`, `:[]}`} {
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(write, part) // an error is one of the request
		}
		write.Close()
	}()
	response, err := http.Post(s.servers[0].URL+"/v1/workspaces/"+url.PathEscape(ws)+"/changes/diff", jsonType, body)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if all, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(all), `"file_id":"f"`) {
		t.Errorf("%s %s, %v", response.Status, all, err)
	}
}

// Lists of workspaces and the status are joined from all instances, and are the same on each.
func TestAnswersAboutAllWorkspaces(t *testing.T) {
	s := share(t, [][]int32{{0, 3}, {2}, {1}})
	var want []string
	for partition, owner := range []int{0, 2, 1, 0} {
		ws := on(int32(partition))
		s.putOn(owner, fileRow(ws, "f", "/a", isActive, 1))
		want = append(want, ws)
	}
	slices.Sort(want)
	for i := range s.instances {
		var got []string
		cursor := ""
		for range 10 {
			_, body := s.do(i, "GET", "/v1/workspaces?limit=1"+cursor, "")
			var page struct {
				Workspaces []struct {
					ID string `json:"workspace_id"`
				}
				NextCursor *string `json:"next_cursor"`
			}
			if err := json.Unmarshal([]byte(body), &page); err != nil {
				t.Fatal(body)
			}
			for _, w := range page.Workspaces {
				got = append(got, w.ID)
			}
			if page.NextCursor == nil {
				break
			}
			cursor = "&cursor=" + *page.NextCursor
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("instance %d: %s", i, diff)
		}
		response, body := s.do(i, "GET", "/v1/status", "")
		if !strings.HasPrefix(body, `{"ready":true,"partitions":[{"partition":0,`) || strings.Count(body, `"ready":true`) != 5 ||
			response.Header.Get(headerLag) == "" {
			t.Errorf("instance %d: %s", i, body)
		}
	}
}

// What was read of a partition before it was given up is not answered any more, and not before it is complete again.
func TestAPartitionMoves(t *testing.T) {
	s := share(t, [][]int32{{0, 1, 2, 3}, {}})
	ws := on(2)
	s.putOn(0, fileRow(ws, "f", "/a", isActive, 1))
	path := "/v1/workspaces/" + url.PathEscape(ws) + "/files/f"
	s.move([][]int32{{0, 1, 3}, {2}})
	for _, table := range []*table{s.instances[0].Server.files, s.instances[0].workspaces} {
		table.giveUp(2)
	}
	s.putOn(1, fileRow(ws, "f", "/a", isActive, 2))
	for i := range s.instances {
		if _, body := s.do(i, "GET", path, ""); !strings.Contains(body, `"version":2`) {
			t.Errorf("instance %d: %s", i, body)
		}
	}
	s.move([][]int32{{0, 1, 2, 3}, {}})
	response, body := s.do(0, "GET", path, "")
	if response.StatusCode != 503 || problemCode(body) != codeRecovering {
		t.Errorf("before it is read again: %s %s", response.Status, body)
	}
}

// A request that waits, and one that streams, end when their partition is given up.
func TestWaitingRequestsEndWithTheirPartition(t *testing.T) {
	t.Parallel()
	s := share(t, [][]int32{{0, 1}, {2, 3}})
	ws := on(2)
	s.putOn(1, fileRow(ws, "f", "/a", isActive, 1))
	path := "/v1/workspaces/" + url.PathEscape(ws) + "/changes"
	_, body := s.do(0, "GET", path, "")
	var page struct{ Cursor string }
	if err := json.Unmarshal([]byte(body), &page); err != nil || page.Cursor == "" {
		t.Fatal(body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan string, 2)
	for _, accept := range []string{"application/json", "text/event-stream"} {
		go func() {
			request, _ := http.NewRequestWithContext(ctx, http.MethodGet,
				s.servers[0].URL+path+"?wait=30&cursor="+page.Cursor, nil)
			request.Header.Set("Accept", accept)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				done <- err.Error()
				return
			}
			defer response.Body.Close()
			var b strings.Builder
			if _, err := bufio.NewReader(response.Body).WriteTo(&b); err != nil {
				done <- err.Error()
			}
			done <- fmt.Sprint(response.StatusCode, " ", problemCode(b.String()))
		}()
	}
	time.Sleep(300 * time.Millisecond) // until both wait; if they do not yet, they are refused
	begin := time.Now()
	s.move([][]int32{{0, 1, 2, 3}, {}})
	got := []string{<-done, <-done}
	slices.Sort(got)
	if want := []string{"200 ", "503 " + codeNotOwner}; !slices.Equal(got, want) || time.Since(begin) > 5*time.Second {
		t.Errorf("%q after %v", got, time.Since(begin))
	}
}

// Another tenant's workspace is refused here, before anything is forwarded, and by the owner too.
func TestForwardingKeepsTenantsApart(t *testing.T) {
	s := share(t, [][]int32{{0, 1}, {2, 3}}, func(c *Config) {
		c.Authorize = func(r *http.Request, workspace string) (bool, error) {
			return r.Header.Get("Authorization") == "Bearer "+workspace || workspace == "", nil
		}
	})
	ws := on(2)
	s.putOn(1, fileRow(ws, "f", "/a", isActive, 1))
	path := "/v1/workspaces/" + url.PathEscape(ws)
	if response, body := s.do(0, "GET", path, "", "Authorization", "Bearer "+ws); response.StatusCode != 200 {
		t.Errorf("own: %s %s", response.Status, body)
	}
	_, absent := s.do(1, "GET", "/v1/workspaces/absent", "", "Authorization", "Bearer other")
	for i := range s.instances {
		for _, header := range [][]string{{"Authorization", "Bearer other"}, {headerForwarded, "1"}} {
			if response, body := s.do(i, "GET", path, "", header...); response.StatusCode != 404 || body != absent {
				t.Errorf("instance %d, %v: %s %s", i, header, response.Status, body)
			}
		}
	}
}

package views

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// workspacesOn reads all pages of a listing, and returns the ids in order.
func (f *fixture) workspacesOn(limit int) (ids []string, pages int) {
	f.t.Helper()
	for cursor := ""; ; pages++ {
		target := fmt.Sprintf("/v1/workspaces?limit=%d", limit)
		if cursor != "" {
			target += "&cursor=" + cursor
		}
		w := f.get(target)
		var page struct {
			Workspaces []struct {
				ID string `json:"workspace_id"`
			}
			Next *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
			f.t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		for _, each := range page.Workspaces {
			ids = append(ids, each.ID)
		}
		if page.Next == nil {
			return ids, pages + 1
		}
		if len(page.Workspaces) != limit || pages > 100 {
			f.t.Fatalf("a page of %d with a next one", len(page.Workspaces))
		}
		cursor = *page.Next
	}
}

// Every workspace is listed once, in an order that does not depend on its partition.
func TestListWorkspaces(t *testing.T) {
	f := newFixture(t)
	if ids, _ := f.workspacesOn(2); len(ids) != 0 {
		t.Errorf("without workspaces: %v", ids)
	}
	var want []string
	for i := range 11 {
		want = append(want, fmt.Sprintf("w%02d", i))
	}
	for _, i := range []int{5, 3, 10, 0, 1, 9, 2, 8, 4, 7, 6} {
		types := map[string]int64{"a": 1}
		f.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: want[i], Files: int64(i), ByType: types})
	}
	for limit, pages := range map[int]int{1: 11, 2: 6, 5: 3, 10: 2, 11: 1, 12: 1} {
		if ids, n := f.workspacesOn(limit); !slices.Equal(ids, want) || n != pages {
			t.Errorf("pages of %d: %v on %d pages, want %d", limit, ids, n, pages)
		}
	}
	body := f.get("/v1/workspaces?limit=4").Body.String()
	if !strings.HasPrefix(body, `{"workspaces":[{"workspace_id":"w00","files":0,`) || strings.Contains(body, "by_type") {
		t.Error(body)
	}
}

// A token's list has its workspaces and no other, also by the cursor of another token.
func TestListWorkspacesOfAToken(t *testing.T) {
	var ids []string
	var all bool
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(*http.Request, string) (bool, error) { return true, nil }
		c.Workspaces = func(*http.Request) ([]string, bool, error) { return ids, all, nil }
	})
	for _, id := range []string{"a", "b", "c/d", "e", "%", "_"} {
		f.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: id})
	}
	for _, test := range []struct {
		ids, want []string
		all       bool
	}{
		{nil, nil, false},
		{[]string{"e", "nobody", "a", "c/d", "a", ""}, []string{"a", "c/d", "e"}, false},
		{[]string{"*"}, nil, false}, // all is what says it
		{[]string{"b", "*"}, []string{"%", "_", "a", "b", "c/d", "e"}, true},
	} {
		ids, all = test.ids, test.all
		for _, limit := range []int{1, 2, 10} {
			if got, _ := f.workspacesOn(limit); !slices.Equal(got, test.want) {
				t.Errorf("%v, pages of %d: %q, want %q", test.ids, limit, got, test.want)
			}
		}
	}
	cursor := encodeWorkspace("a")
	ids, all = []string{"a", "e"}, false
	if body := f.get("/v1/workspaces?cursor=" + cursor).Body.String(); strings.Count(body, "workspace_id") != 1 ||
		!strings.Contains(body, `"e"`) {
		t.Errorf("after a: %s", body)
	}
}

func TestListWorkspacesRefuses(t *testing.T) {
	f := newFixture(t)
	f.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: "a"})
	files := query{workspace: "a", status: statusActive, kind: kindFile}.encodeListCursor(listCursor{tail: []byte("x")})
	for _, target := range []string{"?cursor=x", "?cursor=" + files, "?limit=0", "?limit=1001", "?status=all", "?q=a"} {
		if w := f.get("/v1/workspaces" + target); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	locked := newFixture(t, func(c *Config) { // which workspaces is not known
		c.Authorize = func(*http.Request, string) (bool, error) { return true, nil }
	})
	locked.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: "a"})
	if ids, _ := locked.workspacesOn(10); len(ids) != 0 {
		t.Errorf("without Config.Workspaces: %v", ids)
	}
}

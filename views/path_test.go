package views

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"
)

// TestPathsMatchAsTemplates compares the matchers of all routes with mux's own, also on paths that mux reads in an
// unexpected way.
func TestPathsMatchAsTemplates(t *testing.T) {
	paths := []string{
		"/", "//", "/v1", "/v1/", "/v1//files", "/v1/workspaces", "/v1/workspaces/", "/v1/workspaces/ws", "/v2/workspaces",
		"/v1/workspaces/ws/", "/v1/workspaces/ws//", "/v1/workspaces//files", "/v1/workspaces/ws/files",
		"/v1/workspaces/ws/files/", "/v1/workspaces/ws/files/f", "/v1/workspaces/ws/files/f/", "/v1/workspaces/ws/files//f",
		"/v1/workspaces/a%2Fb/files/%2E%2E", "/v1/workspaces/../files/..", "/v1/workspaces/{workspace}/files/{file}",
		"/v1/workspaces/ws/files/a b", "/v1/workspaces/ws/files/a%20b", "/v1/workspaces/ws/files/ä", "/v1/workspaces/%zz",
		"/v1/workspaces/ws/files/f/history", "/v1/workspaces/ws/files/f/History", "/v1/workspaces/ws/files/f\n/history",
		"/v1/workspaces/ws/files/f%0A", "/v1/workspaces/ws/events/1:2", "/v1/status", "/v1/dlq", "/v1/dlq/jobs",
		"/v1/dlq/jobs/7", "/v1/dlq/a%2Fb", "/openapi.json", "/openapiXjson", "/v1/workspaces/ws/changes/diff", "v1/status",
	}
	matched := 0
	for _, r := range newFixture(t).routeList() {
		theirs := mux.NewRouter().UseEncodedPath().SkipClean(true)
		theirs.Handle(r.template, http.NotFoundHandler())
		ours := mux.NewRouter().UseEncodedPath().SkipClean(true)
		ours.NewRoute().MatcherFunc(matchPath(r.template)).Handler(http.NotFoundHandler())
		for _, path := range paths {
			request := httptest.NewRequest(http.MethodGet, "/", nil)
			request.URL = &url.URL{Path: path}
			if unescaped, err := url.PathUnescape(path); err == nil { // as a server parses it
				request.URL = &url.URL{Path: unescaped, RawPath: path}
			}
			var want, found mux.RouteMatch
			wanted := theirs.Match(request, &want)
			if is := ours.Match(request, &found); is != wanted {
				t.Errorf("%s on %s: %t, want %t", r.template, path, is, wanted)
			} else if diff := cmp.Diff(want.Vars, found.Vars); wanted && diff != "" {
				t.Errorf("%s on %s: %s", r.template, path, diff)
			}
			if wanted {
				matched++
			}
		}
	}
	if matched < 20 {
		t.Errorf("only %d matches were compared", matched)
	}
}

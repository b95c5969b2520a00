package views

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"tidemark/problem"
)

// A route is one resource with its methods. Any other parameter is refused: a misspelt one would silently ask for
// something else.
type route struct {
	template   string
	methods    []string
	table      *table
	parameters []string
	handle     func(c *call) (*answer, error)
}

var readOnly = []string{http.MethodGet, http.MethodHead}

func (s *Server) routeList() []route {
	return []route{
		{ // first, since it is requested most
			"/v1/workspaces/{workspace}/files/{file}", readOnly, s.files,
			[]string{"as_of", "at_least", "wait"},
			s.getFile,
		},
		{
			"/v1/workspaces", readOnly, s.workspaces,
			[]string{"limit", "cursor", "at_least", "wait"},
			s.listWorkspaces,
		},
		{
			"/v1/workspaces/{workspace}", readOnly, s.workspaces,
			[]string{"as_of", "at_least", "wait"},
			s.getWorkspace,
		},
		{
			"/v1/workspaces/{workspace}/files", readOnly, s.files,
			[]string{"path_prefix", "status", "kind", "limit", "cursor", "as_of", "at_least", "wait"},
			s.listFiles,
		},
		{
			"/v1/workspaces/{workspace}/files/{file}/history", readOnly, s.files,
			[]string{"limit", "cursor", "at_least", "wait"},
			s.getHistory,
		},
		{
			"/v1/workspaces/{workspace}/search", readOnly, s.files,
			[]string{"q", "path_prefix", "mime", "status", "limit", "cursor", "at_least", "wait"},
			s.searchFiles,
		},
		{
			"/v1/workspaces/{workspace}/changes", readOnly, s.files,
			[]string{"path_prefix", "status", "kind", "limit", "cursor", "at_least", "wait"},
			s.getChanges,
		},
		{
			"/v1/workspaces/{workspace}/changes/diff",
			[]string{http.MethodPost},
			s.files,
			[]string{"path_prefix", "status", "kind", "at_least", "wait"},
			s.diffFiles,
		},
		{
			"/v1/workspaces/{workspace}/usage", readOnly, s.files,
			[]string{"by", "window", "at_least", "wait"},
			s.getUsage,
		},
		{"/v1/workspaces/{workspace}/events/{position}", readOnly, s.files, nil, s.getEvent},
		{"/v1/workspaces/{workspace}/notices", readOnly, s.files, nil, s.getNotices},
		{"/v1/status", readOnly, s.workspaces, []string{"at_least", "wait"}, s.getStatus},
		{"/v1/dlq", readOnly, s.files, deadLetterParameters, s.deadLetters},
		{"/v1/dlq/jobs", readAndPost, s.files, nil, s.deadLetters},
		{"/v1/dlq/jobs/{job}", readAndDelete, s.files, nil, s.deadLetters},
		{"/v1/dlq/{entry}", readOnly, s.files, nil, s.deadLetters},
		{"/v1/session", []string{http.MethodPost, http.MethodDelete}, s.files, nil, s.session},
		{"/openapi.json", readOnly, s.files, nil, s.getOpenAPI},
	}
}

// routes returns the outer router: the API is at /v1 and /openapi.json, and the page, if there is one, everywhere else.
func (s *Server) routes(list []route) http.Handler {
	api, page := s.api(list), s.conf.Page
	if page == nil {
		return api
	}
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		path := request.URL.EscapedPath() // as the API's router matches it
		if path == "/v1" || strings.HasPrefix(path, "/v1/") || path == "/openapi.json" {
			api.ServeHTTP(w, request)
			return
		}
		setWriteDeadline(w, writeTimeout)
		page.ServeHTTP(w, request)
	})
}

// api returns the router of all resources. Ids are escaped once in a path, and may hold "/", "%" and "..".
func (s *Server) api(list []route) *mux.Router {
	router := mux.NewRouter().UseEncodedPath().SkipClean(true)
	allowed := map[string][]string{}
	for _, r := range list {
		router.Name(r.template).MatcherFunc(matchPath(r.template)).Methods(r.methods...).Handler(s.serve(r))
		allowed[r.template] = append(allowed[r.template], r.methods...)
	}
	for _, template := range slices.Sorted(maps.Keys(allowed)) { // after all others, which take precedence
		router.Name(template).MatcherFunc(matchPath(template)).Handler(s.otherMethods(template, allowed[template]))
	}
	router.NotFoundHandler = s.refuse(unknownPath())
	return router
}

// refuse returns the handler of requests for no resource.
func (s *Server) refuse(p *problem.Problem) http.Handler {
	return s.serve(route{template: noResource, table: s.files, handle: func(*call) (*answer, error) { return nil, p }})
}

func unknownPath() *problem.Problem {
	return problem.New(http.StatusNotFound, codeUnknownPath,
		"there is no such resource: see /openapi.json, and escape '/' in an id as %2F")
}

func methodNotAllowed(allowed []string) *problem.Problem {
	detail := "use " + strings.Join(allowed, " or ")
	return problem.New(http.StatusMethodNotAllowed, codeMethod, detail).With("Allow", allow(allowed))
}

// allow returns the header Allow of a resource with these methods.
func allow(methods []string) string { return strings.Join(methods, ", ") + ", " + http.MethodOptions }

// otherMethods answers OPTIONS, which needs no token: the methods depend on nothing but the path's form. It refuses all
// others.
func (s *Server) otherMethods(template string, allowed []string) http.Handler {
	refuse := s.refuse(methodNotAllowed(allowed))
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodOptions {
			refuse.ServeHTTP(w, request)
			return
		}
		w.Header().Set("Allow", allow(allowed))
		w.WriteHeader(http.StatusNoContent)
		s.metrics.request(template, http.StatusNoContent, 0)
	})
}

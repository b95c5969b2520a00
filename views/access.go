package views

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// An access says what a request to a route needs.
type access int

const (
	refused     access = iota // a route without a rule
	everyone                  // no token
	anyToken                  // a token for any workspace
	ofWorkspace               // a token for the route's workspace
	forAdmin                  // a token with the right admin for all workspaces
)

// accessRules are the rules of all routes, by method and template. GET includes HEAD. Where tokens are needed, a route
// without a rule is refused.
var accessRules = map[string]access{
	"GET /v1/workspaces/{workspace}":                      ofWorkspace,
	"GET /v1/workspaces/{workspace}/files":                ofWorkspace,
	"GET /v1/workspaces/{workspace}/files/{file}":         ofWorkspace,
	"GET /v1/workspaces/{workspace}/files/{file}/history": ofWorkspace,
	"GET /v1/workspaces/{workspace}/search":               ofWorkspace,
	"GET /v1/workspaces/{workspace}/usage":                ofWorkspace,
	"GET /v1/workspaces/{workspace}/events/{position}":    ofWorkspace,
	"GET /v1/workspaces/{workspace}/notices":              ofWorkspace,
	"GET /v1/workspaces/{workspace}/changes":              ofWorkspace,
	"POST /v1/workspaces/{workspace}/changes/diff":        ofWorkspace,

	"GET /v1/dlq":               forAdmin,
	"GET /v1/dlq/{entry}":       forAdmin,
	"GET /v1/dlq/jobs":          forAdmin,
	"POST /v1/dlq/jobs":         forAdmin,
	"GET /v1/dlq/jobs/{job}":    forAdmin,
	"DELETE /v1/dlq/jobs/{job}": forAdmin,

	"GET /v1/workspaces": anyToken, // lists only those that the token is for
	"GET /v1/status":     anyToken,
	"POST /v1/session":   anyToken,
	"DELETE /v1/session": everyone, // also with a token that has expired
	"GET /openapi.json":  everyone, // describes the program, not its data
}

// accessTo returns the rule of a request to a route. A request for no resource needs a token too.
func accessTo(r route, method string) access {
	if r.template == noResource {
		return anyToken
	}
	if method == http.MethodHead {
		method = http.MethodGet
	}
	return accessRules[method+" "+r.template]
}

// authorize is the one place that decides whether a request is answered. Another tenant's workspace is answered as one
// that does not exist.
func (s *Server) authorize(c *call, r route) error {
	if s.conf.Authorize == nil {
		return nil
	}
	workspace := ""
	switch accessTo(r, c.request.Method) {
	case everyone:
		return nil
	case ofWorkspace:
		workspace = c.workspace
		if !strings.Contains(r.template, "{workspace}") {
			return fmt.Errorf("the rule of %s is for a workspace, and the route has none", r.template)
		}
	case anyToken:
	case forAdmin:
		if s.conf.AuthorizeAdmin == nil {
			return errNoRule
		}
		return s.conf.AuthorizeAdmin(c.request)
	default:
		return errNoRule
	}
	switch allowed, err := s.conf.Authorize(c.request, workspace); {
	case err != nil:
		return err
	case !allowed && workspace != "":
		return unknownWorkspace()
	case !allowed && r.template != noResource: // a request for no resource needs nothing but a token
		return unknownPath()
	}
	return nil
}

var errNoRule = errors.New("the route has no access rule")

// recheckEvery is how often the request of a stream is authorized again: its token may expire or be revoked.
const recheckEvery = 10 * time.Second

// whileAllowed returns a request whose context ends once it is not authorized any more, and a function that releases
// it.
func (s *Server) whileAllowed(c *call, r route) (*http.Request, func()) {
	ctx, cancel := context.WithCancel(c.request.Context())
	if s.conf.Authorize == nil {
		return c.request, cancel
	}
	go func() {
		tick := time.NewTicker(s.recheckEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if s.authorize(c, r) != nil {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return c.request.WithContext(ctx), cancel
}

// session leaves the answer to the handler of the configuration. Without tokens there is nothing to keep.
func (s *Server) session(*call) (*answer, error) {
	if s.conf.Session == nil {
		return &answer{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
		})}, nil
	}
	return &answer{handler: s.conf.Session}, nil
}

// Package auth verifies bearer tokens (RFC 6750) and decides what their owners may do.
//
// A token is of the installation's own list (Tokens) or a JWT of an identity provider (JWT). It has rights, and the
// workspaces that they are for. No token, and no part of one, is in an error or a log; what is logged of it is its
// name. The package knows no routes: its callers decide which requests they ask about.
package auth

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/problem"
)

// A Right is what a token allows.
type Right string

// The rights. None includes another.
const (
	Read  Right = "read"  // the query API
	Admin Right = "admin" // the admin address, and the dead letters on the query API
)

// allWorkspaces in a list of workspaces means all of them.
const allWorkspaces = "*"

// An Identity is the owner of a verified token.
type Identity struct {
	Name       string // of a token of the list, the claim sub of a JWT
	Workspaces []string
	Rights     []Right
}

// Has reports whether the token has a right.
func (i *Identity) Has(right Right) bool { return slices.Contains(i.Rights, right) }

// MayUse reports whether the token is for a workspace.
func (i *Identity) MayUse(workspace string) bool {
	return slices.Contains(i.Workspaces, allWorkspaces) || slices.Contains(i.Workspaces, workspace)
}

// A Verifier returns the owner of a token. Its error is a *problem.Problem.
type Verifier interface {
	Verify(ctx context.Context, token string) (*Identity, error)
}

// maxToken is the length of the longest token. A JWT with some hundred workspaces is shorter.
const maxToken = 8 << 10

// validToken is the form of RFC 6750, section 2.1. All of it can be in a cookie too.
var validToken = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// The codes of problems. Clients branch on them, so they do not change.
const (
	codeNoToken      = "no_token"
	codeBadToken     = "bad_token"
	codeMissingRight = "missing_right"
	codeNoKeys       = "no_keys"
	codeTokenTooLong = "token_too_long"
)

// A Guard decides about requests.
type Guard struct {
	verifier    Verifier
	log         *slog.Logger
	decisions   *prometheus.CounterVec
	crossOrigin *http.CrossOriginProtection
}

// NewGuard returns a guard of the tokens that verifier knows.
func NewGuard(verifier Verifier, log *slog.Logger, metrics prometheus.Registerer) *Guard {
	return &Guard{
		verifier: verifier, log: log, decisions: newDecisions(metrics), crossOrigin: http.NewCrossOriginProtection(),
	}
}

// Authorize decides about a request to the query API. The workspace is "" for a resource that belongs to none. A token
// without the right to read is refused before its workspaces matter, so the answer depends on no workspace.
func (g *Guard) Authorize(request *http.Request, workspace string) (allowed bool, err error) {
	id, err := g.identify(request, true)
	if err != nil {
		return false, err
	}
	if !id.Has(Read) {
		g.count(missingRight)
		return false, refuse(Read, "this token lacks the right read")
	}
	if workspace != "" && !id.MayUse(workspace) {
		g.count(foreignWorkspace)
		return false, nil
	}
	g.count(allowedRequest)
	return true, nil
}

// Workspaces returns the workspaces that the token of an authorized request is for, or that it is for all.
func (g *Guard) Workspaces(request *http.Request) (ids []string, all bool, err error) {
	id, err := g.identify(request, true)
	if err != nil {
		return nil, false, err
	}
	return id.Workspaces, id.MayUse(allWorkspaces), nil
}

// AdminHandler serves the paths in open to everyone, and all others to those with the right admin for all workspaces:
// the admin address shows and changes data of every workspace. Cookies are ignored here: they are those of the query
// API, which browsers send to every port of a host.
func (g *Guard) AdminHandler(next http.Handler, open ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if slices.Contains(open, request.URL.Path) {
			next.ServeHTTP(w, request)
			return
		}
		if err := g.admit(request, false); err != nil {
			asProblem(err).Write(w)
			return
		}
		next.ServeHTTP(w, request)
	})
}

// AuthorizeAdmin decides about a request to the query API that shows or changes data of every workspace. A browser's
// cookie counts, as for other requests to that API.
func (g *Guard) AuthorizeAdmin(request *http.Request) error { return g.admit(request, true) }

// admit refuses requests without the right admin for all workspaces, and logs who changes something.
func (g *Guard) admit(request *http.Request, cookies bool) error {
	id, err := g.identify(request, cookies)
	switch {
	case err != nil:
		return err
	case !id.Has(Admin):
		g.count(missingRight)
		return refuse(Admin, "this token lacks the right admin")
	case !id.MayUse(allWorkspaces):
		g.count(missingRight)
		return refuse(Admin, `this needs a token for all workspaces: "*"`)
	}
	g.count(allowedRequest)
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		g.log.InfoContext(request.Context(), "admin request", "subject", id.Name, "method", request.Method,
			"path", request.URL.Path)
	}
	return nil
}

// identify verifies the token of a request. One in the header is never replaced by one in a cookie.
func (g *Guard) identify(request *http.Request, cookies bool) (*Identity, error) {
	if closed, ok := g.verifier.(Closed); ok {
		g.count(withoutToken)
		return closed.Verify(request.Context(), "")
	}
	token, err := bearer(request.Header.Values("Authorization"))
	if err == nil && token == "" && cookies {
		token, err = g.fromCookie(request)
	}
	if err == nil && token == "" {
		err = noToken()
	}
	var id *Identity
	if err == nil {
		id, err = g.verifier.Verify(request.Context(), token)
	}
	if err != nil {
		g.count(decisionOf(err))
		return nil, err
	}
	return id, nil
}

// bearer returns the token of the header Authorization; empty if there is no such header.
func bearer(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", nil
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	token = strings.Trim(token, " ")
	switch {
	case len(headers) > 1:
		return "", badToken("send one Authorization header")
	case !strings.EqualFold(scheme, "Bearer"):
		return "", badToken("send the token as Authorization: Bearer TOKEN")
	case len(token) > maxToken:
		return "", badToken("the token is too long")
	case !validToken.MatchString(token):
		return "", badToken("the token is empty, or has characters that no token has")
	}
	return token, nil
}

// Closed is a Verifier that refuses every request. It is the text that says why.
type Closed string

// Verify returns the refusal.
func (c Closed) Verify(context.Context, string) (*Identity, error) {
	return nil, problem.New(http.StatusUnauthorized, codeNoToken, string(c)).With(challenge, `Bearer realm="tidemark"`)
}

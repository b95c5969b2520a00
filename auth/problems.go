package auth

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/problem"
)

const challenge = "WWW-Authenticate"

// noToken has no error code: RFC 6750, section 3.1, wants none where a request has no token.
func noToken() *problem.Problem {
	return problem.New(http.StatusUnauthorized, codeNoToken, "send a token as Authorization: Bearer TOKEN").
		With(challenge, `Bearer realm="tidemark"`)
}

// badToken returns the problem of a token that is not valid. The detail is constant text.
func badToken(detail string) *problem.Problem {
	return problem.New(http.StatusUnauthorized, codeBadToken, detail).
		With(challenge, fmt.Sprintf(`Bearer realm="tidemark", error="invalid_token", error_description=%q`, detail))
}

func refuse(right Right, detail string) *problem.Problem {
	return problem.New(http.StatusForbidden, codeMissingRight, detail).
		With(challenge, fmt.Sprintf(`Bearer realm="tidemark", error="insufficient_scope", scope=%q`, right))
}

func noKeys() *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, codeNoKeys,
		"the keys that tokens are verified with could not be loaded yet: try again").Retry(5 * time.Second)
}

func asProblem(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	return problem.New(http.StatusInternalServerError, "internal", "this is a fault of the server")
}

// A decision about a request.
type decision string

const (
	allowedRequest   decision = "allowed"
	withoutToken     decision = "no_token"
	invalidToken     decision = "bad_token"
	missingRight     decision = "missing_right"
	foreignWorkspace decision = "foreign_workspace"
	withoutKeys      decision = "no_keys"
)

func newDecisions(metrics prometheus.Registerer) *prometheus.CounterVec {
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_auth_decisions_total",
		Help: "Requests that need a token, by decision; a stream is checked again every 10 s.",
	}, []string{"decision"})
	metrics.MustRegister(decisions)
	for _, d := range []decision{
		allowedRequest, withoutToken, invalidToken, missingRight, foreignWorkspace, withoutKeys,
	} {
		decisions.WithLabelValues(string(d))
	}
	return decisions
}

func (g *Guard) count(d decision) { g.decisions.WithLabelValues(string(d)).Inc() }

func decisionOf(err error) decision {
	switch asProblem(err).Code {
	case codeNoToken:
		return withoutToken
	case codeNoKeys:
		return withoutKeys
	}
	return invalidToken
}

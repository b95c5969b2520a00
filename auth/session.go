package auth

import (
	"net/http"
	"strings"
	"time"

	"tidemark/problem"
)

// Browsers cannot set a header on an EventSource or a WebSocket. They have the token in a cookie, which scripts cannot
// read and which other sites cannot send.
const (
	cookieName = "tidemark_token"
	cookiePath = "/v1"
	cookieAge  = 12 * time.Hour
	maxCookie  = 3800 // browsers keep no cookie of more than 4,096 bytes
)

// SessionHandler sets the token of the header Authorization as a cookie with POST, and removes it with DELETE. The
// caller has authorized a POST. The server keeps nothing: the cookie is the token, verified with each request.
func (g *Guard) SessionHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		cookie := http.Cookie{
			Name: cookieName, Path: cookiePath, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1,
			// A proxy in front may have ended TLS. The origin is that of the page, which the browser states.
			Secure: request.TLS != nil || strings.HasPrefix(request.Header.Get("Origin"), "https://"),
		}
		if request.Method == http.MethodPost {
			token, err := bearer(request.Header.Values("Authorization"))
			switch {
			case err == nil && token == "":
				err = noToken() // a cookie does not renew itself
			case len(token) > maxCookie:
				err = problem.New(http.StatusBadRequest, codeTokenTooLong, // it is valid: no challenge
					"the token is too long for a cookie: send it in the header").On("Authorization")
			}
			if err != nil {
				asProblem(err).Write(w)
				return
			}
			cookie.Value, cookie.MaxAge = token, int(cookieAge.Seconds())
		}
		http.SetCookie(w, &cookie)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
	})
}

// fromCookie returns the token of the cookie. A request that could change something must come from the same origin:
// other programs on the same host, on another port, are of the same site.
func (g *Guard) fromCookie(request *http.Request) (string, error) {
	cookies := request.CookiesNamed(cookieName)
	switch {
	case len(cookies) == 0:
		return "", nil
	case len(cookies) > 1:
		return "", badToken("send one cookie")
	case g.crossOrigin.Check(request) != nil:
		return "", badToken("a cookie is not accepted from another origin: send the token in the header")
	}
	return bearer([]string{"Bearer " + cookies[0].Value})
}

package main

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/rs/cors"
)

// corsFlags are the settings of pages of other origins that use the query API.
type corsFlags struct {
	CORSOrigin []string `help:"Origins whose pages may use the query API, each as https://app.example. They send a token in the header Authorization; cookies of other origins are not accepted." name:"cors-origin" placeholder:"ORIGIN"`
}

// checkOrigins refuses what is no exact origin. A wildcard would let every page that a reader has open use the API:
// where no tokens are needed, with the reader's access to it.
func (f corsFlags) checkOrigins() error {
	for _, origin := range f.CORSOrigin {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Contains(origin, "*") ||
			origin != u.Scheme+"://"+strings.ToLower(u.Host) {
			return usagef("--cors-origin %q is not an origin: write https://app.example, in lower case, with the port "+
				"if it is not the usual one, and without a path; wildcards are not possible", origin)
		}
	}
	return nil
}

// crossOrigin lets pages of the origins use next. It answers their preflights itself: those have no token.
func (f corsFlags) crossOrigin(next http.Handler) http.Handler {
	if len(f.CORSOrigin) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: f.CORSOrigin,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Last-Event-ID", "If-None-Match"},
		ExposedHeaders: []string{
			"ETag", "Tidemark-Lag-Seconds", "Tidemark-As-Of", "Retry-After", "Location", "WWW-Authenticate",
		},
		MaxAge: 600,
	}).Handler(next)
}

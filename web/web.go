// Package web serves the page of the query API: one document, its script and its style.
//
// The files need no token: they have no data, and everything that they show comes from the API with the reader's
// token. They load nothing from other hosts, and the Content-Security-Policy has the browser refuse what is not a file
// of the same origin. The package knows no Kafka and no state.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"tidemark/problem"
)

// build is made from src by `make page`; CI compares the two.
//
//go:embed build
var build embed.FS

// policy allows files and requests of the same origin, and no script or style in the document.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; frame-ancestors 'none'; form-action 'none'"

const allow = "GET, HEAD, OPTIONS"

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
}

// A file is a file of the page as it is sent.
type file struct {
	contentType, etag string
	plain, gzipped    []byte
}

// Handler returns the handler of all paths outside of the API. acceptsGzip reads the headers of a request: the API
// decides by the same rule.
func Handler(acceptsGzip func(http.Header) bool) (http.Handler, error) {
	files := map[string]*file{}
	err := fs.WalkDir(build, "build", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := read(name)
		files["/"+path.Base(name)] = f
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	files["/"] = files["/index.html"]
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		f := files[request.URL.Path]
		switch {
		case f == nil:
			problem.New(http.StatusNotFound, "unknown_path",
				"there is no such resource: the page is at /, the API at /v1 and /openapi.json").Write(w)
		case request.Method == http.MethodOptions:
			w.Header().Set("Allow", allow)
			w.WriteHeader(http.StatusNoContent)
		case request.Method != http.MethodGet && request.Method != http.MethodHead:
			problem.New(http.StatusMethodNotAllowed, "method_not_allowed", "use GET").With("Allow", allow).Write(w)
		default:
			f.serve(w, request, acceptsGzip(request.Header))
		}
	}), nil
}

func read(name string) (*file, error) {
	plain, err := build.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var gzipped bytes.Buffer
	w, err := gzip.NewWriterLevel(&gzipped, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	sum := sha256.Sum256(plain)
	return &file{
		contentType: contentTypes[path.Ext(name)], etag: strconv.Quote(hex.EncodeToString(sum[:8])),
		plain: plain, gzipped: gzipped.Bytes(),
	}, err
}

// serve answers with the file. Browsers keep it, and ask each time whether it has changed: its name stays the same.
func (f *file) serve(w http.ResponseWriter, request *http.Request, compressed bool) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	body, etag := f.plain, f.etag
	if compressed {
		h.Set("Content-Encoding", "gzip")
		body, etag = f.gzipped, strings.TrimSuffix(f.etag, `"`)+`-gzip"`
	}
	h.Set("ETag", etag)
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body))) // which ServeContent does not know of an encoded body
	http.ServeContent(w, request, "", time.Time{}, bytes.NewReader(body))
}

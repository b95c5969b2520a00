package views

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// minCompressed is the length of the shortest body that is compressed. A shorter one fits into a packet as it is.
const minCompressed = 1024

const (
	jsonType   = "application/json"
	eventsType = "text/event-stream"
)

// A form is how an answer is written: as plain JSON, or as the headers of the request ask for.
type form struct {
	gzip        bool
	sizesAsText bool
}

// encode applies Accept, Accept-Encoding and If-None-Match to an answer that is complete otherwise. Events are not
// compressed: a proxy or a client that buffers would delay them.
func (a *answer) encode(h http.Header, request *http.Request) {
	h.Add("Vary", "Accept, Accept-Encoding")
	isJSON := a.contentType == "" || a.contentType == jsonType
	a.form.sizesAsText = (isJSON || a.contentType == eventsType) && wantsSizesAsText(request.Header)
	if a.form.sizesAsText {
		a.body = sizesAsText(a.body)
	}
	if a.form.sizesAsText && isJSON {
		a.contentType = jsonType + ";IEEE754Compatible=true"
	}
	a.form.gzip = !a.plain && AcceptsGzip(request.Header) &&
		(len(a.body) >= minCompressed || isJSON && a.stream != nil && request.Method != http.MethodHead)
	tag := a.etag
	if tag != "" && (a.form.gzip || a.form.sizesAsText) { // it is compared by version, and not by bytes
		a.etag = "W/" + tag
	}
	if tag != "" && a.status == http.StatusOK && matches(request.Header.Values("If-None-Match"), tag) {
		a.status, a.body = http.StatusNotModified, nil
		return
	}
	if a.form.gzip {
		h.Set("Content-Encoding", "gzip")
		a.body = compress(a.body)
	}
}

// withTag returns the answer of a body, with a tag of its content.
func withTag(body []byte) *answer { return &answer{body: body, etag: tagOf(body)} }

func tagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return strconv.Quote(hex.EncodeToString(sum[:8]))
}

// matches compares entity tags weakly, as is specified for If-None-Match.
func matches(headers []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == "*" || tag == etag {
			return true
		}
	}
	return false
}

// AcceptsGzip reports whether a client accepts gzip, and does not prefer the plain body.
func AcceptsGzip(h http.Header) bool {
	zipped, plain, others := -1.0, -1.0, -1.0
	for coding := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, parameter, _ := strings.Cut(coding, ";")
		weight := 1.0
		if _, value, ok := strings.Cut(parameter, "="); ok { // q is the only parameter there is
			var err error
			if weight, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil {
				weight = 0
			}
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip", "x-gzip":
			zipped = weight
		case "identity":
			plain = weight
		case "*":
			others = weight
		}
	}
	if zipped < 0 {
		zipped = others
	}
	return zipped > 0 && zipped >= plain
}

// zips are the writers that are not in use: one has some hundred kB of tables.
var zips = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	return w
}}

func newZip(to io.Writer) *gzip.Writer {
	w := zips.Get().(*gzip.Writer)
	w.Reset(to)
	return w
}

func compress(body []byte) []byte {
	if len(body) == 0 {
		return nil
	}
	var compressed bytes.Buffer
	w := newZip(&compressed)
	defer zips.Put(w)
	_, _ = w.Write(body) // a buffer has no errors
	_ = w.Close()
	return compressed.Bytes()
}

// wantsSizesAsText reports whether a client asks for 64-bit integers as strings, in the way of OData 4.01:
// Accept: application/json;IEEE754Compatible=true.
func wantsSizesAsText(h http.Header) bool {
	for accepted := range strings.SplitSeq(strings.Join(h.Values("Accept"), ","), ",") {
		if !strings.Contains(accepted, ";") {
			continue
		}
		_, parameters, err := mime.ParseMediaType(accepted)
		if err == nil && strings.EqualFold(parameters["ieee754compatible"], "true") {
			return true
		}
	}
	return false
}

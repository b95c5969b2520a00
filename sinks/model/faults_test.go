package model_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tidemark/sinks"
)

func status(code int, retryAfter, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// hang reads the request first: only then a server notices that the client has gone.
func hang(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "500")
	fmt.Fprint(w, `{"outputs":[`)
}

// column answers with one output of KServe.
func column(shape, data string) http.HandlerFunc {
	return answer(`{"outputs":[{"name":"x","shape":` + shape + `,"datatype":"FP32","data":` + data + `}]}`)
}

// Each fault and what it means for the one file: rejected, later, or again.
func TestFaults(t *testing.T) {
	redirected := httptest.NewServer(http.HandlerFunc(double))
	defer redirected.Close()
	for name, test := range map[string]struct {
		rule    string
		handler http.HandlerFunc
		want    string // its class and a part of its text; empty: applied
	}{
		"400":                 {kserve, status(400, "", `{"error":"bad shape"}`), "rejected 400 Bad Request: bad shape"},
		"422 of another form": {kserve, status(422, "", `{"detail":"no"}`), `rejected 422 Unprocessable Entity: {"detail":"no"}`},
		"413":                 {tensorFlow, status(413, "", ""), "rejected 413 Request Entity Too Large"},
		"401":                 {kserve, status(401, "", ""), "again 401"},
		"404":                 {tensorFlow, status(404, "", `{"error":"Servable not found"}`), "again 404 Not Found: Servable not found"},
		"408":                 {kserve, status(408, "", ""), "again 408"},
		"425":                 {kserve, status(425, "", ""), "again 425"},
		"429":                 {kserve, status(429, "", ""), "later 0s"},
		"429 with a pause":    {kserve, status(429, "30", ""), "later 30s"},
		"503 with a pause":    {tensorFlow, status(503, "2", ""), "later 2s"},
		"503 with a day":      {kserve, status(503, "86400", ""), "later 1h0m0s"},
		"503 with nonsense":   {kserve, status(503, "soon", ""), "later 0s"},
		"500":                 {kserve, status(500, "", `{"error":"out of memory"}`), "later 0s"},
		"redirect": {
			kserve, http.RedirectHandler(redirected.URL, http.StatusTemporaryRedirect).ServeHTTP, "again 307",
		},
		"hangs":                {kserve, hang, "again deadline exceeded"},
		"cut":                  {kserve, cut, "again unexpected EOF"},
		"half a JSON":          {kserve, answer(`{"outputs":[`), "again unexpected EOF"},
		"no body":              {kserve, answer(""), "again EOF"},
		"a page":               {kserve, answer("<html>"), "again invalid character"},
		"NaN":                  {kserve, column("[1]", "[NaN]"), "rejected NaN"},
		"-Infinity":            {tensorFlow, answer(`{"outputs":[-Infinity]}`), "rejected Infinity"},
		"null for NaN":         {kserve, column("[1]", "[null]"), "rejected finite"},
		"null in a row":        {tensorFlow, answer(`{"outputs":[[1,null]]}`), "rejected finite"},
		"too large a number":   {tensorFlow, answer(`{"outputs":[1e999]}`), "rejected finite"},
		"two for one":          {kserve, column("[2]", "[1,2]"), "rejected shape [2]"},
		"none for one":         {tensorFlow, answer(`{"outputs":[]}`), "rejected each of 1 files"},
		"fewer than the shape": {kserve, column("[1,3]", "[1,2]"), "rejected shape [1 3] and 2 values"},
		"a shape that overflows": {
			kserve, column("[1,4294967296,4294967297,4294967296]", "[1]"), "rejected shape",
		},
		"a negative shape": {kserve, column("[1,-1]", "[1]"), "rejected shape"},
		"no shape":         {kserve, column("[]", "[1]"), "rejected shape"},
		"no outputs":       {kserve, answer(`{"model_name":"m"}`), "rejected no outputs"},
		"empty outputs":    {kserve, answer(`{"outputs":[]}`), "rejected want the outputs"},
		"another form":     {kserve, answer(`{"outputs":{"x":[1]}}`), "rejected cannot unmarshal"},
		"huge":             {kserve, column("[1,200000]", "["+strings.Repeat("0,", 199999)+"0]"), "rejected more than 262144 bytes"},
		"an empty row":     {kserve, column("[1,0,4]", "[]"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink, published := start(t, test.rule, ", deadline: 300ms", test.handler)
			begin := time.Now()
			got := class(sink.Deliver(t.Context(), files(t, 5)))
			wantClass, part, _ := strings.Cut(test.want, " ")
			if gotClass, text, _ := strings.Cut(got, " "); gotClass != wantClass || !strings.Contains(text, part) {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if n := len(published.all(t)); (n == 1) != (test.want == "") {
				t.Errorf("%d predictions", n)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %v, the deadline is 300 ms", took)
			}
		})
	}
}

func class(err error) string {
	partial, _ := errors.AsType[*sinks.Partial](err)
	later, isLater := errors.AsType[*sinks.Later](err)
	switch {
	case err == nil:
		return ""
	case isLater:
		return "later " + later.Pause.String()
	case partial == nil:
		return "again " + err.Error()
	}
	for _, why := range partial.Rejected {
		return "rejected " + why.Answer
	}
	return "nothing"
}

// A time as Retry-After.
func TestRetryAfterTime(t *testing.T) {
	at := time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)
	sink, _ := start(t, kserve, "", status(429, at, ""))
	later, ok := errors.AsType[*sinks.Later](sink.Deliver(t.Context(), files(t, 5)))
	if !ok || later.Pause < 10*time.Second || later.Pause > 20*time.Second {
		t.Errorf("got %v", later)
	}
}

func TestCheck(t *testing.T) {
	t.Setenv("TOKEN", "Bearer s3cret")
	const header = ", headers: [{name: Authorization, value_env: TOKEN}]"
	serve := func(paths map[string]string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, ok := paths[r.URL.Path]
			switch {
			case r.Header.Get("Authorization") != "Bearer s3cret":
				w.WriteHeader(http.StatusUnauthorized)
			case !ok:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprint(w, body)
		}
	}
	metadata := `{"name":"m","inputs":[{"name":"size","datatype":"INT64","shape":[-1]}],"outputs":[]}`
	for name, test := range map[string]struct {
		rule, more string
		paths      map[string]string
		want       string
	}{
		"kserve":             {kserve, header, map[string]string{"/v2/models/m": metadata, "/v2/models/m/ready": ""}, ""},
		"kserve, no list":    {kserve, header, map[string]string{"/v2/models/m": `{"inputs":[]}`, "/v2/models/m/ready": ""}, ""},
		"kserve, not loaded": {kserve, header, map[string]string{"/v2/models/m": metadata}, "/v2/models/m/ready answers 503"},
		"kserve, no token":   {kserve, "", map[string]string{"/v2/models/m": metadata}, "answers 401 Unauthorized"},
		"kserve, other input": {
			kserve, header,
			map[string]string{"/v2/models/m": strings.Replace(metadata, "INT64", "FP32", 1), "/v2/models/m/ready": ""},
			"the model has no input size of datatype INT64",
		},
		"tensorflow":          {tensorFlow, header, map[string]string{"/v1/models/m": `{"model_version_status":[{"version":"1","state":"END"},{"version":"2","state":"AVAILABLE"}]}`}, ""},
		"tensorflow, loading": {tensorFlow, header, map[string]string{"/v1/models/m": `{"model_version_status":[{"version":"1","state":"LOADING"}]}`}, "AVAILABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			sink, _ := start(t, test.rule, test.more, serve(test.paths))
			switch err := sink.Check(t.Context()); {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) ||
				!strings.HasPrefix(err.Error(), "--model-rules: rule r: ") || strings.Contains(err.Error(), "s3cret")):
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

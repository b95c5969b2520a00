package search

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"tidemark/sinks"
)

// serverForTest returns a sink whose server answers as the handler does.
func serverForTest(t *testing.T, handler http.HandlerFunc) *Sink {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return sinkForTest(t, Config{URL: server.URL, Username: "writer", Password: "geheim"})
}

func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// items is the answer to a bulk request with an item of each status.
func items(statuses ...int) string {
	var all []string
	for _, status := range statuses {
		item := fmt.Sprintf(`{"index":{"status":%d}}`, status)
		if status >= 400 {
			item = fmt.Sprintf(`{"index":{"status":%d,"error":{"type":"some_exception","reason":"reason %[1]d",`+
				`"caused_by":{"type":"t","reason":"the cause"}}}}`, status)
		}
		all = append(all, item)
	}
	return `{"items":[` + strings.Join(all, ",") + `]}`
}

func files(t *testing.T, count int) (batch []*sinks.Record) {
	t.Helper()
	for i := range count {
		batch = append(batch, record(t, active("ws", fmt.Sprint("f", i), 1, "/a.pdf")))
	}
	return batch
}

// Each item of a bulk answer has its own outcome.
func TestItems(t *testing.T) {
	batch := files(t, 9)
	err := serverForTest(t, answer(200, items(201, 409, 429, 400, 503, 200, 404, 403, 422))).Deliver(t.Context(), batch)
	partial, ok := errors.AsType[*sinks.Partial](err)
	if !ok {
		t.Fatal(err)
	}
	if want := []*sinks.Record{batch[2], batch[4], batch[6], batch[7]}; !slices.Equal(partial.Again, want) {
		t.Errorf("again %d, want %d in the order of the batch", len(partial.Again), len(want))
	}
	if r := partial.Rejected[batch[3]]; len(partial.Rejected) != 2 || partial.Rejected[batch[8]] == nil ||
		r.Answer != "400 some_exception: reason 400: t: the cause" {
		t.Errorf("rejected %v: %v", partial.Rejected, r)
	}
	if partial.Err == nil {
		t.Error("the error does not say why records are delivered again")
	}
	if err := serverForTest(t, answer(200, items(201, 409))).Deliver(t.Context(), batch[:2]); err != nil {
		t.Error(err)
	}
}

// None of these answers says anything of a record, so all are delivered again.
func TestWholeRequestFails(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"429":             answer(429, `{"error":{"type":"rejected","reason":"busy"}}`),
		"503":             answer(503, `no text of OpenSearch`),
		"503 bad pause":   answer(503, ``, "Retry-After", "soon"),
		"500":             answer(500, `{"error":"a string"}`),
		"401":             answer(401, ``),
		"403":             answer(403, ``),
		"404":             answer(404, `{"error":{"type":"index_not_found_exception","reason":"no such index"}}`),
		"not JSON":        answer(200, `<html>welcome</html>`),
		"empty":           answer(200, ``),
		"other JSON":      answer(200, `{"acknowledged":true}`),
		"too few items":   answer(200, items(201)),
		"too many items":  answer(200, items(201, 201, 201)),
		"no status":       answer(200, `{"items":[{"index":{}},{"create":{"status":201}}]}`),
		"too large":       answer(200, `{"items":[`+strings.Repeat(" ", maxAnswer)+`]}`),
		"cut":             answer(200, items(201, 201), "Content-Length", "100000"),
		"closed":          func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"never completes": hang,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := serverForTest(t, handler).Deliver(ctx, files(t, 2))
			_, rejected := errors.AsType[*sinks.Rejected](err)
			_, partial := errors.AsType[*sinks.Partial](err)
			later, _ := errors.AsType[*sinks.Later](err)
			if err == nil || rejected || partial || later != nil && later.Pause > 0 {
				t.Errorf("%T %v, want an error that is retried", err, err)
			}
			if strings.Contains(fmt.Sprint(err), "geheim") {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}

// hang sends half of an answer, and ends when the client has gone.
func hang(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, items(201, 201)[:20])
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func TestRetryAfter(t *testing.T) {
	date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "9999999999": time.Hour, date: 90 * time.Second,
	} {
		err := serverForTest(t, answer(429, ``, "Retry-After", value)).Deliver(t.Context(), files(t, 1))
		later, ok := errors.AsType[*sinks.Later](err)
		if !ok || (later.Pause-want).Abs() > 5*time.Second {
			t.Errorf("Retry-After %s: %v, want %v", value, err, want)
		}
	}
}

// The loop halves a batch that is too large, or that the server cannot parse, down to the one record that is at fault.
func TestWholeRequestRefused(t *testing.T) {
	for status, body := range map[int]string{413: `<html>nginx</html>`, 400: `{"error":{"type":"parse_exception"}}`} {
		err := serverForTest(t, answer(status, body)).Deliver(t.Context(), files(t, 2))
		rejected, ok := errors.AsType[*sinks.Rejected](err)
		if !ok || !strings.Contains(rejected.Answer, fmt.Sprint(status)) {
			t.Errorf("%T %v", err, err)
		}
	}
}

// Check says that waiting may help.
func TestCheckBusy(t *testing.T) {
	for _, status := range []int{429, 503} {
		err := serverForTest(t, answer(status, ``)).Check(t.Context())
		if later, ok := errors.AsType[*sinks.Later](err); !ok || later.Pause != 0 {
			t.Errorf("%d: %T %v", status, err, err)
		}
	}
}

// A redirect is not followed: it would give the password and the documents to another host.
func TestRedirect(t *testing.T) {
	var followed bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer other.Close()
	for _, status := range []int{302, 307, 308} {
		err := serverForTest(t, answer(status, ``, "Location", other.URL)).Deliver(t.Context(), files(t, 1))
		if err == nil || followed {
			t.Errorf("%d: %v, followed %v", status, err, followed)
		}
	}
}

// A batch is one request, with the credentials.
func TestRequest(t *testing.T) {
	requests := 0
	err := serverForTest(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		if user, password, _ := r.BasicAuth(); user != "writer" || password != "geheim" {
			t.Error("without the credentials")
		}
		answer(200, items(201, 201, 201))(w, r)
	}).Deliver(t.Context(), files(t, 3))
	if err != nil || requests != 1 {
		t.Errorf("%d requests, %v", requests, err)
	}
}

// Without a valid record there is nothing to send: a server refuses an empty request.
func TestOnlyInvalidRecords(t *testing.T) {
	s := serverForTest(t, func(http.ResponseWriter, *http.Request) { t.Error("a request") })
	bad := &sinks.Record{Value: []byte("{")}
	if rejected := deliverAll(t, s, bad); len(rejected) != 1 || rejected[0] != bad {
		t.Errorf("%d rejected", len(rejected))
	}
}

// A query never answers with a part, or with a file of another workspace.
func TestHostileAnswerToQuery(t *testing.T) {
	other := `{"hits":{"hits":[{"_source":{"workspace_id":"other","file_id":"f","status":"active","version":1}}]}}`
	for _, body := range []string{`{}`, `{"hits":null}`, `{"timed_out":true,"hits":{"hits":[]}}`, `[`, other} {
		page, err := serverForTest(t, answer(200, body)).Search(t.Context(), Query{Workspace: "ws"})
		if err == nil || len(page.Files) > 0 {
			t.Errorf("%s: %v", body, page)
		}
	}
}

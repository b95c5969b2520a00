package views

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// withFiles returns a fixture whose listing is longer than minCompressed.
func withFiles(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	for i := range 20 {
		f.put(fileRow("ws", fmt.Sprintf("f%02d", i), "/a", isActive, 3))
	}
	row := &tidemarkv1.WorkspaceState{WorkspaceId: "ws", Files: 20, ByType: map[string]int64{}}
	for i := range 100 {
		row.ByType[fmt.Sprintf("application/type-%d", i)] = int64(i + 1)
	}
	f.putWorkspace(row)
	return f
}

func unzip(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestCompression(t *testing.T) {
	f := withFiles(t)
	for header, want := range map[string]string{
		"gzip": "gzip", "GZip;q=0.5": "gzip", "br, gzip": "gzip", "*": "gzip", "x-gzip": "gzip", "gzip, identity": "gzip",
		"br, gzip;q=0.5": "gzip", "GZIP;q=1.0": "gzip", "identity, x-gzip2": "",
		"": "", "identity": "", "br": "", "gzip;q=0": "", "*;q=0": "", "gzip;q=0, *": "", "gzip; q=0.0": "",
		"gzip;q=0.5, identity;q=0.8": "", "gzip;q=x": "", "gzips": "", "*, gzip;q=0": "",
	} {
		for _, target := range []string{"/v1/workspaces/ws", "/v1/workspaces/ws/files", "/openapi.json"} {
			w := f.get(target, "Accept-Encoding", header)
			body := w.Body.Bytes()
			if got := w.Header().Get("Content-Encoding"); got != want {
				t.Errorf("%s with Accept-Encoding %q: encoded by %q, want %q", target, header, got, want)
				continue
			}
			if w.Header().Get("Content-Length") != fmt.Sprint(len(body)) ||
				!slices.Contains(w.Header().Values("Vary"), "Accept, Accept-Encoding") {
				t.Errorf("%s: %v", target, w.Header())
			}
			if want == "gzip" {
				body = unzip(t, body)
			}
			if !json.Valid(body) || len(body) < minCompressed {
				t.Errorf("%s with Accept-Encoding %q: %s", target, header, body)
			}
		}
	}
	f.put(fileRow("ws", "long", "/"+strings.Repeat("p", 2000), isActive, 3))
	w := f.get("/v1/workspaces/ws/files/long", "Accept-Encoding", "gzip")
	if w.Header().Get("Content-Encoding") != "" || w.Header().Get("ETag") != `"3"` {
		t.Errorf("a file of %d bytes: %v", w.Body.Len(), w.Header())
	}
}

// HEAD has the status and headers of GET, of every resource, and no body.
func TestHeadIsGetWithoutABody(t *testing.T) {
	f := withFiles(t)
	for _, r := range f.routeList() {
		if !slices.Contains(r.methods, http.MethodGet) {
			continue
		}
		if !slices.Contains(r.methods, http.MethodHead) {
			t.Errorf("%s has no HEAD", r.template)
		}
		for _, workspace := range []string{"ws", "nothing-here"} {
			target := strings.Replace(targetOf(r, workspace), "/files/a", "/files/f01", 1)
			if strings.HasSuffix(target, "/notices") {
				continue // its GET does not end
			}
			for _, encoding := range []string{"", "gzip"} {
				get := f.get(target, "Accept-Encoding", encoding)
				head := f.do(http.MethodHead, target, "Accept-Encoding", encoding)
				if strings.HasSuffix(target, "/files") || strings.HasSuffix(target, "/changes") {
					for _, h := range []http.Header{get.Header(), head.Header()} {
						h.Del("Content-Length") // the cursors have a time
					}
				}
				if get.Code != head.Code || // net/http does not send its body
					!maps.EqualFunc(get.Header(), head.Header(), slices.Equal) {
					t.Errorf("%s:\nGET  %d %v\nHEAD %d %v", target, get.Code, get.Header(), head.Code,
						head.Header())
				}
			}
		}
	}
}

// A tag is of the plain JSON. That of any other form is weak, and each matches the others.
func TestTags(t *testing.T) {
	f := withFiles(t)
	const texts = "application/json;IEEE754Compatible=true"
	for _, target := range []string{
		"/v1/workspaces", "/v1/workspaces/ws", "/v1/workspaces/ws/files/f01", "/openapi.json",
	} {
		plain := f.get(target).Header().Get("ETag")
		if len(plain) < 3 || plain[0] != '"' {
			t.Errorf("%s: ETag %q", target, plain)
			continue
		}
		for _, headers := range [][]string{
			{}, {"Accept-Encoding", "gzip"}, {"Accept", texts}, {"Accept", texts, "Accept-Encoding", "gzip"},
		} {
			w := f.get(target, headers...)
			tag := w.Header().Get("ETag")
			isPlain := w.Header().Get("Content-Encoding") == "" && w.Header().Get("Content-Type") == jsonType
			if tag != plain && (isPlain || tag != "W/"+plain) {
				t.Errorf("%s with %v: ETag %s, and %s of the plain JSON", target, headers, tag, plain)
			}
			for _, sent := range []string{plain, "W/" + plain, `"x", W/` + plain, "*"} {
				w := f.get(target, append(slices.Clone(headers), "If-None-Match", sent)...)
				h := w.Header()
				if w.Code != 304 || w.Body.Len() > 0 || h.Get("ETag") != tag || h.Get("Content-Encoding") != "" ||
					h.Get("Content-Type") != "" || h.Get("Vary") == "" {
					t.Errorf("%s, If-None-Match %s: %d %v", target, sent, w.Code, h)
				}
			}
			if w := f.get(target, append(slices.Clone(headers), "If-None-Match", `"x", W/"y"`)...); w.Code != 200 {
				t.Errorf("%s, another tag: %d", target, w.Code)
			}
		}
	}
	f.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: "ws", Files: 21})
	before := f.get("/v1/workspaces/ws").Header().Get("ETag")
	f.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: "ws", Files: 22, Events: 1})
	if after := f.get("/v1/workspaces/ws").Header().Get("ETag"); after == before {
		t.Errorf("a workspace that has changed still has the tag %s", after)
	}
	if w := f.get("/v1/workspaces/none", "If-None-Match", "*"); w.Code != 404 {
		t.Errorf("a workspace that does not exist: %d", w.Code)
	}
}

// A diff is streamed and compressed; events are not compressed.
func TestCompressedStream(t *testing.T) {
	f := withFiles(t)
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	read := func(method, path, body string, header ...string) (http.Header, []byte) {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", "gzip")
		for i := 0; i < len(header); i += 2 {
			request.Header.Set(header[i], header[i+1])
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if method == "POST" {
			all, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			return response.Header, all
		}
		some := make([]byte, 16)
		if _, err := io.ReadFull(response.Body, some); err != nil {
			t.Fatal(err)
		}
		return response.Header, some
	}
	h, body := read("POST", "/v1/workspaces/ws/changes/diff", `{"files":[]}`)
	var d struct{ New []json.RawMessage }
	if h.Get("Content-Encoding") != "gzip" || json.Unmarshal(unzip(t, body), &d) != nil || len(d.New) != 20 {
		t.Errorf("%v %q", h, body)
	}
	h, body = read("GET", "/v1/workspaces/ws/changes", "", "Accept", "text/event-stream")
	if h.Get("Content-Encoding") != "" || !strings.HasPrefix(string(body), "event: change") {
		t.Errorf("%v %q", h, body)
	}
}

func TestOptions(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(*http.Request, string) (bool, error) { t.Error("OPTIONS needs a token"); return false, nil }
	})
	for _, r := range f.routeList() {
		w := f.do(http.MethodOptions, targetOf(r, "ws"))
		for _, method := range append(slices.Clone(r.methods), http.MethodOptions) {
			if !slices.Contains(strings.Split(w.Header().Get("Allow"), ", "), method) {
				t.Errorf("%s: Allow %q has no %s", r.template, w.Header().Get("Allow"), method)
			}
		}
		if w.Code != http.StatusNoContent || w.Body.Len() > 0 {
			t.Errorf("%s: %d %s", r.template, w.Code, w.Body)
		}
	}
	if n := f.answered("/v1/status", "204"); n != 1 {
		t.Errorf("%g requests are counted", n)
	}
}

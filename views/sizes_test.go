package views

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func TestSizesAsText(t *testing.T) {
	for in, want := range map[string]string{
		``:                                  ``,
		`{"size":9007199254740993}`:         `{"size":"9007199254740993"}`,
		`{"size":0,"version":3,"bytes":-1}`: `{"size":"0","version":3,"bytes":"-1"}`,
		`[{"size":1},{"bytes":2}]`:          `[{"size":"1"},{"bytes":"2"}]`,
		`{"name":"\"size\":1","path":"size","size":5}`:             `{"name":"\"size\":1","path":"size","size":"5"}`,
		`{"name":"a\\","size":5}`:                                  `{"name":"a\\","size":"5"}`,
		`{"by_type":{"size":1,"a/b":2},"bytes":3}`:                 `{"by_type":{"size":1,"a/b":2},"bytes":"3"}`,
		`{"payload":{"a":"}","size":[{}]},"after":{"size":1}}`:     `{"payload":{"a":"}","size":[{}]},"after":{"size":"1"}}`,
		`{"changed":{"size":{"from":1,"to":2},"mime":{"from":3}}}`: `{"changed":{"size":{"from":"1","to":"2"},"mime":{"from":3}}}`,
		`{"changed":{"size":{"from":null,"to":2}},"files":4}`:      `{"changed":{"size":{"from":null,"to":"2"}},"files":4}`,
		`{"bytes_added":1,"bytes_removed":2,"added":3}`:            `{"bytes_added":"1","bytes_removed":"2","added":3}`,
		`{"payload":null,"size":1}`:                                `{"payload":null,"size":"1"}`,
		`{"size":null,"bytes":"x"}`:                                `{"size":null,"bytes":"x"}`,
		"event: change\nid: size\ndata: {\"size\":7}\n\n":          "event: change\nid: size\ndata: {\"size\":\"7\"}\n\n",
		`],"gone":["size"],"new":[`:                                `],"gone":["size"],"new":[`,
		`{"predictions":{"r":{"outputs":{"size":1}}},"bytes":1}`:   `{"predictions":{"r":{"outputs":{"size":1}}},"bytes":"1"}`,
	} {
		if got := string(sizesAsText([]byte(in))); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

const large = 1<<53 + 1

// The sizes of every answer are strings on request, and only then.
func TestEveryAnswerHasSizesAsText(t *testing.T) {
	f := newFixture(t)
	row := fileRow("ws", "a", "/a", isActive, 3)
	row.Size = proto.Int64(large)
	f.put(row)
	f.putWorkspace(&tidemarkv1.WorkspaceState{WorkspaceId: "ws", Files: 1, Bytes: large})
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	for _, c := range []struct{ method, path, media string }{
		{"GET", "/v1/workspaces", "application/json"},
		{"GET", "/v1/workspaces/ws", "application/json"},
		{"GET", "/v1/workspaces/ws/files", "application/json"},
		{"GET", "/v1/workspaces/ws/files/a", "application/json"},
		{"GET", "/v1/workspaces/ws/changes", "application/json"},
		{"POST", "/v1/workspaces/ws/changes/diff", "application/json"},
		{"GET", "/v1/workspaces/ws/changes", "text/event-stream"},
	} {
		for accept, want := range map[string]string{
			c.media: `:9007199254740993`, c.media + ";IEEE754Compatible=true": `:"9007199254740993"`,
			"text/html, " + c.media + "; ieee754compatible=TRUE;q=0.5": `:"9007199254740993"`,
			c.media + ";IEEE754Compatible=false":                       `:9007199254740993`,
		} {
			request, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path,
				strings.NewReader(`{"files":[]}`))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Accept", accept)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(response.Body)
			found := ""
			for found == "" && lines.Scan() {
				if strings.Contains(lines.Text(), "900719925474") {
					found = lines.Text()
				}
			}
			response.Body.Close()
			found = strings.TrimPrefix(found, "data: ")
			if !strings.Contains(found, want) || !json.Valid([]byte(found)) {
				t.Errorf("%s %s with Accept %s: %s", c.method, c.path, accept, found)
			}
			asks := strings.Contains(want, `"`) && c.media == jsonType
			if got := response.Header.Get("Content-Type"); strings.Contains(got, ";IEEE754Compatible=true") != asks {
				t.Errorf("%s with Accept %s: Content-Type %s", c.path, accept, got)
			}
		}
	}
}

package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChangesAreReadToTheEnd(t *testing.T) {
	url, asked := api(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			w.Write([]byte(`{"changes":[{"op":"upsert","version":3,"file":{"file_id":"2abc","path":"/a/q3.pdf",` +
				`"status":"active"}}],"cursor":"c1","up_to_date":false}`))
		case "c1":
			w.Write([]byte(`{"changes":[{"op":"delete","file_id":"f2","version":4}],"cursor":"c2","up_to_date":true}`))
		default:
			w.WriteHeader(410)
			w.Write([]byte(`{"title":"Gone","code":"cursor_expired","detail":"list the files again"}`))
		}
	})
	out, errs, code := tidemark(t, "changes", "a/b", "--api-url", url, "--path-prefix", "/a")
	const want = "upsert  2abc  v3  active  /a/q3.pdf\ndelete  f2  v4  -  -\n"
	if code != 0 || out != want || !strings.Contains(errs, "--cursor c2") {
		t.Errorf("exit %d, output:\n%s%s", code, out, errs)
	}
	if d := cmp.Diff([]string{
		"/v1/workspaces/a%2Fb/changes?path_prefix=%2Fa&status=active",
		"/v1/workspaces/a%2Fb/changes?cursor=c1&path_prefix=%2Fa&status=active",
	}, *asked); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	if out := succeed(t, "changes", "w", "--api-url", url, "--cursor", "c1", "-o", "json"); out !=
		`{"op":"delete","file_id":"f2","version":4}`+"\n" {
		t.Errorf("json: %s", out)
	}
	// With --follow it goes on, here until the server refuses the cursor.
	_, errs, code = tidemark(t, "changes", "w", "--api-url", url, "--cursor", "c1", "--follow")
	if last := (*asked)[len(*asked)-1]; code != exitFailed || !strings.Contains(errs, "list the files again") ||
		last != "/v1/workspaces/w/changes?cursor=c2&status=active&wait=55s" {
		t.Errorf("exit %d, asked %s: %s", code, last, errs)
	}
}

// A restart of the server does not end --follow: it goes on from the same cursor.
func TestFollowSurvivesARestart(t *testing.T) {
	followPause = 10 * time.Millisecond
	t.Cleanup(func() { followPause = 2 * time.Second })
	requests := 0
	url, asked := api(t, func(w http.ResponseWriter, r *http.Request) {
		switch requests++; requests {
		case 1:
			w.Write([]byte(`{"changes":[{"op":"delete","file_id":"f1","version":4}],"cursor":"c2","up_to_date":true}`))
		case 2:
			w.WriteHeader(503)
			w.Write([]byte(`{"title":"Service Unavailable","code":"recovering","detail":"try again"}`))
		case 3:
			w.Header().Set("Content-Length", "100") // and then the connection is closed
			w.Write([]byte(`{"changes":[`))
		case 4:
			w.Write([]byte(`{"changes":[{"op":"delete","file_id":"f2","version":5}],"cursor":"c3","up_to_date":true}`))
		default:
			w.WriteHeader(410)
		}
	})
	out, errs, code := tidemark(t, "changes", "w", "--api-url", url, "--cursor", "c1", "--follow")
	if out != "delete  f1  v4  -  -\ndelete  f2  v5  -  -\n" || code != exitFailed || len(*asked) != 5 ||
		strings.Count(errs, "Trying again") != 2 {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	for i, cursor := range []string{"c1", "c2", "c2", "c2", "c3"} {
		if !strings.Contains((*asked)[i], "cursor="+cursor+"&") {
			t.Errorf("request %d: %s", i+1, (*asked)[i])
		}
	}
}

package views

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const changesOfWs = "/v1/workspaces/ws/changes"

// changes lists a page of changes as "+a/3" for an upsert and "-a/4" for a delete.
func changes(tb testing.TB, w *httptest.ResponseRecorder) (list string, a changesAnswer) {
	tb.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
		tb.Fatalf("%d %s (%v)", w.Code, w.Body, err)
	}
	var raw struct{ Changes []struct{ Version int64 } }
	if err := json.Unmarshal(w.Body.Bytes(), &raw); err != nil {
		tb.Fatal(err)
	}
	var all []string
	for i, c := range a.Changes {
		text := fmt.Sprintf("-%s/%d", c.FileID, raw.Changes[i].Version)
		if c.Op == "upsert" {
			text = fmt.Sprintf("+%s/%d", c.File.FileID, raw.Changes[i].Version)
		}
		all = append(all, text)
	}
	if a.Cursor == "" || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get(headerLag) == "" ||
		!strings.Contains(w.Body.String(), `"expires_at":"20`) {
		tb.Errorf("a page lacks something: %v %s", w.Header(), w.Body)
	}
	return strings.Join(all, " "), a
}

func TestChanges(t *testing.T) {
	f := newFixture(t)
	for _, row := range []*tidemarkv1.FileState{
		fileRow("ws", "a", "/d/a", isActive, 1),
		fileRow("ws", "b", "/d/b", isTrashed, 1),
		fileRow("ws1", "z", "/d/z", isActive, 1),
		fileRow("ws", "c", "/e/c", isActive, 1),
		fileRow("ws", "a", "/d/a", isActive, 2),
	} {
		f.put(row)
	}
	first, a := changes(t, f.get(changesOfWs+"?limit=1"))
	if first != "+c/1" || a.UpToDate {
		t.Errorf("the first page is %q, %+v", first, a)
	}
	if second, a := changes(t, f.get(changesOfWs+"?cursor="+a.Cursor)); second != "+a/2" || !a.UpToDate {
		t.Errorf("the second page is %q, %+v", second, a)
	}
	if all, _ := changes(t, f.get(changesOfWs+"?status=all")); all != "+b/1 +c/1 +a/2" {
		t.Errorf("status=all: %q", all)
	}
	_, in := changes(t, f.get(changesOfWs+"?path_prefix=/d/&cursor=latest"))
	_, all := changes(t, f.get(changesOfWs+"?cursor=latest"))
	f.put(fileRow("ws", "a", "/e/a", isActive, 3))
	f.put(fileRow("ws", "c", "/e/c", isErased, 2))
	f.put(fileRow("ws", "b", "/d/b", isActive, 2))
	if got, _ := changes(t, f.get(changesOfWs+"?path_prefix=/d/&cursor="+in.Cursor)); got != "-a/3 -c/2 +b/2" {
		t.Errorf("in /d/: %q", got)
	}
	got, a := changes(t, f.get(changesOfWs+"?cursor="+all.Cursor))
	if got != "+a/3 -c/2 +b/2" {
		t.Errorf("of all files: %q", got)
	}
	if got, next := changes(t, f.get(changesOfWs+"?cursor="+a.Cursor)); got != "" || !next.UpToDate {
		t.Errorf("then: %q, %+v", got, next)
	}
	for target, want := range map[string]string{
		changesOfWs + "?kind=all&cursor=" + a.Cursor:    codeBadCursor,
		changesOfWs + "?cursor=x":                       codeBadCursor,
		changesOfWs + "?since=x":                        codeBadField,
		changesOfWs + "?limit=0":                        codeBadField,
		"/v1/workspaces/ws1/changes?cursor=" + a.Cursor: codeBadCursor,
		"/v1/workspaces/nope/changes":                   codeUnknownWorkspace,
		"/v1/workspaces/nope/changes?cursor=latest":     codeUnknownWorkspace,
	} {
		if w := f.get(target); code(t, w) != want {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

// A page reads a bounded number of rows. It may be empty, and its cursor advances.
func TestEmptyPagesAdvance(t *testing.T) {
	f := newFixture(t)
	for i := range maxScanned + 10 {
		f.put(fileRow("ws", fmt.Sprintf("f%05d", i), "", isTrashed, 1))
	}
	f.put(fileRow("ws", "last", "", isActive, 1))
	none, a := changes(t, f.get(changesOfWs))
	if none != "" || a.UpToDate {
		t.Errorf("the first page: %q, %+v", none, a)
	}
	if last, a := changes(t, f.get(changesOfWs+"?cursor="+a.Cursor)); last != "+last/1" || !a.UpToDate {
		t.Errorf("the second page: %q, %+v", last, a)
	}
}

func TestChangesAreCompleteTo(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	f.put(fileRow("ws", "b", "/b", isActive, 1))
	p := kafka.Partition("ws", 4)
	f.now.eventsEnd[p], f.now.filesCommit[p], f.now.filesEnd[p] = 7, 7, 2
	f.poll()
	if _, a := changes(t, f.get(changesOfWs+"?limit=1")); a.CompleteTo != nil {
		t.Errorf("the first of two pages is complete to %v", a.CompleteTo)
	}
	_, a := changes(t, f.get(changesOfWs))
	if a.CompleteTo.GetOffset() != 6 || a.CompleteTo.GetPartition() != p {
		t.Errorf("complete to %v", a.CompleteTo)
	}
	for i := range 3 {
		f.put(fileRow("ws", fmt.Sprint(i), "/c", isActive, 1))
	}
	f.now.eventsEnd[p], f.now.filesCommit[p], f.now.filesEnd[p] = 9, 9, 5
	f.poll()
	if _, a = changes(t, f.get(changesOfWs+"?limit=2&cursor="+a.Cursor)); a.CompleteTo.GetOffset() != 6 {
		t.Errorf("a page that is not the last is complete to %v", a.CompleteTo)
	}
	f.Server.files.logID.Store(new(string)) // another events topic
	_, a = changes(t, f.get(changesOfWs+"?limit=1&cursor="+a.Cursor))
	if a.CompleteTo != nil && a.CompleteTo.GetOffset() == 6 {
		t.Errorf("complete to %v of another topic", a.CompleteTo)
	}
}

// Offsets of a deleted events topic say nothing about the one that replaced it, however long it is.
func TestChangesAreNotCompleteToARecreatedTopic(t *testing.T) {
	for _, end := range []int64{2, 20} {
		f := newFixture(t)
		f.put(fileRow("ws", "a", "/a", isActive, 1))
		p := f.partition("ws")
		f.now.eventsEnd[p], f.now.filesCommit[p], f.now.filesEnd[p] = 7, 7, 1
		f.poll()
		_, a := changes(t, f.get(changesOfWs))
		f.ids.events, f.now.eventsEnd[p], f.now.filesCommit[p] = "log-2", end, end
		f.progress.topicsDue = f.progress.topicsDue.Add(-topicsInterval)
		f.poll()
		if _, a := changes(t, f.get(changesOfWs+"?cursor="+a.Cursor)); a.CompleteTo != nil {
			t.Errorf("%d events: complete to %v before that is known", end, a.CompleteTo)
		}
		f.poll()
		if _, a := changes(t, f.get(changesOfWs+"?cursor="+a.Cursor)); a.CompleteTo.GetOffset() != end-1 {
			t.Errorf("complete to %v, want %d", a.CompleteTo, end-1)
		}
	}
}

// A copy whose topic was recreated is discarded. A page of it is not continued from the new one.
func TestARecreatedTableIsDiscarded(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	p := f.partition("ws")
	f.now.filesEnd[p] = 1
	f.poll()
	_, a := changes(t, f.get(changesOfWs))
	f.ids.files = "cluster/topic2"
	f.poll()
	if f.Server.files.recreated.Load() {
		t.Error("the ids are compared too often")
	}
	f.progress.topicsDue = time.Time{}
	f.poll()
	select {
	case why := <-f.Server.files.restart:
		if !f.Server.files.recreated.Load() || f.workspaces.recreated.Load() {
			t.Errorf("restarted: %s", why)
		}
	default:
		t.Fatal("the table is not discarded")
	}
	q := query{workspace: "ws", status: statusActive, kind: kindFile}
	at, err := q.decodeChangesCursor(a.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	f.Server.files.topicID.Store(&f.ids.files) // after the cursor was checked
	if _, err := f.readPage(p, q, at, 10); !errors.Is(err, errStoreNotReady) {
		t.Errorf("a cursor of the old topic: %v", err)
	}
	resync(t, f.get(changesOfWs+"?cursor="+a.Cursor))
}

// resync returns the URLs of an expired cursor.
func resync(t *testing.T, w *httptest.ResponseRecorder) map[string]string {
	t.Helper()
	var p struct{ Resync map[string]string }
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || code(t, w) != codeCursorExpired || w.Code != 410 ||
		w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return p.Resync
}

func TestExpiredCursors(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.CursorLifetime = time.Hour })
	f.put(fileRow("w/s", "a", "/a", isActive, 1))
	q := query{workspace: "w/s", status: statusAll, kind: kindFile, prefix: "/a b"}
	target := "/v1/workspaces/w%2Fs/changes?status=all&path_prefix=/a%20b"
	_, a := changes(t, f.get(target))
	at, err := q.decodeChangesCursor(a.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	old := at
	old.issued -= 3601
	urls := resync(t, f.get(target+"&cursor="+q.encodeChangesCursor(old)))
	if urls["list"] != "/v1/workspaces/w%2Fs/files?path_prefix=%2Fa+b&status=all" ||
		urls["diff"] != "/v1/workspaces/w%2Fs/changes/diff?path_prefix=%2Fa+b&status=all" {
		t.Errorf("resync with %v", urls)
	}
	if w := f.get(urls["list"]); w.Code != 200 {
		t.Errorf("%s: %d %s", urls["list"], w.Code, w.Body)
	}
	other := at
	other.topic[0]++
	urls = resync(t, f.get(target+"&cursor="+q.encodeChangesCursor(other)))
	if urls["list"] == "" || urls["diff"] != "" {
		t.Errorf("resync of another table with %v", urls)
	}

	beyond := at
	beyond.next, beyond.copied = 9, 9
	w := f.get(target + "&wait=10ms&cursor=" + q.encodeChangesCursor(beyond))
	if code(t, w) != codeNotReached || w.Header().Get("Retry-After") == "" { // a poll may be older than the cursor
		t.Errorf("of an instance that is ahead: %d %s", w.Code, w.Body)
	}
	p := f.partition("w/s")
	f.now.filesEnd[p] = 9
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 40 {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				f.poll()
			}
		}
	}()
	if w = f.get(target + "&wait=1500ms&cursor=" + q.encodeChangesCursor(beyond)); code(t, w) != codeNotReached {
		t.Errorf("of records that exist: %d %s", w.Code, w.Body)
	}
	close(stop)
	<-done
	f.now.filesEnd[p] = 1
	f.poll()
	go func() {
		time.Sleep(endConfirmedAfter + 50*time.Millisecond)
		f.poll()
	}()
	urls = resync(t, f.get(target+"&wait=1500ms&cursor="+q.encodeChangesCursor(beyond)))
	if urls["list"] == "" || urls["diff"] != "" {
		t.Errorf("resync of a table that ends before the cursor with %v", urls)
	}
}

// A copy that is behind the cursor answers once it has caught up.
func TestChangesWaitForTheCopy(t *testing.T) {
	ahead, behind := newFixture(t), newFixture(t)
	for _, f := range []*fixture{ahead, behind} {
		f.put(fileRow("ws", "a", "/a", isActive, 1))
	}
	ahead.put(fileRow("ws", "b", "/b", isActive, 1))
	_, a := changes(t, ahead.get(changesOfWs))
	ahead.put(fileRow("ws", "c", "/c", isActive, 1))
	got := make(chan *httptest.ResponseRecorder, 1)
	go func() { got <- behind.get(changesOfWs + "?cursor=" + a.Cursor) }()
	select {
	case w := <-got:
		t.Fatalf("answered %d %s", w.Code, w.Body)
	case <-time.After(50 * time.Millisecond):
	}
	behind.put(fileRow("ws", "b", "/b", isActive, 1))
	if list, _ := changes(t, <-got); list != "" {
		t.Errorf("lists %q again", list)
	}
	behind.put(fileRow("ws", "c", "/c", isActive, 1))
	if list, _ := changes(t, behind.get(changesOfWs+"?cursor="+a.Cursor)); list != "+c/1" {
		t.Errorf("continues with %q", list)
	}
}

// Pages of a listing, and of changes, leave out a file that was changed since: it is listed elsewhere. A copy that is
// behind such a page must not answer the next one, or the file would be in none.
func TestAnEarlierCopyDoesNotContinue(t *testing.T) {
	ahead, behind := newFixture(t), newFixture(t)
	for _, f := range []*fixture{ahead, behind} {
		f.put(fileRow("ws", "a", "/m/a", isActive, 1))
		f.put(fileRow("ws", "b", "/n", isActive, 1))
		f.put(fileRow("ws", "c", "/z", isActive, 1))
	}
	_, next := ids(t, behind.get("/v1/workspaces/ws/files?path_prefix=/&limit=1"))
	ahead.put(fileRow("ws", "c", "/a", isActive, 2)) // from after the cursor to before it
	var last changesAnswer
	w := ahead.get("/v1/workspaces/ws/files?path_prefix=/&cursor=" + next)
	if err := json.Unmarshal(w.Body.Bytes(), &last); err != nil || len(last.Files) != 1 || last.ChangesCursor == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := behind.get(changesOfWs + "?wait=0&path_prefix=/&cursor=" + last.ChangesCursor); w.Code != 503 {
		t.Errorf("after a listing: %d %s", w.Code, w.Body)
	}
	if got, _ := changes(t, ahead.get(changesOfWs+"?path_prefix=/&cursor="+last.ChangesCursor)); got != "+c/2" {
		t.Errorf("after a listing: %q", got)
	}
	_, page := changes(t, ahead.get(changesOfWs+"?limit=1"))
	if w := behind.get(changesOfWs + "?wait=0&cursor=" + page.Cursor); w.Code != 503 {
		t.Errorf("after a page: %d %s", w.Code, w.Body)
	}
}

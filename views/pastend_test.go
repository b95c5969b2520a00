package views

import (
	"testing"
	"time"
)

// A client that does not wait is answered 503 while the end of the table may be out of date, and 410 once it is
// confirmed.
func TestACursorPastTheEndExpiresWithoutAWait(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	_, page := changes(t, f.get(changesOfWs))
	q := query{workspace: "ws", status: statusActive, kind: kindFile}
	at, err := q.decodeChangesCursor(page.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	past := at
	past.next, past.copied = 9, 9
	target := changesOfWs + "?wait=0&cursor=" + q.encodeChangesCursor(past)
	f.now.filesEnd[f.partition("ws")] = 1
	f.poll()
	for range 2 {
		if w := f.get(target); code(t, w) != codeNotReached {
			t.Fatalf("before the end is confirmed: %d %s", w.Code, w.Body)
		}
	}
	time.Sleep(endConfirmedAfter)
	if w := f.get(target); code(t, w) != codeNotReached {
		t.Errorf("of an end that was read before: %d %s", w.Code, w.Body)
	}
	f.poll()
	if urls := resync(t, f.get(target)); urls["list"] == "" || urls["diff"] != "" {
		t.Errorf("resync with %v", urls)
	}
	past.copied = 10 // another instance may have read more since
	if w := f.get(changesOfWs + "?wait=0&cursor=" + q.encodeChangesCursor(past)); code(t, w) != codeNotReached {
		t.Errorf("of a later offset: %d %s", w.Code, w.Body)
	}
}

func TestPastEndsAreBounded(t *testing.T) {
	var p pastEnds
	first := p.firstUse(pastEnd{offset: 0})
	if again := p.firstUse(pastEnd{offset: 0}); again != first {
		t.Errorf("first used at %s, and then at %s", first, again)
	}
	for i := range int64(3 * maxPastEnds) {
		p.firstUse(pastEnd{offset: i})
		if len(p.first) > maxPastEnds {
			t.Fatalf("%d offsets are remembered", len(p.first))
		}
	}
}

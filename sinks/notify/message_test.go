package notify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func onlyMessage(t *testing.T, r *Rule, link string, notices ...*tidemarkv1.Notice) *Message {
	t.Helper()
	m, err := r.Message(notices, link)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func moved() *tidemarkv1.Notice {
	before, after := fileAt("/reports/q3.pdf"), fileAt("/old/q3.pdf")
	before.Size, after.Size, after.Status = proto.Int64(12), proto.Int64(18233), tidemarkv1.Status_STATUS_TRASHED
	n := noticeOf("file_moved", before, after)
	n.Late, n.Payload = true, []byte(`{"event":"x"}`)
	return n
}

func TestMessage(t *testing.T) {
	m := onlyMessage(t, &Rule{Name: "all", Quiet: quietOf(t, viennaNights)}, "", moved())
	want := `file moved: /old/q3.pdf
    path: /reports/q3.pdf → /old/q3.pdf
    size: 18233 bytes
    arrived late: newer changes were known already
    2026-09-25 23:40:11 CEST, by usr_1
    event workspace_storage_file_moved, evt_1
    tidemark get 123 2abc

Workspace 123. Sent by the rule all.
`
	if diff := cmp.Diff(want, m.Text); diff != "" {
		t.Error(diff)
	}
	if m.Subject != "file moved: /old/q3.pdf (workspace 123)" || m.ID != "123/evt_1/2abc" || m.Rule != "all" {
		t.Errorf("%q %q %q", m.Subject, m.ID, m.Rule)
	}
	for _, part := range []string{
		"<strong>file moved</strong>: <bdi>/old/q3.pdf</bdi>", "<code>tidemark get 123 2abc</code>",
		"2026-09-25 23:40:11 CEST",
	} {
		if !strings.Contains(m.HTML, part) {
			t.Errorf("no %q in\n%s", part, m.HTML)
		}
	}
}

func TestMessageWithoutFile(t *testing.T) {
	n := noticeOf("", nil, nil)
	n.Event, n.FileId, n.ActorId = "added_member_to_workspace", "", ""
	n.Member = &tidemarkv1.Member{Id: "usr_9"}
	m := onlyMessage(t, &Rule{Name: "all"}, "https://example.com/{workspace_id}/{file_id}", n)
	want := `added member to workspace
    member: usr_9
    2026-09-25 21:40:11 UTC, by somebody unknown
    event added_member_to_workspace, evt_1
    tidemark ls 123

Workspace 123. Sent by the rule all.
`
	if diff := cmp.Diff(want, m.Text); diff != "" || m.Subject != "added member to workspace (workspace 123)" {
		t.Errorf("%q %s", m.Subject, diff)
	}
	for notice, all := range map[*tidemarkv1.Notice]bool{
		noticeOf("folder_moved", folderAt("/a"), folderAt("/b")): true,
		noticeOf("folder_created", nil, folderAt("/a")):          false,
	} {
		if m := onlyMessage(t, &Rule{}, "", notice); strings.Contains(m.Text, "all that is in the folder") != all {
			t.Error(m.Text)
		}
	}
	named := noticeOf("file_added", nil, &tidemarkv1.FileState{Name: "only-a-name"})
	if m := onlyMessage(t, &Rule{}, "", named); !strings.HasPrefix(m.Subject, "file added: only-a-name (") {
		t.Error(m.Subject)
	}
	unnamed := noticeOf("file_added", nil, &tidemarkv1.FileState{})
	if m := onlyMessage(t, &Rule{}, "", unnamed); !strings.HasPrefix(m.Subject, "file added: 2abc (") {
		t.Error(m.Subject)
	}
}

// TestHostileMessage: what a sender writes is shown, and does nothing else.
func TestHostileMessage(t *testing.T) {
	name := "<script>alert(1)</script>\r\nBcc: all@example.com\n\n\u202egpj.exe\u2028\u200b\x00" +
		strings.Repeat("é", 4<<10)
	id := name[:codecs.MaxID]
	for _, n := range []*tidemarkv1.Notice{
		noticeOf("file_moved", fileAt(name), fileAt(name+"2")),
		noticeOf("file_moved", nil, &tidemarkv1.FileState{Name: name}),
		{OpId: "x", Event: id, EventId: id, WorkspaceId: id, FileId: id, ActorId: id, Member: &tidemarkv1.Member{Id: id}},
	} {
		m := onlyMessage(t, &Rule{Name: "all"}, "https://example.com/{file_id}", n)
		if strings.ContainsAny(m.Subject, "\r\n\x00\u202e\u2028\u200b") || len(m.Subject) > 2000 {
			t.Errorf("subject %q", m.Subject)
		}
		if strings.ContainsAny(m.Text+m.HTML, "\r\x00\u202e\u2028\u200b") || strings.Contains(m.Text, "\nBcc") {
			t.Errorf("text %q\nhtml %q", m.Text, m.HTML)
		}
		if strings.Contains(m.HTML, "<script") || len(m.HTML) > 10<<10 {
			t.Errorf("%d bytes of html\n%.2000s", len(m.HTML), m.HTML)
		}
	}
	if got, want := clean("\u202egpj.exe\t1\u00a02 👨\u200d👩 é"), `\u202egpj.exe\u00091`+"\u00a02 👨\u200d👩 é"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCommand(t *testing.T) {
	for want, ids := range map[string][2]string{
		"tidemark get 123 2abc":                  {"123", "2abc"},
		"tidemark ls 123":                        {"123", ""},
		"tidemark get -- 1 '--api-url=http://x'": {"1", "--api-url=http://x"},
		`tidemark get 1 'a;$(reboot)'`:           {"1", "a;$(reboot)"},
		`tidemark get '1 2' 'it'\''s'`:           {"1 2", "it's"},
	} {
		if got := command(ids[0], ids[1]); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestLink(t *testing.T) {
	n := noticeOf("file_added", nil, fileAt("/a"))
	n.FileId = "a/../b?c d"
	m := onlyMessage(t, &Rule{}, "https://example.com/w/{workspace_id}?file={file_id}", n)
	if want := "https://example.com/w/123?file=a%2F..%2Fb%3Fc+d"; !strings.Contains(m.Text, "    "+want+"\n") ||
		!strings.Contains(m.HTML, `<a href="`+strings.ReplaceAll(want, "+", "&#43;")+`">`) {
		t.Errorf("no %s in\n%s\n%s", want, m.Text, m.HTML)
	}
	for link, valid := range map[string]bool{
		"": true, "https://example.com/{workspace_id}/{file_id}": true, "http://127.0.0.1:8080/?f={file_id}": true,
		"example.com": false, "javascript:alert(1)": false, "https://example.com/{path}": false, "https://{file_id": false,
	} {
		if err := CheckLink(link); (err == nil) != valid {
			t.Errorf("%q: %v", link, err)
		}
	}
}

func TestMessagesOfADigest(t *testing.T) {
	var notices []*tidemarkv1.Notice
	for i := range 100 {
		n := moved()
		n.OpId = fmt.Sprintf("op%d", i)
		notices = append(notices, n)
	}
	r := &Rule{Name: "all", Digest: 15 * time.Minute}
	m := onlyMessage(t, r, "", notices...)
	got := fmt.Sprintf("%s %s: %d entries", m.ID, m.Subject, strings.Count(m.Text, "file moved"))
	if want := "op0//100 100 events in workspace 123: 100 entries"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if m := onlyMessage(t, r, "", moved()); m.Subject != "file moved: /old/q3.pdf (workspace 123)" ||
		m.ID != "123/evt_1/2abc//1" {
		t.Errorf("a digest of one: %s %s", m.ID, m.Subject)
	}
}

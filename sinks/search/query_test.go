package search

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                              nil,
		`* " \ ( ) [ ] { } ^ ~ ? : / .`: nil,
		"/Reports/Q3_final-v2.PDF":      {"reports", "q3", "final", "v2", "pdf"},
		"a AND b OR a":                  {"a", "and", "b", "or"},
		"re\u0301sume\u0301 RÉSUMÉ":     {"résumé"},
		"ﬁle ＡＢＣ":                       {"file", "abc"},
		"報告書 🎉 3½":                      {"報告書", "🎉", "31", "2"},
		strings.Repeat("é", 100) + "x":  {strings.Repeat("é", 64)},
	} {
		if got := words(text); !slices.Equal(got, want) {
			t.Errorf("%.40q: %q, want %q", text, got, want)
		}
	}
}

// fill delivers files whose content the queries below know.
func fill(t *testing.T, s *Sink) {
	t.Helper()
	photo := active("ws", "photo", 1, "/Photos/Beach AND sea.jpg")
	photo.Mime = "image/jpeg"
	bin := active("ws", "bin", 4, "/reports/old q3.pdf")
	bin.Status = tidemarkv1.Status_STATUS_TRASHED // not written by this release, but by one that may index the trash
	gone := active("ws", "gone", 4, "/reports/gone.pdf")
	gone.Status = tidemarkv1.Status_STATUS_ERASED
	upsert := func(f *tidemarkv1.FileState) *tidemarkv1.IndexOp {
		return &tidemarkv1.IndexOp{
			Op: tidemarkv1.IndexOp_OP_UPSERT, Id: tidemarkv1.JoinKey(f.GetWorkspaceId(), f.GetFileId()),
			WorkspaceId: f.GetWorkspaceId(), FileId: f.GetFileId(), Version: f.GetVersion(), File: f,
			Position: f.GetPosition(),
		}
	}
	deliverAll(t, s, record(t, photo), recordOf(t, upsert(bin)), recordOf(t, upsert(gone)),
		record(t, active("ws", "q3", 1, "/reports/q3.pdf")),
		record(t, active("ws", "q30", 1, "/reports/2026/q30_final.pdf")),
		record(t, active("ws", "long", 1, "/a/very/long/path/of/more/than/twenty/x.pdf")),
		record(t, active("ws", "emoji", 1, "/🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉/party.pdf")), record(t, trashed("ws", "t", 1)),
		record(t, active("w", "w", 1, "/reports/q3.pdf")), record(t, active("ws/", "s", 1, "/reports/q3.pdf")),
		record(t, active("ws*", "star", 1, "/reports/q3.pdf")))
}

func TestSearch(t *testing.T) {
	all := []string{"emoji", "long", "photo", "q3", "q30"}
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			fill(t, s)
			for _, c := range []struct {
				query Query
				want  []string
			}{
				{Query{}, all},
				{Query{Status: "all"}, append([]string{"bin"}, all...)},
				{Query{Status: "trashed"}, []string{"bin"}},
				{Query{Q: "q3"}, []string{"q3", "q30"}},
				{Query{Q: "rep q3"}, []string{"q3", "q30"}},
				{Query{Q: "Q3.PDF", Status: "all"}, []string{"bin", "q3", "q30"}},
				{Query{Q: "30"}, nil},
				{Query{Q: "/reports/2026"}, []string{"q30"}},
				{Query{Q: "final q30"}, []string{"q30"}},
				{Query{Q: "and"}, []string{"photo"}},
				{Query{Q: "beach AND nothing"}, nil},
				{Query{Q: "🎉"}, []string{"emoji"}},
				{Query{PathPrefix: "/rep"}, []string{"q3", "q30"}},
				{Query{PathPrefix: "/reports/2026/q30_final.pdf"}, []string{"q30"}},
				{Query{PathPrefix: "/a/very/long/path/of/m"}, []string{"long"}},
				{Query{PathPrefix: "/🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉"}, []string{"emoji"}},
				{Query{PathPrefix: "/Rep"}, nil},
				{Query{PathPrefix: "/*"}, nil},
				{Query{MIME: "image/jpeg"}, []string{"photo"}},
				{Query{MIME: "image/jpeg", Q: "q3"}, nil},
				{Query{Q: "*"}, nil},
				{Query{Q: "q*"}, []string{"q3", "q30"}}, // the star only separates
				{Query{Q: `"reports" \ (q3)`}, []string{"q3", "q30"}},
				{Query{Q: ".*"}, nil},
				{Query{Q: "q3 OR photo"}, nil},
				{Query{Q: "name:q3"}, nil},
				{Query{Q: `q3"}},{"match_all":{}}`}, nil},
				{Query{Q: strings.Repeat("q3 ", 3500)}, []string{"q3", "q30"}},
				{Query{Q: strings.Repeat("q", 10<<10)}, nil},
				{Query{Q: strings.Repeat("*a", 5<<10)}, []string{"long", "photo"}},
				{Query{PathPrefix: strings.Repeat("/", 100<<10)}, nil},
			} {
				c.query.Workspace = "ws"
				for _, limit := range []int{0, 1} {
					c.query.Limit = limit
					var got []string
					for _, file := range found(t, s, c.query) {
						got = append(got, file[:strings.Index(file, "@")])
					}
					if !slices.Equal(got, c.want) {
						t.Errorf("%.40q %+v: %q, want %q", c.query.Q, c.query.Limit, got, c.want)
					}
				}
			}
		})
	}
}

func TestSearchRefuses(t *testing.T) {
	s := embeddedForTest(t)
	for _, q := range []Query{
		{}, {Workspace: "ws", Status: "erased"}, {Workspace: "ws", Limit: -1}, {Workspace: "ws", Limit: 1001},
	} {
		if _, err := s.Search(t.Context(), q); err == nil || !strings.Contains(err.Error(), "want a workspace") {
			t.Errorf("%+v: %v", q, err)
		}
	}
	for _, cursor := range []string{"x", "AQ", "*", base64.RawURLEncoding.EncodeToString([]byte("\x02abc")), "AWE="} {
		if _, err := s.Search(t.Context(), Query{Workspace: "ws", Cursor: cursor}); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
}

// A file that changes between two pages is neither missed nor repeated.
func TestPagesWhileFilesChange(t *testing.T) {
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			want := []string{}
			for i := range 20 {
				deliverAll(t, s, record(t, active("ws", fmt.Sprintf("f%02d", i), 1, "/b.pdf")))
				want = append(want, fmt.Sprintf("f%02d", i))
			}
			var got []string
			q := Query{Workspace: "ws", Limit: 3}
			for version := int64(2); ; version++ {
				if err := s.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				page, err := s.Search(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range page.Files {
					_, id, _ := strings.Cut(string(f), `"file_id":"`)
					got = append(got, id[:3])
				}
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
				for i := range 20 {
					path := fmt.Sprintf("/%c.pdf", 'a'+(int(version)+i)%26)
					deliverAll(t, s, record(t, active("ws", fmt.Sprintf("f%02d", i), version, path)))
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

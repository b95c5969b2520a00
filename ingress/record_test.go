package ingress

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestRecordHeaders(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		event *tidemarkv1.Event
		want  map[string]string
	}{
		{
			"whole", &tidemarkv1.Event{
				Event: "workspace_storage_file_added", EventId: "evt_é", WorkspaceId: "123",
				FileId: "2a/b", OccurredAt: proto.Int64(1790372411_250000),
			},
			map[string]string{
				"ce_id": "evt_é", "ce_source": "fastio/123", "ce_type": "workspace_storage_file_added",
				"ce_subject": "2a/b", "ce_time": "2026-09-25T21:40:11.25Z",
			},
		},
		{
			"no file, no time", &tidemarkv1.Event{Event: "e", EventId: "1", WorkspaceId: "w"},
			map[string]string{"ce_id": "1", "ce_source": "fastio/w", "ce_type": "e"},
		},
		{
			"odd workspace", &tidemarkv1.Event{Event: "e", EventId: "1", WorkspaceId: "a/b %?#é:"},
			map[string]string{"ce_id": "1", "ce_source": "fastio/a%2Fb%20%25%3F%23%C3%A9:", "ce_type": "e"},
		},
		{
			"a time that RFC 3339 lacks",
			&tidemarkv1.Event{Event: "e", EventId: "1", WorkspaceId: "w", OccurredAt: proto.Int64(1 << 60)},
			map[string]string{"ce_id": "1", "ce_source": "fastio/w", "ce_type": "e"},
		},
	} {
		got := map[string]string{}
		headers := recordHeaders(test.event, http.Header{"Traceparent": {traced}})
		for _, h := range headers {
			got[h.Key] = string(h.Value)
		}
		byName := func(a, b kgo.RecordHeader) int { return strings.Compare(a.Key, b.Key) }
		if len(got) != len(headers) || !slices.IsSortedFunc(headers, byName) {
			t.Errorf("%s: want each header once, sorted: %v", test.name, headers)
		}
		test.want["ce_specversion"], test.want["content-type"] = "1.0", "application/json"
		test.want["traceparent"] = traced
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if _, err := url.Parse(got["ce_source"]); err != nil {
			t.Errorf("%s: ce_source: %v", test.name, err)
		}
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	made := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`)
	for _, test := range []struct {
		name   string
		header []string
		want   string // empty: a new one
	}{
		{"none", nil, ""},
		{"valid", []string{traced}, traced},
		{"spaced", []string{" " + traced + " "}, traced},
		{"a version to come", []string{"cc" + traced[2:] + "-more"}, traced},
		{"twice", []string{traced, traced}, ""},
		{"more after version 00", []string{traced + "-more"}, ""},
		{"short", []string{traced[:54]}, ""},
		{"version ff", []string{"ff" + traced[2:]}, ""},
		{"upper case", []string{"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, ""},
		{"no trace", []string{"00-00000000000000000000000000000000-b7ad6b7169203331-01"}, ""},
		{"no parent", []string{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"}, ""},
		{"dashes elsewhere", []string{"00-0af7651916cd43dd8448eb211c80319-cb7ad6b71692033310-1"}, ""},
		{"not ASCII", []string{"00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01"}, ""},
	} {
		got := string(traceparent(http.Header{"Traceparent": test.header}))
		if test.want != "" && got != test.want ||
			test.want == "" && (!made.MatchString(got) || !validTraceparent(got) || got[3:35] == traced[3:35]) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	if a, b := string(traceparent(nil)), string(traceparent(nil)); a == b {
		t.Errorf("two requests share the trace %s", a)
	}
}

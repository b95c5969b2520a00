package ingress

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemark/codecs"
	"tidemark/topology"
)

func TestParseAliases(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		list string
		want Aliases
		err  string
	}{
		{"", Aliases{}, ""},
		{"x=workspace_storage_file_moved", Aliases{"x": "workspace_storage_file_moved"}, ""},
		{" x = workspace_storage_file_moved ,y=share_storage_folder_deleted", Aliases{"x": "workspace_storage_file_moved", "y": "share_storage_folder_deleted"}, ""},
		{"guide", guide, ""},
		{"file.uploaded=share_storage_file_added,guide", Aliases{
			"file.uploaded": "share_storage_file_added", "file.modified": "workspace_storage_file_updated",
			"file_added":    "workspace_storage_file_added",
			"file_modified": "workspace_storage_file_updated", "workspace.member_added": "added_member_to_workspace",
		}, ""},
		{"x=membership_updated,x=membership_updated", Aliases{"x": "membership_updated"}, ""},
		{"x", nil, "want the name that is sent"},
		{"=membership_updated", nil, "want the name that is sent"},
		{"guides", nil, "want the name that is sent"},
		{"x=", nil, `"" is not known: want one of added_member_to_org, `},
		{"x=file_added", nil, `"file_added" is not known: want one of `},
		{"x=workspace_storage_file_added,x=workspace_storage_file_moved", nil, "also given as workspace_storage_file_added"},
		{"workspace_storage_file_added=workspace_storage_file_deleted", nil, "has a meaning of its own"},
		{"x\x00=membership_updated", nil, "no control characters"},
	} {
		var entries []string
		if test.list != "" {
			entries = strings.Split(test.list, ",")
		}
		got, err := ParseAliases(entries)
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", test.list, d)
		}
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: error %v, want %q", test.list, err, test.err)
		}
	}
	for from, to := range guide {
		if _, err := ParseAliases([]string{from + "=" + to}); err != nil {
			t.Error(err)
		}
	}
}

// The log says what a foreign name was taken for; the sender's bytes, and its own word on it, do not count.
func TestAliasesReachTheLog(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, func(c *Config) { c.Aliases = guide })
	for i, test := range []struct{ body, event, sent string }{
		{`{"event":"file.uploaded","workspace_id":"w","event_id":"1"}`, "workspace_storage_file_added", "file.uploaded"},
		{`{"eventType":"file.modified","workspace_id":"w","event_id":"2"}`, "workspace_storage_file_updated", "file.modified"},
		{`{"event":"file.accessed","canonical_event":"workspace_storage_file_deleted","workspace_id":"w","event_id":"3"}`, "file.accessed", ""},
		{`{"event":"file.uploaded","canonical_event":"workspace_storage_file_deleted","workspace_id":"w","event_id":"4"}`, "workspace_storage_file_added", "file.uploaded"},
		{`{"event":"workspace_storage_file_moved","canonical_event":7,"workspace_id":"w","event_id":"5"}`, "workspace_storage_file_moved", ""},
	} {
		if w := serve(s, post(t, test.body)); w.Code != 200 {
			t.Fatalf("%s: %d %s", test.body, w.Code, w.Body)
		}
		record := events.all()[i]
		e, err := codecs.ParseEvent(record.value)
		if err != nil || e.GetEvent() != test.event || e.GetSentEvent() != test.sent {
			t.Errorf("%s was read as %v, %v", record.value, e, err)
		}
		// else the record contradicts itself
		if got := string(record.headers[topology.HeaderEventType]); got != test.event {
			t.Errorf("%s: ce_type %q", test.body, got)
		}
		if test.sent != "" && !strings.Contains(string(record.value), `:"`+test.sent+`"`) {
			t.Errorf("%s: the sender's name is gone", record.value)
		}
	}
}

func TestResembles(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"workspace_storage_file_add": "workspace_storage_file_added", "file.uploaded": "workspace_storage_file_added",
		"file_added": "workspace_storage_file_added",
		"fileAdded":  "workspace_storage_file_added", "FILE-created": "workspace_storage_file_added",
		"share.file.removed": "share_storage_file_deleted", "file.renamed": "workspace_storage_file_moved",
		"folder.created": "workspace_storage_folder_created", "workspace.member_added": "added_member_to_workspace",
		"share_member_left":                   "removed_member_from_share",
		"workspace_storage_file_sync_removed": "workspace_storage_file_deleted",
		"org_member_joined":                   "added_member_to_org", "file_modified": "workspace_storage_file_updated",
		// the vendor's own that mean nothing for a file
		"workspace_storage_file_added": "", "file_share_created": "", "workspace_storage_link_added": "",
		"workspace_storage_zip_downloaded": "", "comment_created": "",
		"workspace_storage_download_token_created": "", "share_imported_to_workspace": "", "file.accessed": "",
		"metadata_kv_update": "", "invitation_accepted": "",
		"workspace_updated": "", "profile_updated": "", "": "", "file added": "", "file_added;x": "",
		"file_added,y": "",
	} {
		if got := Resembles(name); got != want {
			t.Errorf("%q resembles %q, want %q", name, got, want)
		}
		if got := Resembles(name); got != "" {
			if _, err := ParseAliases([]string{name + "=" + got}); err != nil {
				t.Errorf("an advised alias is refused: %v", err)
			}
		}
	}
}

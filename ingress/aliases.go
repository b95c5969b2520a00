package ingress

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Aliases map unknown event names to names that tidemark knows.
//
// The ingress applies them once and writes the known name into the record as canonical_event, beside the sender's. So
// every processor, rebuild and replay reads the same name, whatever its own settings are or were.
type Aliases map[string]string

// guideAliases is the entry for a predefined set: the names in the vendor's guides. Their file.accessed changes no
// file.
const guideAliases = "guide"

var guide = Aliases{
	"file.uploaded":          "workspace_storage_file_added",
	"file.modified":          "workspace_storage_file_updated",
	"file_added":             "workspace_storage_file_added",
	"file_modified":          "workspace_storage_file_updated",
	"workspace.member_added": "added_member_to_workspace",
}

// known are the event names that change a file, a folder or a member.
var known = func() (names []string) {
	for _, what := range []string{
		"file_added", "file_updated", "file_deleted", "file_moved", "file_copied", "file_restored", "file_sync_added",
		"file_sync_updated",
		"folder_created", "folder_updated", "folder_renamed", "folder_moved", "folder_deleted", "folder_restored",
	} {
		names = append(names, "workspace_storage_"+what, "share_storage_"+what)
	}
	for _, of := range []string{"org", "share", "workspace"} {
		names = append(names, "added_member_to_"+of, "removed_member_from_"+of)
	}
	names = append(names, "workspace_storage_file_version_restored", "membership_updated")
	slices.Sort(names)
	return names
}()

// KnownEvents returns the names that an alias may map to, sorted.
func KnownEvents() []string { return slices.Clone(known) }

// ParseAliases reads entries of the form from=to, and the word guide. An entry overrides the predefined set.
func ParseAliases(entries []string) (Aliases, error) {
	all, own := Aliases{}, Aliases{}
	for _, entry := range entries {
		entry = strings.TrimSpace(entry)
		if entry == guideAliases {
			maps.Copy(all, guide)
			continue
		}
		from, to, found := strings.Cut(entry, "=")
		from, to = strings.TrimSpace(from), strings.TrimSpace(to)
		_, isKnown := slices.BinarySearch(known, from)
		switch _, valid := slices.BinarySearch(known, to); {
		case !found || from == "":
			return nil, fmt.Errorf("%q: want the name that is sent, \"=\" and a known one, for example "+
				"file.uploaded=workspace_storage_file_added, or %s", entry, guideAliases)
		case len(from) > codecs.MaxID || strings.ContainsFunc(from, unicode.IsControl):
			return nil, fmt.Errorf("%.60q: a name has 1 to %d bytes and no control characters", entry, codecs.MaxID)
		case isKnown:
			return nil, fmt.Errorf("%q: %s has a meaning of its own, which cannot be changed", entry, from)
		case !valid:
			return nil, fmt.Errorf("%q: %q is not known: want one of %s", entry, to, strings.Join(known, ", "))
		case own[from] != "" && own[from] != to:
			return nil, fmt.Errorf("%q: %s is also given as %s: want one", entry, from, own[from])
		}
		own[from] = to
	}
	maps.Copy(all, own)
	return all, nil
}

// apply sets the event's canonical name. A canonical_event that the sender wrote is ignored.
func (a Aliases) apply(e *tidemarkv1.Event) {
	if sent := e.GetSentEvent(); sent != "" {
		e.Event, e.SentEvent = sent, ""
	}
	if to := a[e.GetEvent()]; to != "" {
		e.SentEvent, e.Event = e.GetEvent(), to
	}
}

// A verb is the beginning of a word in an unknown name, and the event it suggests.
type verb struct{ begin, what string }

// The verbs of files, folders and members; the first that a name contains decides.
var (
	fileWords = []verb{
		{"add", "file_added"},
		{"upload", "file_added"},
		{"creat", "file_added"},
		{"updat", "file_updated"},
		{"modif", "file_updated"},
		{"chang", "file_updated"},
		{"delet", "file_deleted"},
		{"remov", "file_deleted"},
		{"trash", "file_deleted"},
		{"mov", "file_moved"},
		{"renam", "file_moved"},
		{"cop", "file_copied"},
		{"restor", "file_restored"},
	}
	folderWords = []verb{
		{"creat", "folder_created"},
		{"add", "folder_created"},
		{"updat", "folder_updated"},
		{"renam", "folder_renamed"},
		{"mov", "folder_moved"},
		{"delet", "folder_deleted"},
		{"remov", "folder_deleted"},
		{"trash", "folder_deleted"},
		{"restor", "folder_restored"},
	}
	memberWords = []verb{
		{"add", "added_member_to_"},
		{"join", "added_member_to_"},
		{"remov", "removed_member_from_"},
		{"left", "removed_member_from_"},
	}
)

// plainName matches names that need no quoting in the setting or on a command line.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._:/-]+$`)

// Resembles returns the known name that an unknown one may stand for, or "": file.uploaded and fileAdded resemble
// workspace_storage_file_added.
func Resembles(name string) string {
	const ofAFile = "file_share_" // events of a share, not of its file
	if _, isKnown := slices.BinarySearch(known, name); isKnown || strings.HasPrefix(name, ofAFile) ||
		!plainName.MatchString(name) {
		return ""
	}
	words := wordsOf(name)
	scope := "workspace"
	for _, of := range [...]string{"share", "org"} {
		if slices.Contains(words, of) {
			scope = of
		}
	}
	storage := scope + "_storage_"
	if scope == "org" {
		storage = "workspace_storage_"
	}
	for _, kind := range [...]struct {
		noun, before, after string
		verbs               []verb
	}{{"folder", storage, "", folderWords}, {"file", storage, "", fileWords}, {"member", "", scope, memberWords}} {
		if !slices.Contains(words, kind.noun) {
			continue
		}
		for _, verb := range kind.verbs {
			if slices.ContainsFunc(words, func(word string) bool { return strings.HasPrefix(word, verb.begin) }) {
				return kind.before + verb.what + kind.after
			}
		}
	}
	return ""
}

// wordsOf splits file_added, file.added and fileAdded into the same words.
func wordsOf(name string) []string {
	var spaced strings.Builder
	lower := false
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r):
			r = ' '
		case unicode.IsUpper(r) && lower:
			spaced.WriteByte(' ')
		}
		lower = unicode.IsLower(r)
		spaced.WriteRune(unicode.ToLower(r))
	}
	return strings.Fields(spaced.String())
}

package committed

import "fmt"

// A ChangelogEnd is the changelog offset that the table had reached when the group committed: the rows of all records
// before the committed offset are in the changelog below it. Commits carry it in their metadata, because no broker can
// be asked for it later: a stale leader returns an old end of the changelog, and a table that was deleted and created
// again has no rows at all.
type ChangelogEnd struct {
	Table  string // TopicID of the table's topic, as text
	Offset int64
}

const changelogEndFormat = "changelog %s %d"

// Metadata returns e as the metadata of a commit.
func (e ChangelogEnd) Metadata() string { return fmt.Sprintf(changelogEndFormat, e.Table, e.Offset) }

// ParseChangelogEnd reads the metadata of a commit. Commits of other programs, and of earlier releases, have no
// changelog end.
func ParseChangelogEnd(metadata string) (e ChangelogEnd, found bool) {
	n, err := fmt.Sscanf(metadata, changelogEndFormat, &e.Table, &e.Offset)
	return e, err == nil && n == 2
}

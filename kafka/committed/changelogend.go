package committed

import "fmt"

// A Standing is how far a group's table reaches that belongs to a commit of the group: the rows below Next hold all that was
// folded before it. The commit's metadata says so, since nothing else that can be asked does: a partition's leader that is cut
// off from the other brokers, or has just woken, tells an end from before, and a table that was made anew has no rows at all.
type ChangelogEnd struct {
	Table  string // TopicID of the table, as text
	Offset int64
}

const changelogEndFormat = "changelog %s %d"

// Metadata returns the standing as a commit says it.
func (s ChangelogEnd) Metadata() string { return fmt.Sprintf(changelogEndFormat, s.Table, s.Offset) }

// StandingOf reads a commit's metadata. Those of other programs, and of releases before this, say nothing.
func ParseChangelogEnd(metadata string) (s ChangelogEnd, found bool) {
	n, err := fmt.Sscanf(metadata, changelogEndFormat, &s.Table, &s.Offset)
	return s, err == nil && n == 2
}

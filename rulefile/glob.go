package rulefile

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// A Glob is a pattern of package doublestar, perhaps after a !, which says that it excludes.
type Glob string

// UnmarshalText checks the pattern.
func (g *Glob) UnmarshalText(text []byte) error {
	*g = Glob(text)
	if pattern := strings.TrimPrefix(string(text), "!"); pattern == "" || !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf(`%q is not a glob: want one like /reports/**/*.pdf, with \ before a literal [ or {`, text)
	}
	return nil
}

// Match reports whether the pattern, without its !, matches. It ignores a slash at the beginning of either: senders may
// leave it out.
func (g Glob) Match(text string) bool {
	pattern := strings.TrimPrefix(strings.TrimPrefix(string(g), "!"), "/")
	return doublestar.MatchUnvalidated(pattern, strings.TrimPrefix(text, "/"))
}

package rulefile

import "testing"

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, text string
		want       bool
	}{
		{"/reports/*", "/reports/a", true},
		{"/reports/*", "reports/a", true},
		{"reports/**", "/reports/a/b", true},
		{"/reports/*", "/reports/a/b", false},
		{"!/reports/*", "/reports/a", true}, // what it excludes
		{"!/reports/*", "/other", false},
		{`/a \[1\].{pdf,doc}`, "/a [1].doc", true},
	} {
		var g Glob
		if err := g.UnmarshalText([]byte(c.glob)); err != nil || g.Match(c.text) != c.want {
			t.Errorf("%s, %s: %v, %v", c.glob, c.text, !c.want, err)
		}
	}
	for _, bad := range []string{"!", "/a/[", "!{a"} {
		if new(Glob).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

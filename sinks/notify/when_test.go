package notify

import (
	"strings"
	"testing"
	"time"

	"tidemark/rulefile"
)

// quietOf reads quiet hours as the rules file has them.
func quietOf(t *testing.T, text string) *QuietHours {
	t.Helper()
	var into struct {
		Quiet *QuietHours `yaml:"quiet_hours"`
	}
	if err := rulefile.Read("test", []byte("quiet_hours: "+text), &into).Err(); err != nil {
		t.Fatal(err)
	}
	return into.Quiet
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

const (
	viennaNights   = `{from: "22:00", to: "07:00", zone: Europe/Vienna}`
	viennaSmall    = `{from: "01:15", to: "02:30", zone: Europe/Vienna}`
	newYorkSmall   = `{from: "01:15", to: "02:30", zone: America/New_York}`
	viennaWeekends = `{from: "00:00", to: "24:00", days: [sat, sun], zone: Europe/Vienna}`
	fridayNights   = `{from: "22:00", to: "07:00", days: [fri]}`
	newYorkInside  = `{from: "01:15", to: "01:45", zone: America/New_York}`
)

func TestQuietHours(t *testing.T) {
	for _, c := range []struct{ quiet, now, want string }{
		{`{from: "12:00", to: "13:00"}`, "2026-06-01T11:59:59Z", "2026-06-01T11:59:59Z"},
		{`{from: "12:00", to: "13:00"}`, "2026-06-01T12:00:00Z", "2026-06-01T13:00:00Z"},
		{`{from: "12:00", to: "13:00"}`, "2026-06-01T12:59:59Z", "2026-06-01T13:00:00Z"},
		{`{from: "12:00", to: "13:00"}`, "2026-06-01T13:00:00Z", "2026-06-01T13:00:00Z"},
		// across midnight, in summer and in winter
		{viennaNights, "2026-06-01T19:59:00Z", "2026-06-01T19:59:00Z"},
		{viennaNights, "2026-06-01T20:00:00Z", "2026-06-02T05:00:00Z"},
		{viennaNights, "2026-06-02T04:59:59.5Z", "2026-06-02T05:00:00Z"},
		{viennaNights, "2026-12-01T20:30:00Z", "2026-12-01T20:30:00Z"},
		{viennaNights, "2026-12-01T21:00:00Z", "2026-12-02T06:00:00Z"},
		// clocks go forward: Vienna 2026-03-29 02:00 CET is 03:00 CEST, at 01:00 UTC
		{viennaNights, "2026-03-28T21:00:00Z", "2026-03-29T05:00:00Z"},
		{viennaSmall, "2026-03-29T00:20:00Z", "2026-03-29T01:00:00Z"},  // 02:30 does not exist
		{newYorkSmall, "2026-03-08T06:20:00Z", "2026-03-08T07:00:00Z"}, // nor west of Greenwich
		// clocks go back: Vienna 2026-10-25 03:00 CEST is 02:00 CET, at 01:00 UTC
		{viennaNights, "2026-10-24T20:00:00Z", "2026-10-25T06:00:00Z"},
		{viennaSmall, "2026-10-24T23:20:00Z", "2026-10-25T00:30:00Z"}, // the first 02:30
		{viennaSmall, "2026-10-25T00:45:00Z", "2026-10-25T00:45:00Z"},
		{viennaSmall, "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"},  // 02:10 again, until the second 02:30
		{newYorkSmall, "2026-11-01T05:20:00Z", "2026-11-01T06:00:00Z"}, // 02:00 EDT is 01:00 EST, which is not quiet
		{newYorkInside, "2026-11-01T05:20:00Z", "2026-11-01T05:45:00Z"},
		{newYorkInside, "2026-11-01T06:20:00Z", "2026-11-01T06:45:00Z"}, // the second 01:20
		// days: those on which the hours begin. 2026-06-05 is a Friday
		{viennaWeekends, "2026-06-05T21:59:59Z", "2026-06-05T21:59:59Z"},
		{viennaWeekends, "2026-06-05T22:00:00Z", "2026-06-07T22:00:00Z"},
		{viennaWeekends, "2026-06-07T21:59:00Z", "2026-06-07T22:00:00Z"},
		{viennaWeekends, "2026-06-07T22:00:00Z", "2026-06-07T22:00:00Z"},
		{viennaWeekends, "2026-03-28T12:00:00Z", "2026-03-29T22:00:00Z"}, // 47 hours
		{viennaWeekends, "2026-10-23T22:00:00Z", "2026-10-25T23:00:00Z"}, // 49 hours
		{fridayNights, "2026-06-04T23:00:00Z", "2026-06-04T23:00:00Z"},
		{fridayNights, "2026-06-05T23:00:00Z", "2026-06-06T07:00:00Z"},
		{fridayNights, "2026-06-06T06:59:00Z", "2026-06-06T07:00:00Z"},
		{fridayNights, "2026-06-06T22:00:00Z", "2026-06-06T22:00:00Z"},
		{`{from: "18:00", to: "08:00", days: [sat, sun, mon]}`, "2026-06-06T17:00:00Z", "2026-06-06T17:00:00Z"},
		{`{from: "18:00", to: "08:00", days: [sat, sun, mon]}`, "2026-06-08T23:00:00Z", "2026-06-09T08:00:00Z"},
		{`{from: "00:00", to: "24:00", days: [sun, mon, tue, wed, thu, fri]}`, "2026-06-07T00:00:00Z", "2026-06-13T00:00:00Z"},
		// a change of half an hour: Lord Howe 2026-04-05 02:00 +11 is 01:30 +10:30, at 15:00 UTC of the 4th
		{`{from: "01:45", to: "02:15", zone: Australia/Lord_Howe}`, "2026-04-04T14:50:00Z", "2026-04-04T15:00:00Z"},
		{`{from: "01:45", to: "02:15", zone: Australia/Lord_Howe}`, "2026-04-04T15:20:00Z", "2026-04-04T15:45:00Z"},
	} {
		got, want := quietOf(t, c.quiet).End(at(t, c.now)), at(t, c.want)
		if !got.Equal(want) {
			t.Errorf("%s: held at %s until %s, want %s", c.quiet, c.now, got.UTC().Format(time.RFC3339Nano), c.want)
		}
	}
}

// TestQuietHoursByTheMinute compares with the definition: the first minute from then on whose clock is not quiet.
func TestQuietHoursByTheMinute(t *testing.T) {
	for _, text := range []string{
		viennaNights, viennaSmall, newYorkSmall, newYorkInside, viennaWeekends, fridayNights,
		`{from: "23:30", to: "01:30", zone: Europe/Vienna, days: [sat]}`,
		`{from: "23:30", to: "00:30", zone: America/Sao_Paulo}`, `{from: "00:00", to: "03:00", zone: Australia/Lord_Howe}`,
	} {
		q := quietOf(t, text)
		for day := range strings.FieldsSeq("2026-03-07 2026-03-28 2026-04-04 2026-10-03 2026-10-24 2026-10-31") {
			start := at(t, day+"T00:00:00Z")
			want := start.Add(72 * time.Hour)
			for want = want.Add(72 * time.Hour); q.include(want); {
				want = want.Add(time.Minute)
			}
			for now := want; now.After(start); now = now.Add(-time.Minute) {
				if !q.include(now) {
					want = now
				}
				if got := q.End(now); !got.Equal(want) {
					t.Fatalf("%s: held at %s until %s, want %s", text, now, got, want)
				}
			}
		}
	}
}

func TestWhen(t *testing.T) {
	quiet := quietOf(t, `{from: "22:00", to: "07:00"}`)
	for _, c := range []struct {
		name             string
		rule             Rule
		now, first, want string
		by               string
	}{
		{"at once", Rule{}, "2026-06-01T12:00:00Z", "2026-06-01T11:00:00Z", "2026-06-01T12:00:00Z", ""},
		{"collecting", Rule{Digest: 15 * time.Minute}, "2026-06-01T12:00:00Z", "2026-06-01T11:50:00Z", "2026-06-01T12:05:00Z", "digest"},
		{"collected", Rule{Digest: 15 * time.Minute}, "2026-06-01T12:00:00Z", "2026-06-01T11:45:00Z", "2026-06-01T12:00:00Z", ""},
		{"quiet", Rule{Quiet: quiet}, "2026-06-01T23:00:00Z", "2026-06-01T21:00:00Z", "2026-06-02T07:00:00Z", "quiet_hours"},
		{"loud", Rule{Quiet: quiet}, "2026-06-02T07:00:00Z", "2026-06-01T23:00:00Z", "2026-06-02T07:00:00Z", ""},
		{"a digest that ends while it is quiet", Rule{Quiet: quiet, Digest: time.Hour}, "2026-06-01T21:30:00Z", "2026-06-01T21:30:00Z", "2026-06-02T07:00:00Z", "quiet_hours"},
		{"a digest that ends after the quiet hours", Rule{Quiet: quiet, Digest: time.Hour}, "2026-06-02T06:30:00Z", "2026-06-02T06:30:00Z", "2026-06-02T07:30:00Z", "digest"},
	} {
		got, by := c.rule.When(at(t, c.now), at(t, c.first))
		if !got.Equal(at(t, c.want)) || by != c.by {
			t.Errorf("%s: %s by %q, want %s by %q", c.name, got, by, c.want, c.by)
		}
	}
}

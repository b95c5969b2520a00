package notify

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidemark/rulefile"
)

// When returns the time at which a message of the rule may be sent, and the setting that delays it. first is the time
// of its first notice. Without a delay it returns now. The rate comes on top.
func (r *Rule) When(now, first time.Time) (at time.Time, delayedBy string) {
	at = now
	if end := first.Add(r.Digest); r.Digest > 0 && end.After(now) {
		at, delayedBy = end, "digest"
	}
	if r.Quiet != nil {
		if end := r.Quiet.End(at); end.After(at) {
			return end, "quiet_hours"
		}
	}
	return at, delayedBy
}

// QuietHours are the hours in which messages wait, by the clock of the zone. From 22:00 to 07:00 crosses midnight.
type QuietHours struct {
	From *Clock         `yaml:"from"`
	To   *Clock         `yaml:"to"`
	Zone *time.Location `yaml:"zone"`
	Days []Day          `yaml:"days"` // on which they begin; absent: each day
}

// End returns when the quiet hours that include t end; t if none do.
//
// It steps from one change of the clock's offset to the next: in between, clock and time advance alike. So where the
// clock is set forward past the end, they end at that moment. Where it is set back past the end, they begin again.
func (q *QuietHours) End(t time.Time) time.Time {
	for q.include(t) {
		local := t.In(q.Zone)
		left := time.Duration((*q.To-clock(local)+midnight-1)%midnight+1) * time.Minute
		next := local.Add(left).Truncate(time.Minute)
		if _, change := local.ZoneBounds(); !change.IsZero() && change.Before(next) {
			next = change
		}
		t = next
	}
	return t
}

func (q *QuietHours) include(t time.Time) bool {
	local := t.In(q.Zone)
	at, today := clock(local), Day(local.Weekday())
	if *q.From < *q.To {
		return *q.From <= at && at < *q.To && q.begin(today)
	}
	return at >= *q.From && q.begin(today) || at < *q.To && q.begin((today+6)%7)
}

func (q *QuietHours) begin(d Day) bool { return len(q.Days) == 0 || slices.Contains(q.Days, d) }

// Check sets the default zone, and checks that there is a time outside of the hours.
func (q *QuietHours) Check(f *rulefile.File, at string) {
	q.Zone = cmp.Or(q.Zone, time.UTC)
	if q.From == nil || q.To == nil || *q.From == *q.To || *q.From == midnight {
		f.Failf(at, `want from and to, two times like {from: "22:00", to: "07:00", zone: Europe/Vienna}`)
	} else if *q.To-*q.From == midnight && !slices.ContainsFunc(week, func(d Day) bool { return !q.begin(d) }) {
		f.Failf(at, `from "00:00" to "24:00" needs days, like [sat, sun], and not all of them`)
	}
}

// A Clock is a time of day in minutes.
type Clock int

const midnight Clock = 24 * 60 // at the end of the day

func clock(t time.Time) Clock { return Clock(t.Hour()*60 + t.Minute()) }

// UnmarshalText reads a time like 22:00.
func (c *Clock) UnmarshalText(text []byte) error {
	if string(text) == "24:00" {
		*c = midnight
		return nil
	}
	t, err := time.Parse("15:04", string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time of day: want one like 22:00", text)
	}
	*c = clock(t)
	return nil
}

// A Day is a time.Weekday.
type Day time.Weekday

var week = []Day{0, 1, 2, 3, 4, 5, 6}

func (d Day) String() string { return strings.ToLower(time.Weekday(d).String()[:3]) }

// UnmarshalText reads a day like mon.
func (d *Day) UnmarshalText(text []byte) error {
	at := slices.IndexFunc(week, func(d Day) bool { return d.String() == string(text) })
	if *d = Day(at); at < 0 {
		return fmt.Errorf("%q is not a day: want one of mon, tue, wed, thu, fri, sat, sun", text)
	}
	return nil
}

// A Rate is how many messages of a rule are sent at most in a time. Those beyond it wait. The zero Rate is no limit.
type Rate struct {
	Messages int
	Per      time.Duration
}

var units = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// UnmarshalText reads a rate like 30/h.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	count, unit, _ := strings.Cut(string(text), "/")
	r.Messages, err = strconv.Atoi(count)
	if r.Per = units[unit]; err != nil || r.Messages < 1 || r.Per == 0 {
		return fmt.Errorf("%q is not a rate: want a number per s, m, h or d, for example 30/h", text)
	}
	return nil
}

package notify

import (
	"cmp"
	"fmt"
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

// QuietHours are the hours in which messages wait, by the clock of the zone. From 22:00 to 07:00 crosses midnight. The
// days are those on which they begin; none means every day.
type QuietHours struct {
	From *Clock         `yaml:"from"`
	To   *Clock         `yaml:"to"`
	Zone *time.Location `yaml:"zone"`
	Days []Day          `yaml:"days"`
}

// End returns when the quiet hours that include t end; t if none do.
//
// It steps from one change of the clock's offset to the next: in between, clock and time advance alike. So where the
// clock is set forward past the end, they end at that moment. Where it is set back past the end, they begin again.
func (q *QuietHours) End(t time.Time) time.Time {
	for q.include(t) {
		local := t.In(q.Zone)
		left := time.Duration((int(*q.To)-minutes(local)+24*60-1)%(24*60)+1) * time.Minute
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
	at, from, to := minutes(local), int(*q.From), int(*q.To)
	today, yesterday := q.on(local.Weekday()), q.on((local.Weekday()+6)%7)
	if from < to {
		return today && from <= at && at < to
	}
	return today && at >= from || yesterday && at < to
}

func (q *QuietHours) on(day time.Weekday) bool {
	for _, d := range q.Days {
		if time.Weekday(d) == day {
			return true
		}
	}
	return len(q.Days) == 0
}

func minutes(t time.Time) int { return t.Hour()*60 + t.Minute() }

// Check sets the default zone, and checks that there is a time outside of the hours.
func (q *QuietHours) Check(f *rulefile.File, at string) {
	q.Zone = cmp.Or(q.Zone, time.UTC)
	if q.From == nil || q.To == nil {
		f.Failf(at, `want from and to, for example {from: "22:00", to: "07:00", zone: Europe/Vienna}`)
	} else if *q.From == *q.To && (q.on(0) && q.on(1) && q.on(2) && q.on(3) && q.on(4) && q.on(5) && q.on(6)) {
		f.Failf(at, "they never end, so no message would be sent: want other hours, fewer days, or disabled: true")
	}
}

// A Clock is a time of day in minutes.
type Clock int

// UnmarshalText reads a time like 22:00.
func (c *Clock) UnmarshalText(text []byte) error {
	t, err := time.Parse("15:04", string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time of day: want one like 22:00", text)
	}
	*c = Clock(minutes(t))
	return nil
}

// A Day is a day of the week.
type Day time.Weekday

// UnmarshalText reads the first three letters of a day.
func (d *Day) UnmarshalText(text []byte) error {
	for day := range time.Saturday + 1 {
		if strings.ToLower(day.String()[:3]) == string(text) {
			*d = Day(day)
			return nil
		}
	}
	return fmt.Errorf("%q is not a day: want mon, tue, wed, thu, fri, sat or sun", text)
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

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

// QuietHours are the hours of each day in which messages wait, by the clock of the zone. From 22:00 to 07:00 crosses
// midnight.
type QuietHours struct {
	From *Clock         `yaml:"from"`
	To   *Clock         `yaml:"to"`
	Zone *time.Location `yaml:"zone"`
}

// End returns when the quiet hours that include t end; t if none do.
//
// It steps from one change of the clock's offset to the next: in between, clock and time advance alike. So where the
// clock is set forward past the end, they end at that moment. Where it is set back past the end, they begin again.
func (q *QuietHours) End(t time.Time) time.Time {
	for q.include(t) {
		local := t.In(q.Zone)
		left := time.Duration((*q.To-clock(local)+24*60)%(24*60)) * time.Minute
		next := local.Add(left).Truncate(time.Minute)
		if _, change := local.ZoneBounds(); !change.IsZero() && change.Before(next) {
			next = change
		}
		t = next
	}
	return t
}

func (q *QuietHours) include(t time.Time) bool {
	at, from, to := clock(t.In(q.Zone)), *q.From, *q.To
	if from < to {
		return from <= at && at < to
	}
	return at >= from || at < to
}

// Check sets the default zone, and checks that there is a time outside of the hours.
func (q *QuietHours) Check(f *rulefile.File, at string) {
	q.Zone = cmp.Or(q.Zone, time.UTC)
	if q.From == nil || q.To == nil || *q.From == *q.To {
		f.Failf(at, `want from and to, two times like {from: "22:00", to: "07:00", zone: Europe/Vienna}`)
	}
}

// A Clock is a time of day in minutes.
type Clock int

func clock(t time.Time) Clock { return Clock(t.Hour()*60 + t.Minute()) }

// UnmarshalText reads a time like 22:00.
func (c *Clock) UnmarshalText(text []byte) error {
	t, err := time.Parse("15:04", string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time of day: want one like 22:00", text)
	}
	*c = clock(t)
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

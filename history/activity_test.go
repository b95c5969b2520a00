package history

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// hours returns the activity of a day, by hour, dimension and key.
func (c *copyTest) hours(from time.Time) map[string]Activity {
	c.tb.Helper()
	found := map[string]Activity{}
	add := func(name string, a Activity) {
		if a != (Activity{}) {
			found[name] = a
		}
	}
	for h := range 48 {
		if err := c.Read(0, func(s *Snapshot) error {
			hour := from.Add(time.Duration(h) * time.Hour)
			total, err := s.Total("ws", hour)
			add(fmt.Sprintf("%d * ", h), total)
			for _, of := range []Dimension{Type, Folder, Actor} {
				name := fmt.Sprintf("%d %c ", h, of)
				rest, scanErr := s.Activity("ws", hour, of, func(key string, a Activity) { add(name+key, a) })
				add(name+"rest", rest)
				err = errors.Join(err, scanErr)
			}
			return err
		}); err != nil {
			c.tb.Fatal(err)
		}
	}
	return found
}

func by(actor string, at time.Time) func(*tidemarkv1.Notice) {
	return func(n *tidemarkv1.Notice) { n.ActorId, n.At = actor, at.UnixMicro() }
}

func TestActivity(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{}, 0, -1)
	early := noon.Add(-3 * time.Hour)
	c.change("f", 10, -1, by("a", early)) // 10 bytes
	for range 3 {                         // twice repeated
		c.change("f", 14, 10, by("b", early.Add(59*time.Minute)))
	}
	c.change("f", 15, 14, by("a", early.Add(time.Hour)), func(n *tidemarkv1.Notice) {
		n.After.Status, n.Cause = tidemarkv1.Status_STATUS_TRASHED, &tidemarkv1.Cause{Event: "e", EventId: "e"}
	})
	c.change("f", 16, 15, by("a", early.Add(time.Hour)), func(n *tidemarkv1.Notice) { // without a file
		n.FileId, n.Version, n.Before, n.After = "", nil, nil, nil
	})
	c.change("g", 17, -1, by("a", noon.Add(1000*time.Hour)))            // its clock is ahead
	c.change("h", 18, -1, by("a", noon.Add(-ActivityKept+2*time.Hour))) // too old when it was written
	added, updated := Activity{1, 1, 0, 0, 10, 0}, Activity{1, 0, 1, 0, 4, 0}
	both := Activity{2, 1, 1, 0, 14, 0}
	deleted, other, ahead := Activity{0, 0, 0, 1, 0, 14}, Activity{Events: 1}, Activity{1, 1, 0, 0, 17, 0}
	withOther := deleted
	withOther.Add(other)
	want := map[string]Activity{
		"0 * ": both, "0 a a": added, "0 a b": updated, "0 t unknown": both, "0 f /d": both,
		"1 * ": withOther, "1 a a": withOther, "1 t unknown": deleted, "1 f /d": deleted,
		"9 * ": ahead, "9 a a": ahead, "9 t unknown": ahead, "9 f /d": ahead,
	}
	if d := cmp.Diff(want, c.hours(early)); d != "" {
		t.Error(d)
	}
	if err := c.Trim(early.Add(ActivityKept + 2*time.Hour)); err != nil { // the hour of early is over for an hour
		t.Fatal(err)
	}
	for name := range want {
		if name[0] == '0' {
			delete(want, name)
		}
	}
	if d := cmp.Diff(want, c.hours(early)); d != "" {
		t.Errorf("after the trim: %s", d)
	}
}

func TestActivityHasABoundOfKeys(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{}, 0, -1)
	c.step = 0
	for i := range int64(maxKeys + 5) {
		c.change("f", i+1, -1, by(fmt.Sprint("actor ", i), noon))
	}
	c.change("f", maxKeys+10, -1, by("actor 7", noon))
	found := c.hours(noon)
	if len(found) != maxKeys+4 || found["0 a rest"].Events != 5 || found["0 a actor 7"].Events != 2 ||
		found["0 * "].Events != maxKeys+6 {
		t.Errorf("%d keys, rest %+v, a known one %+v", len(found), found["0 a rest"], found["0 a actor 7"])
	}
}

// However often notices are repeated, and wherever the reading is interrupted, each counts once. The control does not
// recognize a repetition.
func TestActivityIsExact(t *testing.T) {
	for _, control := range []bool{false, true} {
		for seed := range uint64(5) {
			r := rand.New(rand.NewPCG(seed, 32))
			dir := t.TempDir()
			c := openCopy(t, dir)
			c.resume(kafka.Span{}, 0, -1)
			c.step = time.Millisecond
			var want Activity
			at := func() int64 { return want.Events }
			for range 300 {
				switch n := r.IntN(10); {
				case n == 0:
					if err := c.Close(); err != nil {
						t.Fatal(err)
					}
					next := c.next
					c = openCopy(t, dir)
					c.step = time.Millisecond
					c.resume(kafka.Span{To: next}, 0, at())
					if c.next != next {
						t.Fatalf("resumed at %d, want %d", c.next, next)
					}
				case n < 4 && want.Events > 0: // repeated
					again := r.Int64N(at())
					c.change("f", again, again-1, func(n *tidemarkv1.Notice) {
						if control {
							n.Position.Offset = 1000 + c.next
						}
					})
				default:
					c.change("f", at(), at()-1)
					if want.Events == 0 {
						want.Added++
					} else {
						want.Updated++
						want.BytesAdded++
					}
					want.Events++
				}
			}
			if got := c.hours(noon)["0 * "]; (got == want) == control {
				t.Errorf("seed %d, control %v: %+v, want %+v", seed, control, got, want)
			}
		}
	}
}

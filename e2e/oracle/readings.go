package oracle

import (
	"encoding/json"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// firstReadable reads a field by the first of its names with a value; null and an empty text are none. A field whose
// values cannot be read is added to unreadable. read returns whether it took a value, and if not, whether it could
// read it.
func (e *event) firstReadable(object map[string]any, field string, names []string,
	read func(value any) (taken, readable bool),
) {
	unreadable := false
	for _, name := range names {
		value := object[name]
		if value == nil || value == "" {
			continue
		}
		taken, readable := read(value)
		if taken {
			return
		}
		unreadable = unreadable || !readable
	}
	if unreadable {
		e.unreadable = append(e.unreadable, field)
		slices.Sort(e.unreadable)
	}
}

// firstReadableText reads a text.
func (e *event) firstReadableText(object map[string]any, field string, names []string) (found string) {
	e.firstReadable(object, field, names, func(value any) (bool, bool) {
		s, ok := value.(string)
		if ok {
			found = s
		}
		return ok, ok
	})
	return found
}

// withAlgorithm adds the algorithm to a hash, unless the hash or the name of its field has it.
func withAlgorithm(hash string, object map[string]any) string {
	algorithm, _ := object["hash_algo"].(string)
	if hash == "" || algorithm == "" || strings.Contains(hash, ":") ||
		hash == object["sha256"] && object["hash"] != hash && object["checksum"] != hash {
		return hash
	}
	return algorithm + ":" + hash
}

// numberForm is a JSON number with an exponent small enough for big.Rat.
var numberForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$`)

// rational returns the exact value of a JSON number, or of a text with one.
func rational(value any) *big.Rat {
	s, ok := value.(string)
	if n, is := value.(json.Number); is {
		s, ok = n.String(), true
	}
	if !ok || !numberForm.MatchString(s) {
		return nil
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil
	}
	return r
}

func sizeOf(value any) *int64 {
	r := rational(value)
	if r == nil || r.Sign() < 0 || !r.IsInt() || !r.Num().IsInt64() {
		return nil
	}
	n := r.Num().Int64()
	return &n
}

// isoForms are the extended and the basic form: date, time of day with or without seconds, fraction, zone.
var isoForms = []*regexp.Regexp{
	regexp.MustCompile(`^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)? ?([Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?$`),
	regexp.MustCompile(`^(\d{4})(\d\d)(\d\d)[Tt ](\d\d)(\d\d)(?:(\d\d)(?:[.,](\d+))?)? ?([Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?$`),
}

var dateForm = regexp.MustCompile(`^\d{8}$`)

// instantOf reads a time; without a zone it is UTC.
func instantOf(value any) *int64 {
	s, _ := value.(string)
	if n, is := value.(json.Number); is {
		s = n.String()
	}
	for _, form := range isoForms {
		if parts := form.FindStringSubmatch(s); parts != nil {
			return isoInstant(parts)
		}
	}
	for _, layout := range []string{
		"Mon, 2 Jan 2006 15:04:05 GMT", "Mon, 2 Jan 2006 15:04:05 UTC",
		"Mon, 2 Jan 2006 15:04:05 -0700",
	} {
		if at, err := time.Parse(layout, s); err == nil {
			us := at.UnixMicro()
			return &us
		}
	}
	r := rational(value)
	if r == nil || dateForm.MatchString(s) {
		return nil
	}
	return epochInstant(r)
}

// epochInstant takes the unit from the magnitude: seconds below 10^11, then milliseconds, microseconds and nanoseconds.
func epochInstant(r *big.Rat) *int64 {
	const thousand, year10000 = 1000, 253402300800
	scaled, bound := new(big.Rat).Abs(r), big.NewRat(1e11, 1)
	perSecond := int64(1)
	for range 3 {
		if scaled.Cmp(bound) >= 0 {
			bound.Mul(bound, big.NewRat(thousand, 1))
			perSecond *= thousand
		}
	}
	if scaled.Cmp(bound) >= 0 {
		return nil
	}
	scaled.Mul(scaled, big.NewRat(second, perSecond))
	whole := new(big.Int).Quo(scaled.Num(), scaled.Denom())
	if !whole.IsInt64() || whole.Int64() >= year10000*second {
		return nil
	}
	us := whole.Int64() * int64(r.Sign())
	return &us
}

func isoInstant(parts []string) *int64 {
	n := make([]int, len(parts))
	for i := 1; i <= 6; i++ {
		n[i], _ = strconv.Atoi(parts[i]) // digits, or no seconds at all
	}
	leap := n[6] == 60
	if leap {
		n[6] = 59
	}
	at := time.Date(n[1], time.Month(n[2]), n[3], n[4], n[5], n[6], 0, time.UTC)
	if at.Month() != time.Month(n[2]) || at.Day() != n[3] || at.Hour() != n[4] || at.Minute() != n[5] ||
		at.Second() != n[6] {
		return nil // an invalid day or time of day
	}
	if leap {
		at = at.Add(time.Second)
	}
	us := at.UnixMicro()
	fraction, _ := strconv.ParseInt((parts[7] + "000000")[:6], 10, 64)
	us += fraction
	if zone := strings.ReplaceAll(parts[8], ":", ""); len(zone) >= 3 && (zone[0] == '+' || zone[0] == '-') {
		hours, _ := strconv.Atoi(zone[1:3])
		minutes, _ := strconv.Atoi(zone[3:])
		if hours > 23 || minutes > 59 {
			return nil
		}
		ahead := int64(hours*3600+minutes*60) * second
		if zone[0] == '-' {
			ahead = -ahead
		}
		us -= ahead
	}
	if us >= 253402300800*second {
		return nil
	}
	return &us
}

// mediaType is the key under which a MIME type is counted.
func mediaType(mime string) string {
	return strings.ToLower(strings.TrimSpace(strings.SplitN(mime, ";", 2)[0]))
}

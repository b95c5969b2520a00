package codecs

import (
	"bytes"
	"strings"
	"time"
)

// Times are microseconds since 1970 UTC. These forms are read:
//
//	2026-09-25 21:40:11 UTC
//	2026-09-25T21:40:11Z, also with a fraction, with an offset (+02:00, +0200, +02)
//	or without a zone, which means UTC;
//	also without seconds, and in the basic form 20260925T214011Z
//	Fri, 25 Sep 2026 21:40:11 GMT
//	1790372411, 1790372411000, 1790372411.25 and so on to nanoseconds since 1970, as a number or as its text
//
// A leap second, :60, is read as the second after it, as in Unix time. A date alone, a time after the year 9999 and any
// other form cannot be read.

// parseTime reads a time that is not before 1970.
func parseTime(b []byte) (us int64, ok bool) {
	us, ok = readTime(b)
	return us, ok && ValidTime(us)
}

// readTime reads a time, which may be before 1970.
func readTime(b []byte) (us int64, ok bool) {
	if us, ok = parseRFC3339(b); !ok {
		us, ok = parseUnix(b)
	}
	if !ok {
		us, ok = parseRare(b)
	}
	return us, ok && us <= maxTime
}

const longestTime = 64 // bytes

// parseRFC3339 reads RFC 3339 and "2026-09-25 21:40:11 UTC", which nearly all senders use, without an allocation.
func parseRFC3339(b []byte) (us int64, ok bool) {
	const date = len("2026-09-25")
	if len(b) < len("2026-09-25T21:40:11Z") || len(b) > longestTime || b[4] != '-' {
		return 0, false
	}
	var room [longestTime]byte
	text := append(room[:0], b...)
	if text[date] == ' ' {
		text[date] = 'T'
	}
	if rest, found := bytes.CutSuffix(text, []byte(" UTC")); found {
		text = append(rest, 'Z')
	}
	var at time.Time
	if at.UnmarshalText(text) != nil || text[len(text)-1] != 'Z' && !validZone(text[len(text)-len("+02:00"):]) {
		return 0, false
	}
	return at.UnixMicro(), true
}

// validZone reports whether a zone like +02:00 has an hour and a minute in range: package time accepts +24:00.
func validZone[T string | []byte](zone T) bool {
	return len(zone) == len("+02:00") && string(zone[1:3]) <= "23" && string(zone[4:]) <= "59"
}

// rareLayouts are the layouts of the other forms. Package time also accepts a fraction after the seconds.
var rareLayouts = [...]string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00", "20060102T150405Z07:00", "20060102T1504Z07:00",
	"Mon, 2 Jan 2006 15:04:05 Z07:00",
}

// parseRare reads the other forms. It normalises the zone and the separator after the date, which would otherwise need
// 40 layouts. It handles leap seconds, which package time refuses, and names of zones, of which package time would take
// any for UTC.
func parseRare(b []byte) (us int64, ok bool) {
	if len(b) > longestTime {
		return 0, false
	}
	// ISO 8601 prefers the minus sign to the hyphen
	text := strings.ToUpper(strings.ReplaceAll(string(b), "\u2212", "-"))
	dayFirst := strings.IndexByte(text, ',') == len("Fri")
	text, zone, found := cutZone(text)
	if dayFirst && (strings.HasSuffix(text, "  ") || !found && strings.HasSuffix(text, " ")) {
		return 0, false // package time skips any number of spaces
	}
	if !dayFirst {
		if found {
			text = strings.TrimSuffix(text, " ")
		}
		for _, date := range [...]int{len("20260925"), len("2026-09-25")} {
			if len(text) > date && text[date] == ' ' {
				text = text[:date] + "T" + text[date+1:]
			}
		}
	}
	second, leap := len("2026-09-25T21:40:"), int64(0)
	if strings.IndexByte(text, 'T') == len("20260925") {
		second = len("20260925T2140")
	}
	if len(text) >= second+2 && text[second:second+2] == "60" {
		text, leap = text[:second]+"59"+text[second+2:], 1e6
	}
	for _, layout := range rareLayouts {
		if at, err := time.Parse(layout, text+zone); err == nil {
			return at.UnixMicro() + leap, true
		}
	}
	return 0, false
}

// cutZone returns the text before the zone and the zone in the form of RFC 3339, "Z" if none was found.
func cutZone(text string) (rest, zone string, found bool) {
	for _, utc := range [...]string{"UTC", "GMT", "Z"} {
		if rest, found := strings.CutSuffix(text, utc); found {
			return rest, "Z", true
		}
	}
	sign := strings.LastIndexAny(text, "+-")
	if sign <= len("2026-09-25") {
		return text, "Z", false
	}
	rest, zone = text[:sign], text[sign:]
	switch len(zone) {
	case len("+02"):
		zone += ":00"
	case len("+0200"):
		zone = zone[:3] + ":" + zone[3:]
	}
	if !validZone(zone) {
		return text, "Z", false
	}
	return rest, zone, true
}

const maxTime = 253402300799_999999 // the last microsecond of 9999

// ValidTime reports whether a time, in microseconds since 1970, can be written as RFC 3339 and read again.
func ValidTime(us int64) bool { return 0 <= us && us <= maxTime }

// appendTime appends a time as RFC 3339 in UTC, in quotes, without trailing zeros of the fraction.
func appendTime(b []byte, us int64) []byte {
	if !ValidTime(us) {
		return append(time.UnixMicro(us).UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
	}
	b = appendSeconds(append(b, '"'), us/1e6)
	if fraction := uint32(us % 1e6); fraction != 0 {
		b = append2(append2(append2(append(b, '.'), fraction/1e4), fraction/100%100), fraction%100)
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return append(b, 'Z', '"')
}

// appendSeconds appends a time in seconds since 1970 without its zone. A record has up to ten times, and package time
// takes twice as long for each.
func appendSeconds(b []byte, s int64) []byte {
	// The day of the Gregorian calendar, counted from 0000-03-01 in cycles of 400 years, as in
	// https://howardhinnant.github.io/date_algorithms.html#civil_from_days.
	days := uint32(s/86400) + 719468
	cycle, day := days/146097, days%146097
	year := (day - day/1460 + day/36524 - day/146096) / 365
	day -= 365*year + year/4 - year/100
	month := (5*day + 2) / 153 // 0 is March
	day -= (153*month + 2) / 5
	year += 400 * cycle
	if month >= 10 {
		year, month = year+1, month-12
	}
	of := uint32(s % 86400)
	b = append2(append2(b, year/100), year%100)
	b = append2(append(b, '-'), month+3)
	b = append2(append(b, '-'), day+1)
	b = append2(append(b, 'T'), of/3600)
	b = append2(append(b, ':'), of/60%60)
	return append2(append(b, ':'), of%60)
}

// append2 appends two digits.
func append2(b []byte, n uint32) []byte { return append(b, '0'+byte(n/10), '0'+byte(n%10)) }

// appendMicros appends a time as RFC 3339 in UTC, in quotes, with all six digits of its microseconds.
func appendMicros(b []byte, us int64) []byte {
	return append(time.UnixMicro(us).UTC().AppendFormat(append(b, '"'), "2006-01-02T15:04:05.000000Z"), '"')
}

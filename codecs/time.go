package codecs

import (
	"strconv"
	"time"
)

// Times are microseconds since 1970 UTC. Senders write them in several ways:
//
//	2026-09-25 21:40:11 UTC
//	2026-09-25T21:40:11Z, also with a fraction, an offset, or, as Python's isoformat, without a zone, which is UTC
//	1790372411, 1790372411000, 1790372411.25 seconds or milliseconds since 1970, as a number or as a string of digits
//
// Before 1970, behind the year 9999 or in any other form they cannot be read.

// parseTime reads the text of a time.
func parseTime(b []byte) (us int64, ok bool) {
	if len(b) < 19 || b[4] != '-' {
		return parseUnix(b)
	}
	if b[7] != '-' || b[10] != 'T' && b[10] != 't' && b[10] != ' ' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	year, month, day := number(b[:4]), number(b[5:7]), number(b[8:10])
	hour, minute, second := number(b[11:13]), number(b[14:16]), number(b[17:19])
	if year < 1970 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return 0, false
	}
	rest := b[19:]
	fraction := int64(0)
	if len(rest) > 0 && rest[0] == '.' {
		if fraction, rest, ok = parseFraction(rest[1:]); !ok {
			return 0, false
		}
	}
	offset, ok := parseZone(rest)
	if !ok {
		return 0, false
	}
	days := daysBefore(year, month) + day - 1
	us = int64(days*86400+hour*3600+minute*60+second-offset*60)*1e6 + fraction
	return us, ValidTime(us)
}

const maxTime = 253402300799_999999 // the last microsecond of 9999

// ValidTime reports whether a time, in microseconds since 1970, can be written and read again.
func ValidTime(us int64) bool { return 0 <= us && us <= maxTime }

// number reads digits; -1 when there is anything else.
func number(b []byte) int {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// parseFraction reads the digits behind a point as microseconds; finer ones are cut off.
func parseFraction(b []byte) (us int64, rest []byte, ok bool) {
	unit := int64(100000)
	for ; len(b) > 0 && '0' <= b[0] && b[0] <= '9'; b = b[1:] {
		us += int64(b[0]-'0') * unit
		unit /= 10
		ok = true
	}
	return us, b, ok
}

// parseZone reads what may follow the time of day and returns the minutes that it is ahead of UTC.
func parseZone(b []byte) (minutes int, ok bool) {
	switch string(b) {
	case "", "Z", "z", " UTC", "UTC", " GMT", "GMT", " Z":
		return 0, true
	}
	if b[0] == ' ' {
		b = b[1:]
	}
	if len(b) == 6 && b[3] == ':' {
		b = []byte{b[0], b[1], b[2], b[4], b[5]}
	}
	if len(b) != 5 || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	hour, minute := number(b[1:3]), number(b[3:5])
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 {
		return 0, false
	}
	if minutes = hour*60 + minute; b[0] == '-' {
		minutes = -minutes
	}
	return minutes, true
}

// parseUnix reads seconds or milliseconds since 1970; as seconds, 10^11 would lie in the year 5138.
func parseUnix(b []byte) (us int64, ok bool) {
	whole := b
	fraction := int64(0)
	for i, c := range b {
		if c == '.' {
			var rest []byte
			if fraction, rest, ok = parseFraction(b[i+1:]); !ok || len(rest) > 0 {
				return 0, false
			}
			whole = b[:i]
			break
		}
	}
	if len(whole) == 0 || len(whole) > 15 {
		return 0, false
	}
	n := number(whole)
	switch {
	case n < 0:
		return 0, false
	case n < 1e11:
		us = int64(n)*1e6 + fraction
	default:
		us = int64(n)*1e3 + fraction/1e3
	}
	return us, us <= maxTime
}

var daysInMonth = [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

func leap(year int) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysIn(year, month int) int {
	if month == 2 && leap(year) {
		return 29
	}
	return daysInMonth[month-1]
}

// daysBefore counts the days from 1970 to the first of the month.
func daysBefore(year, month int) int {
	y := year - 1
	days := y*365 + y/4 - y/100 + y/400 - 719162
	for m := 1; m < month; m++ {
		days += daysIn(year, m)
	}
	return days
}

// appendTime appends a time as RFC 3339 in UTC, in quotes, without trailing zeros of the fraction.
func appendTime(b []byte, us int64) []byte {
	b = append(b, '"')
	b = appendClock(b, us)
	if fraction := ((us % 1e6) + 1e6) % 1e6; fraction != 0 {
		b = append(b, '.')
		for unit := int64(100000); fraction > 0; unit /= 10 {
			b = append(b, byte('0'+fraction/unit))
			fraction %= unit
		}
	}
	return append(b, 'Z', '"')
}

// appendMicros appends a time as RFC 3339 in UTC, in quotes, with all six digits of its microseconds.
func appendMicros(b []byte, us int64) []byte {
	b = append(b, '"')
	b = time.UnixMicro(us).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	return append(b, '"')
}

// appendClock appends the date and the time of day, in whole seconds.
func appendClock(b []byte, us int64) []byte {
	at := time.UnixMicro(us).UTC()
	year, month, day := at.Date()
	if year < 0 || year > 9999 { // only a row that something else wrote: no event is read with such a time
		return at.AppendFormat(b, "2006-01-02T15:04:05")
	}
	hour, minute, second := at.Clock()
	b = append2(b, year/100)
	b = append2(b, year%100)
	b = append2(append(b, '-'), int(month))
	b = append2(append(b, '-'), day)
	b = append2(append(b, 'T'), hour)
	b = append2(append(b, ':'), minute)
	return append2(append(b, ':'), second)
}

func append2(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

// appendInt appends n.
func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

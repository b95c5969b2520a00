package codecs

import (
	"strconv"
	"strings"
	"time"
)

// Times are microseconds since 1970 UTC. Senders write them in several ways:
//
//	2026-09-25 21:40:11 UTC
//	2026-09-25T21:40:11Z, also with a fraction, with an offset (+02:00, +0200, +02), or, as Python's isoformat, without a zone,
//	which is UTC; also without seconds, and in the basic form 20260925T214011Z
//	Fri, 25 Sep 2026 21:40:11 GMT
//	1790372411, 1790372411000, 1790372411.25 and so on to nanoseconds since 1970, as a number or as the text of one
//
// A leap second, :60, is read as the second after it, as in Unix time. Behind the year 9999 or in any other form a time cannot be
// read; a date alone is none.

// parseTime reads the text of a time from 1970 on.
func parseTime(b []byte) (us int64, ok bool) {
	us, ok = readTime(b)
	return us, ok && ValidTime(us)
}

// readTime reads the text of a time, which may be before 1970.
func readTime(b []byte) (us int64, ok bool) {
	if len(b) >= 19 && b[4] == '-' {
		if us, ok = parseCommon(b); ok {
			return us, us <= maxTime
		}
	}
	if us, ok = parseUnix(b); !ok {
		us, ok = parseUncommon(b)
	}
	return us, ok && us <= maxTime
}

// parseCommon reads the forms that nearly all senders write, without an allocation.
func parseCommon(b []byte) (us int64, ok bool) {
	if b[7] != '-' || b[10] != 'T' && b[10] != 't' && b[10] != ' ' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	year, month, day := number(b[:4]), number(b[5:7]), number(b[8:10])
	hour, minute, second := number(b[11:13]), number(b[14:16]), number(b[17:19])
	if year < 1970 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 {
		return 0, false
	}
	rest := b[19:]
	fraction := int64(0)
	if len(rest) > 0 && (rest[0] == '.' || rest[0] == ',') {
		if fraction, rest, ok = parseFraction(rest[1:]); !ok {
			return 0, false
		}
	}
	offset, ok := parseZone(rest)
	if !ok {
		return 0, false
	}
	days := daysBefore(year, month) + day - 1
	return int64(days*86400+hour*3600+minute*60+second-offset*60)*1e6 + fraction, true
}

// uncommon are the other layouts, without their zones: without seconds, basic, and before 1970; that of RFC 1123.
var uncommon = [...]string{"2006-01-02T15:04", "20060102T150405", "20060102T1504", "2006-01-02T15:04:05", "Mon, 2 Jan 2006 15:04:05"}

const longestTime = 64 // bytes

// parseUncommon reads the forms that few senders write.
func parseUncommon(b []byte) (us int64, ok bool) {
	if len(b) > longestTime {
		return 0, false
	}
	text := strings.ToUpper(strings.ReplaceAll(string(b), "\u2212", "-")) // ISO 8601 prefers the minus sign to the hyphen
	if len(text) < len("20260925T2140") {
		return 0, false
	}
	zoned := 0
	if text[3] == ',' {
		zoned = max(0, strings.LastIndexByte(text, ' '))
	} else {
		for _, date := range [...]int{len("20260925"), len("2026-09-25")} {
			if text[date] == ' ' && !strings.Contains(text[:date], "T") {
				text = text[:date] + "T" + text[date+1:]
			}
		}
		clock := max(0, strings.IndexByte(text, 'T'))
		if zoned = len(text); strings.ContainsAny(text[clock:], "Z+- UG") {
			zoned = clock + strings.IndexAny(text[clock:], "Z+- UG")
		}
	}
	offset, ok := parseZone([]byte(text[zoned:]))
	if !ok {
		return 0, false
	}
	text, leap := text[:zoned], int64(0)
	second := len("2026-09-25T21:40:")
	if strings.IndexByte(text, 'T') == len("20260925") {
		second = len("20260925T2140")
	}
	if len(text) >= second+2 && text[second:second+2] == "60" {
		text, leap = text[:second]+"59"+text[second+2:], 1
	}
	for _, layout := range uncommon {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UnixMicro() + (leap-int64(offset)*60)*1e6, true
		}
	}
	return 0, false
}

const maxTime = 253402300799_999999 // the last microsecond of 9999

// ValidTime reports whether a time, in microseconds since 1970, can be written and read again.
func ValidTime(us int64) bool { return 0 <= us && us <= maxTime }

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
	switch {
	case len(b) == 6 && b[3] == ':':
		b = []byte{b[0], b[1], b[2], b[4], b[5]}
	case len(b) == 3:
		b = []byte{b[0], b[1], b[2], '0', '0'}
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

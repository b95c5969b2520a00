package codecs

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseEventSize(t *testing.T) {
	for size, want := range map[string]int64{
		"0": 0, "-0": 0, "-0.0e5": 0, "1": 1, "18233": 18233, `"18233"`: 18233, "18233.0": 18233, "18233.000": 18233, `"18233.0"`: 18233, "1e3": 1000, "1E+3": 1000,
		"1.8233e4": 18233, "182330e-1": 18233, "1000e-3": 1, "0e999999999999": 0, "0.0": 0,
		"9007199254740993":    9007199254740993,
		"9223372036854775807": math.MaxInt64, `"9223372036854775807"`: math.MaxInt64, "9223372036854775807.0": math.MaxInt64, "922337203685477580.7e1": math.MaxInt64,
		`"\u0037"`: 7,
	} {
		if e := parsed(t, with(`"size":`+size)); e.Size == nil || e.GetSize() != want || e.GetUnreadable() != nil {
			t.Errorf("size %s was read as %v, unreadable %v", size, e.Size, e.GetUnreadable())
		}
	}
}

// The time of an event, as a number or as a text.
func TestParseEventTime(t *testing.T) {
	at := *micros("2026-09-25T21:40:11Z")
	for text, want := range map[string]int64{
		"946684800": 946684800e6, "1790372411": at, `"1790372411"`: at, "1790372411.0": at, "1790372411.25": at + 250000, "1.790372411E9": at, `"1.790372411e9"`: at,
		"1790372411000": at, "1790372411123": at + 123000, "1790372411123.5": at + 123500, "1790372411000001": at + 1, `"1790372411000001"`: at + 1,
		"1790372411000001.9": at + 1, "1790372411000001999": at + 1, "1790372411123456789": at + 123456, `"\u0031790372411"`: at,
		`"Fri, 25 Sep 2026 21:40:11 GMT"`: at, `"20260925T214011Z"`: at,
	} {
		if e := parsed(t, with(`"created":`+text)); e.OccurredAt == nil || e.GetOccurredAt() != want || e.GetUnreadable() != nil {
			t.Errorf("created %s was read as %v, unreadable %v", text, e.OccurredAt, e.GetUnreadable())
		}
	}
}

func TestParseTime(t *testing.T) {
	at := time.Date(2026, 9, 25, 21, 40, 11, 0, time.UTC).UnixMicro()
	for text, want := range map[string]int64{
		"2026-09-25 21:40:11 UTC": at, "2026-09-25T21:40:11Z": at, "2026-09-25t21:40:11z": at,
		"2026-09-25 21:40:11": at, "2026-09-25T21:40:11": at,
		"2026-09-25T21:40:11.5": at + 500000, "2026-09-25T21:40:11.123456789Z": at + 123456,
		"2026-09-25T21:40:11.000001+00:00": at + 1,
		"2026-09-25T23:40:11+02:00":        at, "2026-09-25 16:10:11 -0530": at,
		"2026-09-25 21:40:11.25 GMT": at + 250000,
		"1790372411":                 at, "1790372411000": at, "1790372411.25": at + 250000,
		"1790372411123.5": at + 123500, "0": 0,
		"2026-09-25T21:40:11+00": at, "2026-09-25 21:40:11+00": at, "2026-09-25 23:40:11.5+02": at + 500000,
		"2026-09-25T23:40:11+0200": at, "2026-09-25 21:40:11 +00": at,
		"2026-09-25T16:40:11-05": at, "2026-09-25T21:40:11,5Z": at + 500000, "2026-09-25T21:40:11,5+00": at + 500000,
		"2026-09-25T23:40:11\u221202:00": at + 4*3600e6,
		"20260925T214011Z":               at, "20260925t214011z": at, "20260925T214011": at,
		"20260925T214011.5Z":   at + 500000,
		"20260925T214011,5Z":   at + 500000,
		"20260925T234011+0200": at, "20260925T234011+02": at, "20260925T234011+02:00": at, "20260925T214011 UTC": at,
		"20260925 214011+00": at, "20260925 2140 UTC": at - 11e6,
		"2026-09-25T21:40Z": at - 11e6, "2026-09-25T21:40": at - 11e6, "2026-09-25 21:40 UTC": at - 11e6,
		"2026-09-25 23:40+02:00": at - 11e6, "20260925T2140Z": at - 11e6, "20260925T2340+02": at - 11e6,
		// the second after it
		"2026-09-25T21:39:60Z": at - 11e6, "2026-09-25 21:39:60.5 UTC": at - 11e6 + 500000,
		"20260925T213960Z": at - 11e6, "20260925T213960.5Z": at - 11e6 + 500000,
		"2016-12-31T23:59:60Z":          time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(),
		"2016-12-31T15:59:60-08:00":     time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(),
		"Fri, 25 Sep 2026 21:40:11 GMT": at, "Fri, 25 Sep 2026 23:40:11 +0200": at,
		"Fri, 25 Sep 2026 21:40:11 UTC": at,
		"Tue, 01 Sep 2026 00:00:00 GMT": time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC).UnixMicro(),
		"1790372411000001":              at + 1, "1790372411123456789": at + 123456, "1.790372411e9": at, "1e9": 1e15,
		"1970-01-01T00:00:00Z": 0, "9999-12-31T23:59:59.999999Z": maxTime,
		"2024-02-29T00:00:00Z": time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC).UnixMicro(),
	} {
		if got, ok := parseTime([]byte(text)); !ok || got != want {
			t.Errorf("%s: %d %t, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "now", "2026-09-25", "2026-9-25 21:40:11 UTC", "2026-13-25T21:40:11Z", "2026-00-25T21:40:11Z",
		"2025-02-29T00:00:00Z", "2026-04-31T00:00:00Z",
		"2026-09-25T24:00:00Z", "2026-09-25T21:60:11Z", "2026-09-25T21:40:61Z", "2026-09-25T21:40:11.Z",
		"2026-09-25T21:40:11 CET", "2026-09-25T21:40:11+25:00", "2026-09-25T21:40:11+0:00",
		"1969-12-31T23:59:59Z", "1970-01-01T00:30:00+01:00", "9999-12-31T23:59:59-01:00", "+2026-09-25T21:40:11", "-1",
		"+1", "1e", "1e9x", "1.", ".5", "1.2.3", "0x10", "999999999999999999999", "1e21", "20260925", "2026-09-25Z",
		"2026-09-25 UTC", "21:40:11",
		"20260925T21", "20260925T214011 CET", "Fri, 25 Sep 2026 21:40:11 CET", "Fri, 25 Sep 2026", "Fri,xxxxxxxxxxxx",
		"Fri,xx +02:00", "1T3456 +02:00", "T234567 +02:00", "      T+02:00", "20260925T214061Z", "20261325T214011Z",
		"20260925T2460Z", "2026-09-25T21:40:11+2", "2026-09-25T2 1:40Z", "\u2212\u2212\u2212\u2212\u2212",
		strings.Repeat("2026-09-25T21:40", 1000),
		"2026-09-25T21:40:11Zx", "2026x09-25T21:40:11Z", "2026-09-25T21:40-11Z", "２０２６-09-25T21:40:11Z",
	} {
		if got, ok := parseTime([]byte(text)); ok {
			t.Errorf("%q was read as %s", text, time.UnixMicro(got).UTC())
		}
	}
	for days := range 3000 * 365 / 100 { // a hundred days at a time, every month and leap year comes by
		want := time.Date(1970, 1, 1, 1, 2, 3, 450000000, time.UTC).AddDate(0, 0, days*100)
		if want.Year() > 9999 {
			break
		}
		text := appendTime(nil, want.UnixMicro())
		if string(text) != `"`+want.Format(time.RFC3339Nano)+`"` {
			t.Fatalf("%s was written as %s", want, text)
		}
		if got, ok := parseTime(bytes.Trim(text, `"`)); !ok || got != want.UnixMicro() {
			t.Fatalf("%s was read as %d %t", text, got, ok)
		}
	}
}

package oracle

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// What a sender writes is read by the design's rules, by code of this package's own.
func TestReadings(t *testing.T) {
	at := time.Date(2026, 9, 25, 21, 40, 11, 0, time.UTC).UnixMicro()
	for member, want := range map[string]string{
		`"size":"18233"`: "18233 - []", `"size":18233.0`: "18233 - []", `"size":1e3`: "1000 - []", `"size":9223372036854775807`: "9223372036854775807 - []",
		`"size":-1`: "- - [size]", `"size":1.5`: "- - [size]", `"size":9223372036854775808`: "- - [size]", `"size":"18 kB"`: "- - [size]", `"size":true`: "- - [size]",
		`"size":-1,"fileSize":7`: "7 - []", `"size":null`: "- - []", `"size":""`: "- - []", `"name":7,"path":{},"parent":[]`: "- - [name parent_id path]",
		`"created":"2026-09-25 21:40:11+00"`: fmt.Sprint("- ", at, " []"), `"created":"20260925T234011,5+0200"`: fmt.Sprint("- ", at+500000, " []"),
		`"created":"2026-09-25T21:39:60Z"`: fmt.Sprint("- ", at-11e6, " []"), `"created":"2026-09-25T21:40Z"`: fmt.Sprint("- ", at-11e6, " []"),
		`"created":"Fri, 25 Sep 2026 21:40:11 GMT"`: fmt.Sprint("- ", at, " []"), `"created":1790372411`: fmt.Sprint("- ", at, " []"), `"created":"1790372411.25"`: fmt.Sprint("- ", at+250000, " []"),
		`"created":1790372411123`: fmt.Sprint("- ", at+123000, " []"), `"created":1790372411000001`: fmt.Sprint("- ", at+1, " []"), `"created":1790372411123456789`: fmt.Sprint("- ", at+123456, " []"),
		`"created":0`: "- - []", `"created":"1999-12-31T23:59:59Z"`: "- - []", `"created":"2026-09-25"`: "- - [created]", `"created":"20260925"`: "- - [created]", `"created":"noon"`: "- - [created]",
		`"created":"noon","timestamp":1790372411`: fmt.Sprint("- ", at, " []"), `"created":"2026-02-30T00:00:00Z"`: "- - [created]",
	} {
		e, reason := parse([]byte(`{"event":"e","event_id":"i","workspace_id":"w",`+member+`}`), base)
		if reason != "" {
			t.Errorf("%s: %s", member, reason)
			continue
		}
		shown := func(n *int64) string {
			if n == nil {
				return "-"
			}
			return fmt.Sprint(*n)
		}
		if got := fmt.Sprint(shown(e.size), " ", shown(e.occurred), " ", e.unreadable); got != want ||
			!slices.IsSorted(e.unreadable) {
			t.Errorf("%s: got %s, want %s", member, got, want)
		}
	}
	for body, want := range map[string]string{
		`"hash":"00ff","hash_algo":"md5"`: "md5:00ff", `"hash":"sha256:00ff","hash_algo":"md5"`: "sha256:00ff", `"sha256":"00ff","hash_algo":"md5"`: "00ff", `"hash_algo":"md5"`: "",
	} {
		if e, reason := parse([]byte(`{"event":"e","event_id":"i","workspace_id":"w",`+body+`}`), base); reason != "" || e.texts["hash"] != want {
			t.Errorf("%s: %v %s", body, e, reason)
		}
	}
}

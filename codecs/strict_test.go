package codecs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
)

// loneSurrogate matches an escaped lone surrogate, an escaped pair, and an escaped backslash.
var loneSurrogate = regexp.MustCompile(`(?i)\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2}`)

// paired replaces lone surrogates, which the other library refuses everywhere, by U+FFFD.
func paired(b []byte) []byte {
	return loneSurrogate.ReplaceAllFunc(b, func(escape []byte) []byte {
		if len(escape) == 6 {
			return []byte(`\ufffd`)
		}
		return escape
	})
}

// strict uses another library to check that b is one object of the JSON that ParseEvent accepts.
func strict(b []byte) error {
	whole := paired(b)
	d := jsontext.NewDecoder(bytes.NewBuffer(whole))
	if d.PeekKind() != '{' {
		return errors.New("not an object")
	}
	for first := true; first || d.StackDepth() > 0; first = false {
		from := d.InputOffset()
		kind, length := d.StackIndex(d.StackDepth())
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		if to := d.InputOffset(); kind == '{' && length%2 == 0 && !bytes.Equal(b[from:to], whole[from:to]) {
			return errors.New("a lone surrogate in a name")
		}
		if d.StackDepth() > maxDepth {
			return errors.New("too deep")
		}
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows: %w", err)
	}
	return nil
}

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func manyNames(n int, last string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"name%d":%d,`, i, i)
	}
	return "{" + b.String() + `"` + last + `":0}`
}

// strictness has valid and invalid JSON. The other library decides which is which.
var strictness = []string{
	`{}`, `{"a":1}`, ` {"a":1} `, "\t\r\n{}", `[]`, `"a"`, `1`, `null`, `true`, ``, ` `, `{`, `}`, `{}{}`, `{} x`, `{},`, "{}\x00", "\ufeff{}", "{}\v", "\u00a0{}",
	`{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a" 1}`, `{a:1}`, `{'a':1}`, `{"a":1,,"b":2}`, `{"a"::1}`, `{1:1}`, `{null:1}`, `{"a":1]`, `{"a":[1}`,
	`{"a":[]}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1,2],"b":[[],{}]}`, `{"a":[`, `{"a":[1`, `{"a":[1,`, `{"a":{`, `{"a":{"b"`, `{"a`, `{"a"`, `{"a":`, `{"a":"`,
	`{"a":true}`, `{"a":tru}`, `{"a":truex}`, `{"a":True}`, `{"a":false}`, `{"a":null}`, `{"a":nul`, `{"a":NaN}`, `{"a":Infinity}`, `{"a":undefined}`,
	`{"a":0}`, `{"a":-0}`, `{"a":01}`, `{"a":-01}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1.5}`, `{"a":1.5.2}`, `{"a":1e}`, `{"a":1e+}`, `{"a":1E-07}`, `{"a":1e5.5}`, `{"a":-}`, `{"a":--1}`,
	`{"a":0x10}`, `{"a":1_000}`, `{"a":12345678901234567890123}`, `{"a":1e999}`, `{"a":0e0}`, `{"a":00}`,
	`{"a":"\u0041"}`, `{"a":"\u00zz"}`, `{"a":"\u004"}`, `{"a":"\U00000041"}`, `{"a":"\x41"}`, `{"a":"\'"}`, `{"a":"\"\\\/\b\f\n\r\t"}`, `{"a":"\`, `{"a":"\"}`, `{"a":"\u`, `{"a":"\u00`,
	`{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\ude00"}`, `{"a":"\ud83dx"}`, `{"a":"\ud83d\n"}`, `{"a":"\ud83d\u0041"}`, `{"a":"\ud83d\ud83d"}`, `{"a":"\ude00\ud83d"}`, `{"a":"\uD83D\uDE00"}`,
	`{"\ud800":1}`, `{"a":"\udbff\udfff"}`, `{"a":"\ud800\udc00"}`, `{"a":"\u0000"}`, `{"a":"\ud83d\`, `{"a":"\ud83d\ude0`,
	"{\"a\":\"\x00\"}", "{\"a\":\"\x1f\"}", "{\"a\":\"\n\"}", "{\"a\":\"\x7f\"}", "{\"a\":\"\t\"}", "{\"a\":\"\xff\"}",
	"{\"a\":\"\xc3\"}", "{\"a\":\"\xc3\x28\"}", "{\"a\":\"\xc0\xaf\"}",
	"{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"a\":\"\xe2\x82\"}", "{\"a\":\"é€🙂\"}",
	"{\"a\":\"1234567é\"}", "{\"a\":\"12345678\xff\"}", "{\"\xff\":1}", "{\"a\":1}\xff", "\xff{}",
	"{\"a\":\"\ufffd\"}", "{\"a\":\"\u2028\"}",
	`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"\u0061":1,"a":2}`, `{"\u0061":1,"\u0061":2}`, `{"a":1,"A":2}`, `{"":1,"":2}`, `{"":1}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1},{"b":2}]}`,
	`{"a":[{"b":1,"c":{"b":1}},{"b":2,"b":3}]}`, `{"b":{"a":1},"a":2}`, `{"a":{"a":{"a":1}}}`, `{"/":1,"\/":2}`, `{"\ud83d\ude00":1,"😀":2}`, `{"a":{"x":1},"b":{"x":1},"a":1}`,
	manyNames(10, "name3"), manyNames(31, "name30"), manyNames(32, "name31"), manyNames(33, "name0"), manyNames(64, "name63"), manyNames(100, "name99"), manyNames(100, "other"), manyNames(40, `name\u0033`),
	`{"x":` + manyNames(40, "other") + `,"y":` + manyNames(40, "name1") + `}`, `{"x":` + manyNames(40, "other") + `,"y":` + manyNames(40, "other") + `,"x":1}`,
	`{"a":` + nested(maxDepth-1) + `}`, `{"a":` + nested(maxDepth) + `}`, `{"a":` + strings.Repeat("[", 100000), `{"a":` + strings.Repeat(`{"a":`, maxDepth-2) + `1` + strings.Repeat("}", maxDepth-1),
	`{"a":` + strings.Repeat(`{"a":`, maxDepth) + `1` + strings.Repeat("}", maxDepth+1), `{"a":[` + strings.Repeat(nested(maxDepth-2)+",", 5) + `1]}`,
}

// The same JSON is accepted as by the other library.
func TestStrictness(t *testing.T) {
	accepted := 0
	for _, value := range strictness {
		_, err := ParseEvent([]byte(value))
		var fault *EventError
		if !errors.As(err, &fault) { // none of them is an event
			t.Fatalf("%.100q: %v", value, err)
		}
		want := strict([]byte(value))
		if (fault.Reason == ReasonNotJSON) != (want != nil) {
			t.Errorf("%.100q: %v; the other library says %v", value, err, want)
		}
		if want == nil {
			accepted++
		}
	}
	if accepted < 30 || accepted > len(strictness)-30 {
		t.Errorf("of %d values %d are JSON: the list proves little", len(strictness), accepted)
	}
}

var someTime = time.Date(2026, 11, 24, 21, 0, 0, 120000, time.UTC)

func TestWithEnvelope(t *testing.T) {
	const stamp = `"received_at":"2026-11-24T21:00:00.000120Z","partition_key":"w"`
	for value, want := range map[string]string{
		`{"event":"e","workspace_id":"w","event_id":"i"}`:                                     `{"event":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
		" {\n \"event\":\"e\", \"x\" : 1.50e0,\"workspace_id\":\"w\",\"event_id\":\"i\"\n}\n": " {\n \"event\":\"e\", \"x\" : 1.50e0,\"workspace_id\":\"w\",\"event_id\":\"i\"," + stamp + "\n}\n",
		// the sender's own, first, in the middle, last, and spelled with escapes
		`{"received_at":1,"event":"e","workspace_id":"w","event_id":"i"}`:                                 `{"event":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
		`{ "received_at":1 , "event":"e","workspace_id":"w","event_id":"i"}`:                              `{ "event":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
		`{"event":"e" , "partition_key" : {"a":[]} , "workspace_id":"w","event_id":"i"}`:                  `{"event":"e" , "workspace_id":"w","event_id":"i",` + stamp + `}`,
		`{"event":"e","workspace_id":"w","event_id":"i","partition_key":"x"  }`:                           `{"event":"e","workspace_id":"w","event_id":"i",` + stamp + `  }`,
		`{"\u0072eceived_at":"x","event":"e","workspace_id":"w","event_id":"i","partition\u005fkey":[1]}`: `{"event":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
		`{"received_at":1,"partition_key":2,"event":"e","workspace_id":"w","event_id":"i"}`:               `{"event":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
		`{"event":"e","workspace_id":"w","event_id":"i","received_at":1,"partition_key":2}`:               `{"event":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
		// only at the top
		`{"event":"e","workspace_id":"w","event_id":"i","x":{"received_at":1}}`: `{"event":"e","workspace_id":"w","event_id":"i","x":{"received_at":1},` + stamp + `}`,
		// names that only an alias carries; a null does not carry one
		`{"eventType":"e","workspaceId":"w","eventId":"i"}`:                  `{"eventType":"e","workspaceId":"w","eventId":"i","event":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
		`{"eventType":"\u00e9\"","share_id":"w","eventId":"i","event":null}`: `{"eventType":"\u00e9\"","share_id":"w","eventId":"i","event":"é\"","workspace_id":"w","event_id":"i",` + stamp + `}`,
		`{"event":"e","workspace_id":null,"profile_id":"w","event_id":"i"}`:  `{"event":"e","profile_id":"w","event_id":"i","workspace_id":"w",` + stamp + `}`,
		`{"\u0065vent":"e","workspace_id":"w","event_id":"i"}`:               `{"\u0065vent":"e","workspace_id":"w","event_id":"i",` + stamp + `}`,
	} {
		e, err := ParseEvent([]byte(value))
		if err != nil {
			t.Fatalf("%s: %v", value, err)
		}
		got, err := WithEnvelope([]byte(value), e, someTime)
		if err != nil {
			t.Fatalf("%s: %v", value, err)
		}
		if d := cmp.Diff(want, string(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", value, d)
		}
		enveloped(t, []byte(value))
	}
	e, err := ParseEvent([]byte(`{"eventType":"file.uploaded","workspace_id":"w","event_id":"i","canonical_event":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range []string{`{}`, `[]`, `{"a":1`} {
		if got, err := WithEnvelope([]byte(broken), e, someTime); err == nil {
			t.Errorf("%s became %s", broken, got)
		}
	}
}

// Every reader gets the canonical name from the ingress, and the sender's bytes are unchanged.
func TestWithEnvelopeOfAlias(t *testing.T) {
	const stamp = `"received_at":"2026-11-24T21:00:00.000120Z","partition_key":"w"`
	for value, want := range map[string]string{
		`{"event":"file.uploaded","workspace_id":"w","event_id":"i"}`:     `{"event":"file.uploaded","workspace_id":"w","event_id":"i","canonical_event":"workspace_storage_file_added",` + stamp + `}`,
		`{"eventType":"file.uploaded","workspace_id":"w","event_id":"i"}`: `{"eventType":"file.uploaded","workspace_id":"w","event_id":"i","event":"file.uploaded","canonical_event":"workspace_storage_file_added",` + stamp + `}`,
		// the sender's own is left out
		`{"event":"file.uploaded","canonical_event":"x","workspace_id":"w","event_id":"i"}`: `{"event":"file.uploaded","workspace_id":"w","event_id":"i","canonical_event":"workspace_storage_file_added",` + stamp + `}`,
	} {
		e, err := ParseEvent([]byte(value))
		if err != nil {
			t.Fatal(err)
		}
		e.SentEvent, e.Event = "file.uploaded", "workspace_storage_file_added"
		got, err := WithEnvelope([]byte(value), e, someTime)
		if d := cmp.Diff(want, string(got)); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", value, err, d)
		}
		read, err := ParseEvent(got)
		if err != nil || read.GetEvent() != "workspace_storage_file_added" || read.GetSentEvent() != "file.uploaded" {
			t.Errorf("%s was read as %v, %v", got, read, err)
		}
	}
}

// enveloped checks what must be true of the envelope of any event.
func enveloped(t *testing.T, value []byte) {
	t.Helper()
	e, err := ParseEvent(value)
	if err != nil {
		return
	}
	was := bytes.Clone(value)
	b, err := WithEnvelope(value, e, someTime)
	if err != nil {
		t.Fatalf("%q: %v", value, err)
	}
	if !bytes.Equal(value, was) {
		t.Fatalf("%q was changed to %q", was, value)
	}
	if err := strict(b); err != nil {
		t.Fatalf("%q became %q: %v", value, b, err)
	}
	again, err := ParseEvent(b)
	if err != nil {
		t.Fatalf("%q became %q: %v", value, b, err)
	}
	if again.GetReceivedAt() != someTime.UnixMicro() {
		t.Errorf("%q became %q", value, b)
	}
	again.ReceivedAt, again.Payload = e.GetReceivedAt(), e.GetPayload()
	if d := cmp.Diff(e, again, protocmp.Transform()); d != "" {
		t.Fatalf("%q became %q (-before +after):\n%s", value, b, d)
	}
	before, after := members(t, value), members(t, b)
	for name, raw := range before {
		added := name == "received_at" || name == "partition_key" || name == canonicalName ||
			raw == "null" && (name == "event" || name == "event_id" || name == "workspace_id")
		if !added && after[name] != raw {
			t.Errorf("%q became %q: %q is %s", value, b, name, after[name])
		}
	}
	for _, name := range []string{"event", "event_id", "workspace_id", "received_at", "partition_key"} {
		if after[name] == "" || after[name] == "null" {
			t.Errorf("%q became %q without %s", value, b, name)
		}
	}
}

// members returns the raw members of an object, by the other library.
func members(t *testing.T, b []byte) map[string]string {
	t.Helper()
	d := jsontext.NewDecoder(bytes.NewBuffer(paired(b)))
	if _, err := d.ReadToken(); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			t.Fatal(err)
		}
		key := name.String()
		value, err := d.ReadValue()
		if err != nil {
			t.Fatal(err)
		}
		all[key] = string(value)
	}
	return all
}

func FuzzParseEvent(f *testing.F) {
	for _, value := range strictness {
		if len(value) < 4096 {
			f.Add([]byte(value))
		}
	}
	f.Add(typical)
	f.Fuzz(func(t *testing.T, value []byte) {
		_, err := ParseEvent(value)
		var fault *EventError
		if err != nil && (!errors.As(err, &fault) || fault.Error() == "") {
			t.Fatalf("%q: %v", value, err)
		}
		notJSON := fault != nil && (fault.Reason == ReasonNotJSON || fault.Reason == ReasonNullValue)
		if want := strict(value); notJSON != (want != nil) {
			t.Fatalf("%q: %v; the other library says %v", value, err, want)
		}
		enveloped(t, value)
	})
}

// What is read as a notice is read the same once it was written.
func FuzzNotice(f *testing.F) {
	f.Add(appendNotice(nil, benchNotice()))
	f.Add([]byte(`{"workspace_id":"w","position":"1:2","member":{"id":"m","left":true},"payload":[1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNotice(data)
		if err != nil {
			return
		}
		again, err := parseNotice(appendNotice(nil, n))
		if err != nil {
			t.Fatalf("%q was read as %v and written as %q: %v", data, n, appendNotice(nil, n), err)
		}
		if n.GetAfter() == nil {
			n.Before = nil // nothing was there before nothing
		}
		if n.GetPayload() != nil && len(appendNotice(nil, n)) > maxNotice-len(n.GetPayload()) {
			return
		}
		if d := cmp.Diff(n, again, protocmp.Transform()); d != "" {
			t.Fatalf("%q (-read +read again):\n%s", data, d)
		}
	})
}

func BenchmarkWithEnvelope(b *testing.B) {
	e, err := ParseEvent(typical)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := WithEnvelope(typical, e, someTime); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var s scanner
		s.init(typical)
		for s.open(); s.next(); {
			s.value()
		}
		if err := s.end(); err != nil {
			b.Fatal(err)
		}
	}
}

// For comparison with BenchmarkScan: the other library reads the same names and values. It checks neither the depth nor
// lone surrogates. See docs/decisions/0018-json.md.
func BenchmarkJSONText(b *testing.B) {
	b.ReportAllocs()
	var buffer bytes.Buffer
	d := jsontext.NewDecoder(&buffer)
	for b.Loop() {
		if !utf8.Valid(typical) { // the option below is needed for lone surrogates
			b.Fatal("not UTF-8")
		}
		buffer = *bytes.NewBuffer(typical)
		d.Reset(&buffer, jsontext.AllowInvalidUTF8(true))
		for d.ReadToken(); d.PeekKind() != '}'; {
			if _, err := d.ReadValue(); err != nil {
				b.Fatal(err)
			}
			if _, err := d.ReadValue(); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := d.ReadToken(); err != nil {
			b.Fatal(err)
		}
	}
}

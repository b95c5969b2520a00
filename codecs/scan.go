package codecs

import (
	"bytes"
	"fmt"
)

// maxDepth is the maximum nesting of arrays and objects, the outermost included.
const maxDepth = 32

// maxValue keeps offsets within 31 bits. Kafka's records are far smaller.
const maxValue = 1 << 30

// A scanner reads one JSON object member by member and validates every byte. The caller opens the object and reads the
// value of each member with value or, if it is an object, enters it with open:
//
//	for s.open(); s.next(); {
//		switch string(s.name) { … s.value() … }
//	}
//	err := s.end()
//
// After the first error next returns false, and end returns that error.
//
// Package jsontext reads the same JSON, but it was slower: see docs/decisions/0018-json.md.
type scanner struct {
	b   []byte
	at  int // offset of the next byte
	err error

	name    []byte // of the current member, unescaped
	hash    uint8  // of the name
	start   int    // offset of the current member: the quote before its name
	kind    byte   // of the current value: '"' '0' 't' 'f' 'n' '{' '[', or 0 if the byte begins no value
	escaped bool   // the last value is a string with escapes
	lone    bool   // the last string has a lone surrogate

	frames [4]frame // the objects that were entered with open
	opened int
	depth  int // of arrays and objects around the next byte
	limit  int // of depth

	listed  [64]nameRef // the names so far in the objects around the next byte, to find duplicates
	names   int         // how many are listed
	scratch []byte      // unescaped names
}

// A frame is an object that was entered with open.
type frame struct {
	first bool // no member was read yet
	names names
}

// names are the names so far in one object.
type names struct {
	from int                 // index of the first in scanner.listed
	many map[string]struct{} // used in place of the list when there are more than fewNames, or when the list is full
}

const fewNames = 32

// A nameRef locates a name: in the JSON, or, if the highest bit of at is set, in scratch.
type nameRef struct {
	at, n uint32
	hash  uint8
}

const inScratch = 1 << 31

func (s *scanner) init(b []byte) {
	s.b, s.limit = b, maxDepth
	if len(b) > maxValue {
		s.fail("%d bytes are too many", len(b))
	}
	s.space()
}

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = notJSON(fmt.Sprintf(format, args...), s.at)
	}
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end: JSON has no 0 between its tokens.
func (s *scanner) peek() byte {
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

// open enters the object that begins at the next byte.
func (s *scanner) open() {
	if s.err != nil {
		return
	}
	if s.peek() != '{' {
		s.fail("want an object, found %s", s.describeNext())
		return
	}
	if !s.enter() {
		return
	}
	s.frames[s.opened] = frame{first: true, names: names{from: s.names}}
	s.opened++
}

// next reads the name of the next member, up to its value. After the last member it leaves the object and returns
// false.
func (s *scanner) next() bool {
	if s.err != nil {
		return false
	}
	f := &s.frames[s.opened-1]
	more := s.member(&f.names, f.first)
	f.first = false
	if !more {
		s.opened--
	}
	return more
}

// end checks that nothing follows the outermost object, and returns the first error.
func (s *scanner) end() error {
	if s.err == nil {
		if s.space(); s.at < len(s.b) {
			s.fail("want nothing after the object, found %s", s.describeNext())
		}
	}
	return s.err
}

func (s *scanner) enter() bool {
	s.at++
	if s.depth++; s.depth > s.limit {
		s.fail("arrays and objects are nested more than %d levels deep", s.limit)
		return false
	}
	return true
}

// member reads up to a member's value. After the last member it reads the end of the object and returns false.
func (s *scanner) member(seen *names, first bool) bool {
	s.space()
	switch c := s.peek(); {
	case c == '}':
		s.at++
		s.depth--
		s.names = seen.from
		return false
	case first:
	case c == ',':
		s.at++
		s.space()
	default:
		s.fail("want ',' or '}', found %s", s.describeNext())
		return false
	}
	if s.peek() != '"' {
		s.fail("want a name in quotes, found %s", s.describeNext())
		return false
	}
	s.start = s.at
	raw, escaped := s.text()
	if s.lone {
		s.fail("a lone surrogate in a name")
	}
	if s.err != nil || !s.addName(seen, raw, escaped) {
		return false
	}
	s.space()
	if s.peek() != ':' {
		s.fail("want ':', found %s", s.describeNext())
		return false
	}
	s.at++
	s.space()
	s.kind = kinds[s.peek()]
	return true
}

// addName sets the current name. It fails, and returns false, if the object has that name already.
func (s *scanner) addName(seen *names, raw []byte, escaped bool) bool {
	s.name, s.hash = raw, hashName(raw)
	ref := nameRef{at: uint32(s.start + 1), n: uint32(len(raw)), hash: s.hash}
	if escaped {
		from := len(s.scratch)
		s.scratch = appendUnescaped(s.scratch, raw)
		s.name = s.scratch[from:]
		s.hash = hashName(s.name)
		ref = nameRef{at: uint32(from) | inScratch, n: uint32(len(s.name)), hash: s.hash}
	}
	if seen.many == nil {
		for _, other := range s.listed[seen.from:s.names] {
			if other.n == ref.n && other.hash == ref.hash && bytes.Equal(s.listedName(other), s.name) {
				return s.duplicateName()
			}
		}
		if s.names-seen.from < fewNames && s.names < len(s.listed) {
			s.listed[s.names] = ref
			s.names++
			return true
		}
		seen.many = make(map[string]struct{}, 2*fewNames)
		for _, other := range s.listed[seen.from:s.names] {
			seen.many[string(s.listedName(other))] = struct{}{}
		}
	}
	if _, found := seen.many[string(s.name)]; found {
		return s.duplicateName()
	}
	seen.many[string(s.name)] = struct{}{}
	return true
}

func (s *scanner) duplicateName() bool {
	s.fail("the name %.60q occurs twice in one object", s.name)
	return false
}

func (s *scanner) listedName(r nameRef) []byte {
	if r.at&inScratch != 0 {
		at := r.at &^ inScratch
		return s.scratch[at : at+r.n]
	}
	return s.b[r.at : r.at+r.n]
}

// kinds maps the first byte of a value to its kind.
var kinds = [256]byte{
	'"': '"', '{': '{', '[': '[', 't': 't', 'f': 'f', 'n': 'n', '-': '0',
	'0': '0', '1': '0', '2': '0', '3': '0', '4': '0', '5': '0', '6': '0', '7': '0', '8': '0', '9': '0',
}

// value reads the value that begins at the next byte and returns its bytes; those of a string without the quotes.
func (s *scanner) value() []byte {
	if s.err != nil {
		return nil
	}
	start := s.at
	switch kinds[s.peek()] {
	case '"':
		var raw []byte
		raw, s.escaped = s.text()
		return raw
	case '0':
		s.number()
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	case '{':
		if s.enter() {
			seen := names{from: s.names}
			for first := true; s.member(&seen, first); first = false {
				s.value()
			}
		}
	case '[':
		if s.openArray() {
			s.array()
		}
	default:
		s.fail("want a value, found %s", s.describeNext())
	}
	if s.err != nil {
		return nil
	}
	return s.b[start:s.at]
}

func (s *scanner) array() {
	for first := true; s.element(first); first = false {
		s.value()
	}
}

// openArray enters the array that begins at the next byte, and reports whether there is one.
func (s *scanner) openArray() bool { return s.err == nil && s.peek() == '[' && s.enter() }

// element reads up to the next element of an array. After the last one it leaves the array and returns false.
func (s *scanner) element(first bool) bool {
	if s.err != nil {
		return false
	}
	s.space()
	switch c := s.peek(); {
	case c == ']':
		s.at++
		s.depth--
		return false
	case first:
	case c == ',':
		s.at++
		s.space()
	default:
		s.fail("want ',' or ']', found %s", s.describeNext())
	}
	return s.err == nil
}

func (s *scanner) literal(want string) {
	if end := s.at + len(want); end <= len(s.b) && string(s.b[s.at:end]) == want {
		s.at = end
		return
	}
	s.fail("want %s", want)
}

func (s *scanner) number() {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		s.digits()
	}
}

func (s *scanner) digits() bool {
	start := s.at
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.at++
	}
	if s.at == start {
		s.fail("want a digit, found %s", s.describeNext())
	}
	return s.at > start
}

// describeNext describes the next byte for an error.
func (s *scanner) describeNext() string {
	if s.at >= len(s.b) {
		return "the end"
	}
	return fmt.Sprintf("%q", s.b[s.at:s.at+1])
}

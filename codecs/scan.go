package codecs

import (
	"bytes"
	"fmt"
)

// maxDepth is how many arrays and objects may lie in each other, the outermost counted.
const maxDepth = 32

// maxValue keeps offsets within 31 bits. No record comes near it.
const maxValue = 1 << 30

// A scanner reads one JSON object, member by member, and validates every byte that it passes. Its user opens the object,
// then takes each member's value with value or, when it is an object, enters it with open:
//
//	for s.open(); s.next(); {
//		switch string(s.name) { … s.value() … }
//	}
//	err := s.end()
//
// After the first mistake next returns false and end says what it was.
type scanner struct {
	b   []byte
	at  int // of the next byte
	err error

	name    []byte // of the current member, decoded
	hash    uint8  // of the name
	start   int    // of the current member: its name's quote
	kind    byte   // of the current value: '"' '0' 't' 'f' 'n' '{' '[', or 0 when the byte begins none
	escaped bool   // the value just taken is a string with escapes
	lone    bool   // the string read last has half a pair of surrogates

	frames [4]frame // the objects that were entered with open
	opened int
	depth  int // containers around the next byte
	limit  int // of depth

	listed  [64]nameRef // the names of the objects around the next byte, which may not come again
	names   int         // how many are listed
	scratch []byte      // decoded names
}

// A frame is one object that is being read.
type frame struct {
	first bool // no member was read yet
	names names
}

// names are those that one object has had so far.
type names struct {
	from int                 // where in scanner.listed they begin
	many map[string]struct{} // instead, once there are more than the list holds or than should be searched through
}

const fewNames = 32

// A nameRef is where a name lies: in the value, or, with the highest bit of at set, decoded in scratch.
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

// peek returns the next byte, 0 at the end: no JSON has a 0 between its tokens.
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

// next reads the name of the next member, up to its value. It returns false behind the last, having left the object.
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

// end reads what may follow the outermost object, which is nothing, and returns the first mistake.
func (s *scanner) end() error {
	if s.err == nil {
		if s.space(); s.at < len(s.b) {
			s.fail("want nothing behind the object, found %s", s.describeNext())
		}
	}
	return s.err
}

func (s *scanner) enter() bool {
	s.at++
	if s.depth++; s.depth > s.limit {
		s.fail("more than %d arrays and objects lie in each other", s.limit)
		return false
	}
	return true
}

// member reads up to a member's value, or to behind the object's end, and then returns false.
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

// fresh sets the name and says whether its object has not had it yet.
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
	s.fail("the name %.60q comes twice in one object", s.name)
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

// value passes the value that begins at the next byte and returns its bytes; those of a string without the quotes.
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

// openArray enters the array that begins at the next byte, and says whether one does.
func (s *scanner) openArray() bool { return s.err == nil && s.peek() == '[' && s.enter() }

// element reads up to the next element of an array. It returns false behind the last, having left the array.
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

// found words the next byte for a person.
func (s *scanner) describeNext() string {
	if s.at >= len(s.b) {
		return "the end"
	}
	return fmt.Sprintf("%q", s.b[s.at:s.at+1])
}

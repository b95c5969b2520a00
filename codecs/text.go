package codecs

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special sets the highest bit of each byte of x that needs a closer look in a string: a control character, a quote, a
// backslash or a byte that is not ASCII. Only the lowest bit that is set is reliable.
func special(x uint64) uint64 {
	return ((x - ones*0x20) | ((x ^ ones*'"') - ones) | ((x ^ ones*'\\') - ones) | x) & highs
}

// text reads the string whose quote is the next byte and returns the bytes between its quotes.
func (s *scanner) text() (raw []byte, escaped bool) {
	b, i := s.b, s.at+1
	start := i
	s.lone = false
	for {
		for i+8 <= len(b) {
			mark := special(binary.LittleEndian.Uint64(b[i:]))
			if mark != 0 {
				i += bits.TrailingZeros64(mark) / 8
				break
			}
			i += 8
		}
		if i >= len(b) {
			s.at = len(b)
			s.fail("a string does not end")
			return nil, false
		}
		switch c := b[i]; {
		case c == '"':
			s.at = i + 1
			return b[start:i], escaped
		case c == '\\':
			escaped = true
			s.at = i
			if i = s.escape(i); s.err != nil {
				return nil, false
			}
		case c < ' ':
			s.at = i
			s.fail("the control character %#U in a string must be escaped", c)
			return nil, false
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				s.at = i
				s.fail("the byte %#x is not UTF-8", c)
				return nil, false
			}
			i += n
		}
	}
}

// escape checks the escape at i and returns the offset after it.
func (s *scanner) escape(i int) int {
	_, n := unescape(s.b[i:])
	switch {
	case n == 0:
		s.fail("a bad escape in a string")
	case n < 0:
		s.lone, n = true, loneBytes
	}
	return i + n
}

// loneBytes is the length of the escape of a lone surrogate.
const loneBytes = len(`\ud83d`)

// unescape decodes the escape that b begins with. n is its length, 0 if there is none, -1 if it is a lone surrogate.
func unescape(b []byte) (r rune, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return 0, 0
	}
	r, ok := hex4(b)
	if !ok {
		return 0, 0
	}
	switch {
	case 0xDC00 <= r && r < 0xE000:
		return utf8.RuneError, -1
	case r < 0xD800 || r >= 0xE000:
		return r, 6
	}
	low, ok := hex4(b[6:])
	if !ok || low < 0xDC00 || low >= 0xE000 {
		return utf8.RuneError, -1
	}
	return 0x10000 + (r-0xD800)<<10 + (low - 0xDC00), 12
}

// hex4 reads the four digits of the \u escape that b begins with.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendUnescaped appends raw, which a scanner has validated, without escapes. A lone surrogate becomes U+FFFD.
func appendUnescaped(b, raw []byte) []byte {
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			b = append(b, raw[i])
			i++
			continue
		}
		r, n := unescape(raw[i:])
		if n < 0 {
			n = loneBytes
		}
		b = utf8.AppendRune(b, r)
		i += n
	}
	return b
}

// appendString appends s in quotes. Invalid UTF-8, which only a row of another program can have, becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	if needsEscapes(s) {
		b, _ = jsontext.AppendQuote(b, s) // the error says only that something was replaced
		return b
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// needsEscapes reports whether s has a byte that needs a closer look in a JSON string, as nearly none has.
func needsEscapes(s string) bool {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		c := s[i : i+8]
		if special(uint64(c[0])|uint64(c[1])<<8|uint64(c[2])<<16|uint64(c[3])<<24|
			uint64(c[4])<<32|uint64(c[5])<<40|uint64(c[6])<<48|uint64(c[7])<<56) != 0 {
			return true
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return true
		}
	}
	return false
}

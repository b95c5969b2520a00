package codecs

import "math"

// parseSize reads an integer from 0 to 2^63-1 in any of JSON's spellings: 18233, 18233.0 and 1.8233e4 are equal.
func parseSize(b []byte) (int64, bool) {
	d, ok := parseDecimal(b)
	if !ok {
		return 0, false
	}
	n, whole, ok := d.scaled(0)
	return n, ok && whole && !d.negative
}

// parseUnix reads a Unix time, which may be negative, and returns microseconds. The magnitude gives the unit: 10^11
// seconds would be in the year 5138, so from there on it is milliseconds, from 10^14 on microseconds, from 10^17 on
// nanoseconds. It truncates to microseconds. It refuses eight digits, which are a date: as seconds they would be in
// 1970 to 1973.
func parseUnix(b []byte) (us int64, ok bool) {
	d, ok := parseDecimal(b)
	if !ok || len(b) == len("20260925") && leadingDigits(b) == len(b) {
		return 0, false
	}
	switch digits := d.n + d.exponent; {
	case digits <= 11:
		us, _, ok = d.scaled(6)
	case digits <= 14:
		us, _, ok = d.scaled(3)
	case digits <= 17:
		us, _, ok = d.scaled(0)
	case digits <= 20:
		us, _, ok = d.scaled(-3)
	default:
		return 0, false
	}
	if d.negative {
		us = -us
	}
	return us, ok
}

// A decimal is the number digits[:n] × 10^exponent. The first and the last digit are not zero; zero has no digits and
// exponent 0.
type decimal struct {
	digits   [maxDecimal]byte
	n        int
	exponent int
	negative bool
}

const (
	maxDecimal  = 64 // bytes of the longest number
	maxExponent = 1e6
)

// parseDecimal reads a JSON number of up to maxDecimal bytes.
func parseDecimal(b []byte) (d decimal, ok bool) {
	if len(b) > maxDecimal {
		return d, false
	}
	rest := b
	if len(rest) > 0 && rest[0] == '-' {
		d.negative, rest = true, rest[1:]
	}
	whole := leadingDigits(rest)
	if whole == 0 || whole > 1 && rest[0] == '0' {
		return d, false
	}
	d.n = copy(d.digits[:], rest[:whole])
	rest = rest[whole:]
	if len(rest) > 0 && rest[0] == '.' {
		fraction := leadingDigits(rest[1:])
		if fraction == 0 {
			return d, false
		}
		d.n += copy(d.digits[d.n:], rest[1:1+fraction])
		d.exponent, rest = -fraction, rest[1+fraction:]
	}
	if len(rest) > 0 {
		exponent, ok := parseExponent(rest)
		if !ok {
			return d, false
		}
		d.exponent += exponent
	}
	d.trim()
	return d, true
}

// trim removes leading and trailing zeros.
func (d *decimal) trim() {
	for d.n > 0 && d.digits[d.n-1] == '0' {
		d.n--
		d.exponent++
	}
	zeros := 0
	for zeros < d.n && d.digits[zeros] == '0' {
		zeros++
	}
	if d.n = copy(d.digits[:], d.digits[zeros:d.n]); d.n == 0 {
		d.exponent, d.negative = 0, false
	}
}

func leadingDigits(b []byte) (n int) {
	for n < len(b) && '0' <= b[n] && b[n] <= '9' {
		n++
	}
	return n
}

// parseExponent reads the exponent of a number with its "e". It is clamped to maxExponent, which no number that is
// accepted has.
func parseExponent(b []byte) (n int, ok bool) {
	if b[0] != 'e' && b[0] != 'E' {
		return 0, false
	}
	sign := 1
	if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		if b[0] == '-' {
			sign = -1
		}
		b = b[1:]
	}
	if len(b) == 0 || leadingDigits(b) < len(b) {
		return 0, false
	}
	for _, c := range b {
		n = min(n*10+int(c-'0'), maxExponent)
	}
	return sign * n, true
}

// scaled returns the integer part of |d| × 10^places and whether there is no fraction. It is not ok above 2^63-1.
func (d *decimal) scaled(places int) (n int64, whole, ok bool) {
	length := d.n + d.exponent + places
	if d.n > 0 && length > 19 {
		return 0, false, false
	}
	for i := range max(0, length) {
		digit := int64(0)
		if i < d.n {
			digit = int64(d.digits[i] - '0')
		}
		if n > (math.MaxInt64-digit)/10 {
			return 0, false, false
		}
		n = n*10 + digit
	}
	return n, length >= d.n || d.n == 0, true
}

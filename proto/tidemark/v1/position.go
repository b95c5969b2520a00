package tidemarkv1

import (
	"fmt"
	"math"
	"strconv"
)

// Text returns the position as clients see it, "partition:offset"; the empty string for nil.
func (p *Position) Text() string {
	if p == nil {
		return ""
	}
	return string(p.AppendText(nil))
}

// AppendText appends the text form of p.
func (p *Position) AppendText(b []byte) []byte {
	b = strconv.AppendInt(b, int64(p.GetPartition()), 10)
	b = append(b, ':')
	return strconv.AppendInt(b, p.GetOffset(), 10)
}

// ParsePosition reads the text form. Signs, leading zeros and spaces are refused: a position has one spelling.
func ParsePosition(s string) (*Position, error) {
	partition, offset, ok := ScanPosition(s)
	if !ok {
		return nil, fmt.Errorf("position %q is not of the form partition:offset, for example 7:1234", s)
	}
	return &Position{Partition: partition, Offset: offset}, nil
}

// ScanPosition is ParsePosition without an allocation.
func ScanPosition[T string | []byte](s T) (partition int32, offset int64, ok bool) {
	for i := range len(s) {
		if s[i] == ':' {
			p, ok1 := scanNumber(s[:i], math.MaxInt32)
			o, ok2 := scanNumber(s[i+1:], math.MaxInt64)
			return int32(p), int64(o), ok1 && ok2
		}
	}
	return 0, 0, false
}

// scanNumber reads decimal digits without leading zeros.
func scanNumber[T string | []byte](s T, limit uint64) (n uint64, ok bool) {
	if len(s) == 0 || len(s) > 19 || s[0] == '0' && len(s) > 1 { // 19 digits always fit into 64 bits
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + uint64(s[i]-'0')
	}
	return n, n <= limit
}

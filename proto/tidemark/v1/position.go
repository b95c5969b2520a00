package tidemarkv1

import (
	"fmt"
	"strconv"
	"strings"
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
	left, right, found := strings.Cut(s, ":")
	if found {
		partition, err1 := strconv.ParseInt(left, 10, 32)
		offset, err2 := strconv.ParseInt(right, 10, 64)
		p := &Position{Partition: int32(partition), Offset: offset}
		if err1 == nil && err2 == nil && partition >= 0 && offset >= 0 && p.Text() == s {
			return p, nil
		}
	}
	return nil, fmt.Errorf("position %q is not of the form partition:offset, for example 7:1234", s)
}

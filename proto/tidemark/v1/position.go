package tidemarkv1

import (
	"bytes"
	"fmt"
	"strconv"
)

// Text returns the text form, "partition:offset"; the empty string for nil.
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

// ParsePosition reads the text form.
func ParsePosition(s string) (*Position, error) {
	p := new(Position)
	if err := p.UnmarshalText([]byte(s)); err != nil {
		return nil, err
	}
	return p, nil
}

// UnmarshalText sets p to the position that b is the text form of. Signs, leading zeros and spaces are refused: a
// position has one spelling.
func (p *Position) UnmarshalText(b []byte) error {
	left, right, _ := bytes.Cut(b, []byte(":"))
	partition, err1 := strconv.ParseInt(string(left), 10, 32)
	offset, err2 := strconv.ParseInt(string(right), 10, 64)
	p.Partition, p.Offset = int32(partition), offset
	var room [32]byte
	if err1 != nil || err2 != nil || partition < 0 || offset < 0 || !bytes.Equal(p.AppendText(room[:0]), b) {
		return fmt.Errorf("position %q is not of the form partition:offset, for example 7:1234", b)
	}
	return nil
}

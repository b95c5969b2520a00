package views

import "bytes"

// A number over 2^53 - 1 loses digits in a client that reads numbers as doubles, as JavaScript does. Only sizes in
// bytes can be that large: versions and counts rise by one with each event. So only they become strings on request, and
// all of them, so that a field has one type.

// sizeFields are the fields that are sizes in bytes, as their names are in JSON.
var sizeFields = map[string]bool{
	`"size"`: true, `"bytes"`: true, `"bytes_added"`: true, `"bytes_removed"`: true,
}

// changeFields are the fields of a size that has changed.
var changeFields = map[string]bool{`"from"`: true, `"to"`: true}

// namedByOthers are the fields whose contents have names that a sender, or a model, has chosen.
var namedByOthers = map[string]bool{`"payload"`: true, `"by_type"`: true, `"predictions"`: true}

// sizesAsText returns JSON in which the sizes are strings. It may be a part of a document, or events with documents, as
// long as it begins and ends outside of a string.
func sizesAsText(b []byte) []byte { return numbersAsText(b, sizeFields) }

// numbersAsText returns JSON in which the numbers of some fields are strings.
func numbersAsText(b []byte, fields map[string]bool) []byte {
	out := make([]byte, 0, len(b)+len(b)/32)
	for {
		begin := bytes.IndexByte(b, '"')
		if begin < 0 {
			return append(out, b...)
		}
		end := endOfString(b, begin)
		name := b[begin:end]
		out, b = append(out, b[:end]...), b[end:]
		if len(b) == 0 || b[0] != ':' { // it is not a name
			continue
		}
		switch {
		case fields[string(name)]:
			if n := digits(b[1:]); n > 0 {
				out = append(append(append(out, ':', '"'), b[1:1+n]...), '"')
				b = b[1+n:]
			} else if n = 1 + endOfValue(b[1:]); n > 1 {
				out, b = append(out, numbersAsText(b[:n], changeFields)...), b[n:]
			}
		case namedByOthers[string(name)]:
			n := 1 + endOfValue(b[1:])
			out, b = append(out, b[:n]...), b[n:]
		}
	}
}

// endOfString returns the index after the string that begins at a quotation mark.
func endOfString(b []byte, begin int) int {
	for i := begin + 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// digits returns the length of the integer at the beginning.
func digits(b []byte) int {
	for i, c := range b {
		if (c < '0' || c > '9') && (c != '-' || i > 0) {
			return i
		}
	}
	return len(b)
}

// endOfValue returns the index after the object or array that b begins with; 0 if it begins with neither.
func endOfValue(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = endOfString(b, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth == 0 {
			if i == 0 {
				return 0
			}
			return i + 1
		}
	}
	return len(b)
}

package processors

import (
	"strconv"
	"strings"

	"github.com/lovoo/goka"

	"tidemark/topology"
)

// A letter is a dead letter on its way: what came, and what is said of it.
type letter struct {
	key, value []byte
	headers    goka.Headers // that came with it
	own        goka.Headers
}

// frame is what a batch of one record takes beside the keys and values in it, and more than that.
const frame = 512

// fit leaves out what is largest until the letter is not over limit. The brokers measure a batch as it is compressed, so a
// foreign producer's record may be larger than a letter can be; a letter that cannot be sent would end the group, for all
// workspaces, and again at each attempt. What is left out is said, by its length, and lies where the source record does.
func (l *letter) fit(limit int) {
	for frame+len(l.key)+len(l.value)+sizeOf(l.headers)+sizeOf(l.own) > limit {
		key, value, headers := len(l.key), len(l.value), sizeOf(l.headers)
		switch max(key, value, headers) {
		case 0:
			return // what we say ourselves is short
		case value:
			l.value = nil
			l.omitted(topology.HeaderValueOmitted, value)
		case key:
			l.key = []byte{}
			l.omitted(topology.HeaderKeyOmitted, key)
		default:
			l.omitted(topology.HeaderHeadersOmitted, textOf(l.headers))
			l.headers = nil
		}
	}
}

func (l *letter) omitted(header string, length int) {
	l.own[header] = strconv.AppendInt(nil, int64(length), 10)
}

// textOf is how many bytes of names and values headers have.
func textOf(headers goka.Headers) (n int) {
	for name, value := range headers {
		n += len(name) + len(value)
	}
	return n
}

// sizeOf is how much of a record headers take: each of them has two lengths, of at most five bytes.
func sizeOf(headers goka.Headers) int { return textOf(headers) + 10*len(headers) }

// foreign returns the headers that came with a record without those that only a dead letter has: a record that says of itself
// that it is resolved, for one, would not be listed.
func foreign(headers goka.Headers) goka.Headers {
	kept := make(goka.Headers, len(headers))
	for name, value := range headers {
		if !strings.HasPrefix(name, topology.DeadLetterPrefix) {
			kept[name] = value
		}
	}
	return kept
}

// maxDetail is how much is said of what to mend. A detail quotes what is wrong, which may be as long as a record.
const maxDetail = 1 << 10

func brief(detail string) string {
	if len(detail) <= maxDetail {
		return detail
	}
	return strings.ToValidUTF8(detail[:maxDetail], "") + "…"
}

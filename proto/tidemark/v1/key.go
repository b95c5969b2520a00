// Package tidemarkv1 has the records of tidemark, generated from tidemark.proto, and the text forms of record keys and
// positions. Each key and each position has one spelling. The rules for the records are in package file.
package tidemarkv1

import (
	"fmt"
	"net/url"
	"strings"
)

// JoinKey returns the record key of a file, "workspace/file", or that of the workspace itself if file is empty. Both
// parts are escaped, so the first "/" always ends the workspace.
func JoinKey(workspace, file string) string {
	if file == "" {
		return EscapePart(workspace)
	}
	return EscapePart(workspace) + "/" + EscapePart(file)
}

// SplitKey is the inverse of JoinKey; file is empty for the key of a workspace.
func SplitKey(key string) (workspace, file string, err error) {
	left, right, found := strings.Cut(key, "/")
	if workspace, err = UnescapePart(left); err != nil {
		return "", "", fmt.Errorf("workspace part of key %q: %w", key, err)
	}
	if !found {
		return workspace, "", nil
	}
	if right == "" {
		return "", "", fmt.Errorf("key %q names no file after its %q", key, "/")
	}
	if file, err = UnescapePart(right); err != nil {
		return "", "", fmt.Errorf("file part of key %q: %w", key, err)
	}
	return workspace, file, nil
}

// EscapePart percent-escapes the bytes that a part of a key must not contain: "/", "%", control bytes, and a leading
// "_", because goka uses the key "__offset".
func EscapePart(part string) string {
	n := 0
	for i := range len(part) {
		if escaped(part, i) {
			n++
		}
	}
	if n == 0 {
		return part
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(part) + 2*n)
	for i := range len(part) {
		if c := part[i]; escaped(part, i) {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func escaped(part string, i int) bool {
	c := part[i]
	return c == '/' || c == '%' || c < 0x20 || c == 0x7f || c == '_' && i == 0
}

// UnescapePart is the inverse of EscapePart. It refuses an escape that EscapePart would not have written, so that a
// part has one spelling.
func UnescapePart(part string) (string, error) {
	s, err := url.PathUnescape(part)
	if err != nil {
		return "", err
	}
	if EscapePart(s) != part {
		return "", fmt.Errorf("%q is not how %q is escaped", part, s)
	}
	return s, nil
}

package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const maxDepth = 32

// strictObject decodes a JSON object and rejects what the design rejects: bytes that are not UTF-8, a name twice in one
// object, more than 32 levels, anything but one object at the top. Names keep their exact case.
func strictObject(value []byte) (map[string]any, error) {
	if !utf8.Valid(value) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.UseNumber()
	v, err := strictValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	return object, nil
}

func strictValue(dec *json.Decoder, depth int) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if depth++; depth > maxDepth {
		return nil, errors.New("too deep")
	}
	if open == '[' {
		list := []any{}
		for dec.More() {
			v, err := strictValue(dec, depth)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	}
	object := map[string]any{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key := name.(string)
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("%q twice", key)
		}
		if object[key], err = strictValue(dec, depth); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token()
	return object, err
}

// A doc is a flat JSON object in a comparable form: each value with its type, times as instants, nulls left out.
type doc map[string]string

func text(s string) string    { return "text " + s }
func number(n int64) string   { return "number " + strconv.FormatInt(n, 10) }
func boolean(b bool) string   { return "bool " + strconv.FormatBool(b) }
func instant(us int64) string { return "time " + time.UnixMicro(us).UTC().Format(time.RFC3339Nano) }

// put adds a text that is absent when empty.
func (d doc) put(name, value string) {
	if value != "" {
		d[name] = text(value)
	}
}

func (d doc) putTime(name string, us *int64) {
	if us != nil {
		d[name] = instant(*us)
	}
}

// toDoc flattens a JSON object; the members in except are left to the caller.
func toDoc(object map[string]any, except ...string) doc {
	d := doc{}
	for name, value := range object {
		if value == nil || slices.Contains(except, name) {
			continue
		}
		switch v := value.(type) {
		case string:
			d[name] = text(v)
			if name != "at" && !strings.HasSuffix(name, "_at") {
				continue
			}
			if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
				if d[name] = "time not in UTC: " + v; strings.HasSuffix(v, "Z") {
					d[name] = "time " + at.UTC().Format(time.RFC3339Nano)
				}
			}
		case json.Number:
			d[name] = "number " + v.String()
		case bool:
			d[name] = boolean(v)
		default:
			raw, err := json.Marshal(v)
			if err != nil {
				panic(err) // it was just decoded
			}
			putJSON(d, name, json.RawMessage(raw), len(raw) == len("{}"))
		}
	}
	return d
}

// diff describes the members in which two docs differ.
func (d doc) diff(want doc) string {
	if maps.Equal(d, want) {
		return ""
	}
	var parts []string
	names := doc{}
	maps.Copy(names, want)
	maps.Copy(names, d)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got, wanted := d[name], want[name]; got != wanted {
			parts = append(parts, fmt.Sprintf("%s: found %q, wanted %q", name, got, wanted))
		}
	}
	return strings.Join(parts, "; ")
}

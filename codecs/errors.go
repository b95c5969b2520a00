package codecs

import (
	"bytes"
	"fmt"
	"regexp"
)

// Reasons why a record is not an event. They are written into dead letters and into HTTP answers.
const (
	ReasonNotJSON       = "not_json"
	ReasonMissingField  = "missing_field"
	ReasonBadField      = "bad_field"
	ReasonFieldTooLarge = "field_too_large"
	ReasonNullValue     = "null_value"
)

// An EventError is the reason why bytes are not an event, and what the sender should change.
type EventError struct {
	Reason string // one of the Reason constants
	Field  string // the field's canonical name, whatever alias the sender used; empty when the error is about no field
	Detail string
}

// Error returns what to change.
func (e *EventError) Error() string {
	if e.Field == "" {
		return e.Detail
	}
	return e.Field + ": " + e.Detail
}

func notJSON(detail string, at int) *EventError {
	return &EventError{Reason: ReasonNotJSON, Detail: fmt.Sprintf("not strict JSON at byte %d: %s", at, detail)}
}

// explain returns a more specific error where value is one of the forms that senders send in place of JSON.
func explain(value []byte, err error) error {
	zero := func(at int) bool { return len(value) > at && value[at] == 0 }
	switch form := formStart.Find(value); {
	case bytes.HasPrefix(value, []byte("\ufeff")):
		return notJSON("the body begins with a byte order mark: send UTF-8 without one", 0)
	case bytes.HasPrefix(value, []byte("\xff\xfe")), bytes.HasPrefix(value, []byte("\xfe\xff")), zero(0), zero(1):
		return notJSON("the body is in UTF-16 or UTF-32: send it in UTF-8", 0)
	case form == nil:
		return err
	case form[len(form)-1] != '=':
		return notJSON("the body is a multipart form: send the JSON object alone as the body", 0)
	default:
		return notJSON("the body is a form, name=value: send the JSON object alone as the body, without a name and "+
			"not percent-encoded", 0)
	}
}

// formStart matches the beginning of a form: a field's name, which may be percent-encoded, or a multipart boundary.
var formStart = regexp.MustCompile(`^(?:[A-Za-z0-9_.~*%+\[\]-]+=|--[^\r\n]+\r?\n[Cc]ontent-)`)

func badField(field, format string, args ...any) *EventError {
	return &EventError{Reason: ReasonBadField, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func missingField(field, detail string) *EventError {
	return &EventError{Reason: ReasonMissingField, Field: field, Detail: detail}
}

func wantString(field string, kind byte) *EventError {
	switch kind {
	case '"':
		return nil
	case '0':
		return badField(field, "is a number: send it as a string, as readers lose the last digits of long numbers")
	}
	return badField(field, "must be a string")
}

func wantID(field string, t text) *EventError {
	id := t.raw
	if t.lone { // two different ids would become the same
		return badField(field, "must not contain a lone surrogate")
	}
	if len(id) > MaxID {
		return badField(field, "%d bytes are more than %d", len(id), MaxID)
	}
	for i, c := range id {
		if c < ' ' || c == 0x7f || c == 0xc2 && id[i+1] < 0xa0 { // the last are U+0080 to U+009F
			return badField(field, "must not contain control characters: %q does", id)
		}
	}
	return nil
}

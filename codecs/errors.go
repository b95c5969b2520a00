package codecs

import (
	"bytes"
	"fmt"
	"regexp"
)

// Reasons why a record is not an event, as they are written into dead letters and refusals.
const (
	ReasonNotJSON       = "not_json"
	ReasonMissingField  = "missing_field"
	ReasonBadField      = "bad_field"
	ReasonFieldTooLarge = "field_too_large"
	ReasonNullValue     = "null_value"
)

// An EventError says why bytes are not an event, and what the sender should mend.
type EventError struct {
	Reason string // one of the Reason constants
	Field  string // the field by the name it has in this project, whatever alias it came by; empty when it is not about one
	Detail string
}

// Error says what to mend.
func (e *EventError) Error() string {
	if e.Field == "" {
		return e.Detail
	}
	return e.Field + ": " + e.Detail
}

func notJSON(detail string, at int) *EventError {
	return &EventError{Reason: ReasonNotJSON, Detail: fmt.Sprintf("not strict JSON at byte %d: %s", at, detail)}
}

// explain says what bytes are that are no JSON at all, when they are something that senders mistake for it.
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
		return notJSON("the body is a form, name=value: send the JSON object alone as the body, without a name and not percent-encoded", 0)
	}
}

// formStart is how a form begins: with a field's name, which may be percent-encoded, or with the boundary of its parts.
var formStart = regexp.MustCompile(`^(?:[A-Za-z0-9_.~*%+\[\]-]+=|--[^\r\n]+\r?\n[Cc]ontent-)`)

func badField(field, format string, args ...any) *EventError {
	return &EventError{Reason: ReasonBadField, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func missingField(field, detail string) *EventError {
	return &EventError{Reason: ReasonMissingField, Field: field, Detail: detail}
}

package codecs

import "fmt"

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

func bad(field, format string, args ...any) *EventError {
	return &EventError{Reason: ReasonBadField, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func missing(field, detail string) *EventError {
	return &EventError{Reason: ReasonMissingField, Field: field, Detail: detail}
}

package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A given is a filter that must not be empty when it is given: an empty variable of a script must not select
// everything.
type given string

var errEmptySelector = errors.New("it is empty: omit the flag to select all")

// UnmarshalText sets the value of a flag.
func (g *given) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errEmptySelector
	}
	*g = given(text)
	return nil
}

// A givenList is a list of such filters, separated by commas or with the flag repeated.
type givenList []string

// UnmarshalText adds values of a flag.
func (g *givenList) UnmarshalText(text []byte) error {
	values := strings.Split(string(text), ",")
	if slices.Contains(values, "") {
		return errEmptySelector
	}
	*g = append(*g, values...)
	return nil
}

// checkRate refuses an invalid rate.
func checkRate(flag string, rate float64) error {
	if math.IsNaN(rate) || math.IsInf(rate, 0) || rate < 0 {
		return usagef("%s %v: want a number per second, 0 for no limit", flag, rate)
	}
	return nil
}

// parseTime parses a time, a day, or a duration before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, s); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf(
		"%q: want a time like 2026-11-24T12:00:00Z, a day like 2026-11-24, or how long ago, like 36h", s)
}

// parseSince parses --since; empty means the beginning.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := parseTime(text, now)
	if err != nil {
		return at, usagef("--since %w", err)
	}
	return at, nil
}

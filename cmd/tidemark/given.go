package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A given is a selector that must say something when it is there: an empty variable of a script is not to select everything.
type given string

var errEmptySelector = errors.New("it is empty: leave the flag out to mean all")

// UnmarshalText takes a flag's value.
func (g *given) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errEmptySelector
	}
	*g = given(text)
	return nil
}

// A givenList is several, with commas between or the flag repeated.
type givenList []string

// UnmarshalText takes one of a flag's values.
func (g *givenList) UnmarshalText(text []byte) error {
	values := strings.Split(string(text), ",")
	if slices.Contains(values, "") {
		return errEmptySelector
	}
	*g = append(*g, values...)
	return nil
}

// checkRate refuses what is no number of events a second.
func checkRate(flag string, rate float64) error {
	if math.IsNaN(rate) || math.IsInf(rate, 0) || rate < 0 {
		return usagef("%s %v: want a number a second, 0 for no limit", flag, rate)
	}
	return nil
}

// parseTime reads a time, a day, or how long ago it was.
func parseTime(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, s); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want a time like 2026-11-24T12:00:00Z, a day like 2026-11-24, or how long ago, like 36h", s)
}

// parseSince reads a time, a day, or how long ago; nothing is the beginning.
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

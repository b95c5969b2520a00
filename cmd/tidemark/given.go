package main

import (
	"errors"
	"math"
	"slices"
	"strings"
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

package main

import (
	"errors"
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

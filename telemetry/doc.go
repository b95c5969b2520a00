// Package telemetry is what a running tidemark shows of itself: its log, its metrics and whether it is ready.
//
// It promises one log line format, one Prometheus registry and one admin handler to every command. It owns no socket and no
// goroutine, and it knows no role: a role brings its own metrics and its own answer to "are you ready".
package telemetry

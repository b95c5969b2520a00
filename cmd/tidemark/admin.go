package main

import (
	"net/http"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
	"tidemark/telemetry"
	"tidemark/topology"
)

// serveDeadLetters adds the dead letters to the admin address of a process that makes them.
func (h *host) serveDeadLetters(gate *startGate, config kafka.Config, streams topology.Streams) {
	show := func(r *kgo.Record) any { return newRecord(r) }
	h.dead = gate.handler(deadletters.NewHandler(deadletters.New(config, streams), show, h.log.With("role", "admin")))
}

// adminHandler serves what the admin address has.
func (h *host) adminHandler() http.Handler {
	health := telemetry.AdminHandler(h.registry, h.readiness)
	if h.dead == nil {
		return health
	}
	mux := http.NewServeMux()
	mux.Handle("/", health)
	mux.Handle("/dlq", h.dead)
	mux.Handle("/dlq/", h.dead)
	return mux
}

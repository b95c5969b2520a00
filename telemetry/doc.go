// Package telemetry has the logger, the Prometheus registry, readiness and the admin handler that every command uses.
//
// It opens no socket and starts no goroutine. It knows no role: a role registers its own metrics and readiness checks.
package telemetry

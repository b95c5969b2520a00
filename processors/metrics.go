package processors

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type fileMetrics struct {
	duplicates atomic.Int64
	folded     struct{ accepted, late, applied, duplicate, passed, unchanged, passedOn prometheus.Counter }
	dead       *prometheus.CounterVec
}

func newFileMetrics(r prometheus.Registerer) *fileMetrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_events_total",
		Help: "Events by what became of them: accepted, late (accepted, but newer ones came before it), duplicate, applied (found in the row after a restart), passed (touches no file), unchanged (said once more of an entry of a folder), passed_on (written by tidemark for an entry of a folder).",
	}, []string{"verdict"})
	dead := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_dead_letters_total", Help: "Events that went to the dead letters, by reason.",
	}, []string{"reason"})
	r.MustRegister(events, dead)
	for _, reason := range reasons { // a series that begins with its first event has no increase at it
		dead.WithLabelValues(reason)
	}
	m := &fileMetrics{dead: dead}
	m.folded.accepted = events.WithLabelValues("accepted")
	m.folded.late = events.WithLabelValues("late")
	m.folded.applied = events.WithLabelValues("applied")
	m.folded.duplicate = events.WithLabelValues("duplicate")
	m.folded.passed = events.WithLabelValues("passed")
	m.folded.unchanged = events.WithLabelValues("unchanged")
	m.folded.passedOn = events.WithLabelValues("passed_on")
	return m
}

func (m *fileMetrics) accepted(late bool) {
	if late {
		m.folded.late.Inc()
	} else {
		m.folded.accepted.Inc()
	}
}

func (m *fileMetrics) duplicate() {
	m.folded.duplicate.Inc()
	m.duplicates.Add(1)
}

type workspaceMetrics struct{ counted, repeated, unreadable prometheus.Counter }

func newWorkspaceMetrics(r prometheus.Registerer) *workspaceMetrics {
	notices := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_notices_total",
		Help: "Notices by what became of them in the workspaces table: counted, repeated, unreadable.",
	}, []string{"verdict"})
	r.MustRegister(notices)
	return &workspaceMetrics{
		counted:    notices.WithLabelValues("counted"),
		repeated:   notices.WithLabelValues("repeated"),
		unreadable: notices.WithLabelValues("unreadable"),
	}
}

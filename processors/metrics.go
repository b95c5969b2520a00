package processors

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

type fileMetrics struct {
	duplicates atomic.Int64
	folded     struct{ accepted, late, applied, duplicate, passed, unchanged, passedOn prometheus.Counter }
	dead       *prometheus.CounterVec
	unread     *prometheus.CounterVec
}

func newFileMetrics(r prometheus.Registerer) *fileMetrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_events_total",
		Help: "Events by what became of them: accepted, late (accepted, but newer ones came before it), duplicate, applied (found in the row after a restart), passed (touches no file), unchanged (said once more of an entry of a folder), passed_on (written by tidemark for an entry of a folder).",
	}, []string{"verdict"})
	dead := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_dead_letters_total", Help: "Events that went to the dead letters, by reason.",
	}, []string{"reason"})
	unread := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_unreadable_fields_total", Help: "Fields of events that were there and could not be read, by field: they count as absent.",
	}, []string{"field"})
	r.MustRegister(events, dead, unread)
	for _, reason := range reasons { // a series that begins with its first event has no increase at it
		dead.WithLabelValues(reason)
	}
	for _, field := range codecs.OptionalFields() {
		unread.WithLabelValues(field)
	}
	m := &fileMetrics{dead: dead, unread: unread}
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

// unreadable counts the fields of an event that count as absent because they could not be read.
func (m *fileMetrics) unreadable(e *tidemarkv1.Event) {
	for _, field := range e.GetUnreadable() {
		m.unread.WithLabelValues(field).Inc()
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

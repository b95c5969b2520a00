package processors

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

type fileMetrics struct {
	duplicates atomic.Int64
	events     struct{ accepted, late, applied, duplicate, noRow, unchanged, derived prometheus.Counter }
	dead       *prometheus.CounterVec
	unread     *prometheus.CounterVec
}

func newFileMetrics(r prometheus.Registerer) *fileMetrics {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_events_total",
		Help: "Events by outcome: accepted, late (accepted, with an older value for a field than the row), " +
			"duplicate, applied (processed again after a restart), passed (touches no file), unchanged (changes " +
			"nothing that is shown, for an entry of a folder), passed_on (derived for an entry of a folder).",
	}, []string{"verdict"})
	dead := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_dead_letters_total", Help: "Events that went to the dead letters, by reason.",
	}, []string{"reason"})
	unread := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_unreadable_fields_total",
		Help: "Fields of events that were there and could not be read, by field: they count as absent.",
	}, []string{"field"})
	r.MustRegister(events, dead, unread)
	for _, reason := range reasons { // rate() does not see the first event of a new series
		dead.WithLabelValues(reason)
	}
	for _, field := range codecs.OptionalFields() {
		unread.WithLabelValues(field)
	}
	m := &fileMetrics{dead: dead, unread: unread}
	m.events.accepted = events.WithLabelValues("accepted")
	m.events.late = events.WithLabelValues("late")
	m.events.applied = events.WithLabelValues("applied")
	m.events.duplicate = events.WithLabelValues("duplicate")
	m.events.noRow = events.WithLabelValues("passed")
	m.events.unchanged = events.WithLabelValues("unchanged")
	m.events.derived = events.WithLabelValues("passed_on")
	return m
}

func (m *fileMetrics) accepted(late bool) {
	if late {
		m.events.late.Inc()
	} else {
		m.events.accepted.Inc()
	}
}

// unreadable counts the fields of an event that could not be read.
func (m *fileMetrics) unreadable(e *tidemarkv1.Event) {
	for _, field := range e.GetUnreadable() {
		m.unread.WithLabelValues(field).Inc()
	}
}

func (m *fileMetrics) duplicate() {
	m.events.duplicate.Inc()
	m.duplicates.Add(1)
}

type workspaceMetrics struct{ counted, repeated, unreadable prometheus.Counter }

func newWorkspaceMetrics(r prometheus.Registerer) *workspaceMetrics {
	notices := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_notices_total",
		Help: "Notices by outcome in the workspaces table: counted, repeated, unreadable.",
	}, []string{"verdict"})
	r.MustRegister(notices)
	return &workspaceMetrics{
		counted:    notices.WithLabelValues("counted"),
		repeated:   notices.WithLabelValues("repeated"),
		unreadable: notices.WithLabelValues("unreadable"),
	}
}

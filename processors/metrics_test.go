package processors

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/codecs"
)

func TestUnreadableFieldsAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newFileMetrics(registry)
	e, err := codecs.ParseEvent([]byte(`{"event":"e","event_id":"i","workspace_id":"w","size":1.5,"created":"noon","name":"n"}`))
	if err != nil {
		t.Fatal(err)
	}
	m.unreadable(e)
	m.unreadable(e)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "tidemark_unreadable_fields_total" {
			for _, metric := range family.GetMetric() {
				counted[metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
			}
		}
	}
	if len(counted) != len(codecs.OptionalFields()) { // a series that begins with its first event has no increase at it
		t.Errorf("series %v, want one of each of %v", counted, codecs.OptionalFields())
	}
	for field, n := range counted {
		if unread := field == "size" || field == "created"; unread && n != 2 || !unread && n != 0 {
			t.Errorf("%s was counted %v times", field, n)
		}
	}
}

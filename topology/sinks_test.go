package topology_test

import (
	"slices"
	"testing"

	"tidemark/topology"
)

func TestSinks(t *testing.T) {
	s, err := topology.New("fastio", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	for name, reads := range map[string]bool{
		"search": true, "notify-urgent": true, "model-scan": true,
		"archive": false, // it rejects nothing
		"notify":  false, "notify-": false, "model": false, "search-x": false, "telegram": false, "": false,
	} {
		if got := s.RetriesTo(name); got != reads {
			t.Errorf("RetriesTo(%q) = %v", name, got)
		}
	}
	// Processes that run now must start on a cluster that has no topic of sinks, and whose ACLs do not mention them.
	for _, role := range []topology.Role{s.IngestRole(), s.ProcessRole(), s.ServeRole()} {
		for _, topic := range s.SinkTopics() {
			if slices.Contains(role.Uses(), topic) {
				t.Errorf("%s needs %s", role.Name, topic.Name)
			}
		}
		for _, acl := range role.ACLs() {
			if acl.Resource == topology.GroupResource && acl.Name == s.SinkGroup("search") {
				t.Errorf("%s needs the group %s", role.Name, acl.Name)
			}
		}
	}
	for _, acl := range s.NotifyRole().ACLs() {
		if acl.Resource == topology.GroupResource && (acl.Name != "fastio-sink-notify-" || !acl.Prefixed) {
			t.Errorf("notify: the ACL of its groups is %+v", acl)
		}
	}
}

// Every delivery has a key of its own, so compaction alone would keep all of them.
func TestDeliveriesExpire(t *testing.T) {
	s, err := topology.New("fastio", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[topology.Topic]string{
		s.Deliveries: "compact,delete 2592000000", s.Predictions: "compact ", s.SinkRetry: "delete 2592000000",
	} {
		if c := topic.Config(); c["cleanup.policy"]+" "+c["retention.ms"] != want {
			t.Errorf("%s: %v, want %s", topic.Name, c, want)
		}
	}
}

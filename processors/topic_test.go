package processors_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// deleteTopic deletes a topic and waits until the cluster has forgotten it.
func deleteTopic(t *testing.T, b *bench, name string) {
	t.Helper()
	admin := kadm.NewClient(b.client)
	if _, err := admin.DeleteTopic(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		topics, err := admin.ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !topics.Has(name) {
			b.client.PurgeTopicsFromClient(name)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s is still there", name)
}

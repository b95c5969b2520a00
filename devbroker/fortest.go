package devbroker

import (
	"context"
	"os"
	"strings"
)

// T is what ForTest needs of a *testing.T or *testing.B.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(f func())
}

// ForTest returns the brokers a test is to use: those named in KAFKA_BROKERS, separated by commas, else a broker of its own in
// memory that ends with the test. A cluster that is named outlives the test and is shared: choose a random topic prefix.
func ForTest(t T) []string {
	t.Helper()
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		t.Logf("on the cluster %s", brokers)
		return strings.Split(brokers, ",")
	}
	// Not the test's own context: that ends before the clean-up, and with it the broker under clients still draining.
	b, err := Start(context.Background(), Config{})
	if err != nil {
		t.Fatalf("start a broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close the broker: %v", err)
		}
	})
	return []string{b.Addr()}
}

package codecs

import (
	"testing"
)

var typical = []byte(`{"event":"workspace_storage_file_updated","workspace_id":"4821930571648203911","event_id":"evt_01J9ZK4T8W2M5N7Q9R3S6V8X0Y",` +
	`"object_id":"2abcdefghijklmnopqrstuvwxyz23","name":"q3 report.pdf","path":"/reports/2026/q3 report.pdf","parent_id":"2zyxwvutsrqponmlkjihgfedcba98",` +
	`"size":18233,"mime":"application/pdf","hash":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","user_id":"usr_0123456789",` +
	`"created":"2026-09-25 21:40:11 UTC","received_at":"2026-09-25T21:40:11.123456Z","partition_key":"4821930571648203911"}`)

func BenchmarkParseEvent(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(typical)))
	for b.Loop() {
		if _, err := ParseEvent(typical); err != nil {
			b.Fatal(err)
		}
	}
}

package history

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// benchNotice returns the notice of an event at an offset: the next change of one of 10,000 files.
func benchNotice(tb testing.TB, offset int64) []byte {
	tb.Helper()
	file := fmt.Sprintf("2abcdefghijk%08d", offset%10_000)
	state := func(version int64) *tidemarkv1.FileState {
		if version < 1 {
			return nil
		}
		at := 1_790_000_000_000_000 + version
		return &tidemarkv1.FileState{
			WorkspaceId: "4123456789012345678", FileId: file, Name: "quarterly report.pdf",
			ParentId: "2folder00000000000001",
			Path:     fmt.Sprintf("/customers/number %d/reports/2026/quarterly report.pdf", offset%10_000),
			Size:     new(18233 + version), Mime: "application/pdf",
			Hash:   fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Append(nil, offset, version))),
			Status: tidemarkv1.Status_STATUS_ACTIVE, Version: version, CreatedAt: &at, UpdatedAt: &at,
			ActorId: "5123456789012345678", LastEvent: "workspace_storage_file_updated",
			LastEventId: fmt.Sprintf("evt_%x", md5.Sum(fmt.Append(nil, offset, version))),
			Position:    &tidemarkv1.Position{Offset: offset - 10_000},
		}
	}
	version := offset/10_000 + 1
	after := state(version)
	after.Position = &tidemarkv1.Position{Offset: offset}
	value, err := codecs.Notice{}.Encode(&tidemarkv1.Notice{
		OpId: "4123456789012345678/evt/" + file, WorkspaceId: "4123456789012345678", FileId: file, Version: &version,
		EventId: after.LastEventId, Event: after.LastEvent, Position: after.Position,
		At:      *after.UpdatedAt + offset*1000,
		ActorId: after.ActorId, Before: state(version - 1), After: after,
		Payload: fmt.Appendf(nil, `{"payload":"%s"}`, strings.Repeat("x", 600)),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return value
}

// BenchmarkApply reports the time and the disk that a notice takes.
func BenchmarkApply(b *testing.B) {
	dir := b.TempDir()
	c := openCopy(b, dir)
	if _, err := c.Resume(0, kafka.Span{}, 0, -1, noon); err != nil {
		b.Fatal(err)
	}
	values := make([][]byte, b.N)
	for i := range values {
		values[i] = benchNotice(b, int64(i))
	}
	for i := range values {
		b.SetBytes(int64(len(values[i])))
	}
	b.ResetTimer()
	for i, value := range values {
		r := &kgo.Record{Offset: int64(i), Value: value, Timestamp: time.UnixMicro(1_790_000_100_000_000)}
		if err := c.Apply(r); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	var size int64
	if err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if info, statErr := e.Info(); err == nil && statErr == nil && !e.IsDir() {
			size += info.Size()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(size)/float64(b.N), "disk-B/op")
}

package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// The forms a log can take.
const (
	LogAuto = "auto" // text on a terminal, else JSON
	LogJSON = "json"
	LogText = "text"
)

// NewLogger returns a logger that writes records of at least level to w.
func NewLogger(w io.Writer, format string, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == LogText || format == LogAuto && IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// IsTerminal takes any character device for a terminal: the only other one met in practice is /dev/null, which reads nothing and
// answers nothing.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

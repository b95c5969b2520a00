package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// NewLogger returns a logger that writes records of at least level to w. The format is text, json, or auto: text on a
// terminal, else JSON.
func NewLogger(w io.Writer, format string, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// IsTerminal reports whether the stream is a character device: a terminal, or /dev/null, where it makes no difference.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

package committed

import (
	"fmt"
	"log/slog"

	"github.com/lovoo/goka"
)

// GokaLog logs goka's lines at debug level: failures that matter are returned as errors as well.
func GokaLog(log *slog.Logger) goka.Logger { return gokaLog{log} }

type gokaLog struct{ log *slog.Logger }

func (l gokaLog) Print(args ...any)   { l.log.Debug("goka", "text", fmt.Sprint(args...)) }
func (l gokaLog) Println(args ...any) { l.log.Debug("goka", "text", fmt.Sprintln(args...)) }
func (l gokaLog) Printf(format string, args ...any) {
	l.log.Debug("goka", "text", fmt.Sprintf(format, args...))
}

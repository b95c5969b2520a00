package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"tidemark/replay"
	"tidemark/telemetry"
)

// A bar shows progress: a bar on a terminal, else a line every few seconds.
type bar struct {
	w        io.Writer
	terminal bool
	begun    time.Time
	shown    time.Time
	last     replay.Progress
	drawn    replay.Progress
}

func newBar(w io.Writer) *bar {
	return &bar{w: w, terminal: telemetry.IsTerminal(w), begun: time.Now()}
}

// How often the bar is drawn, and how often a line is printed.
const (
	drawEvery = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

func (b *bar) show(p replay.Progress) {
	if b.last = p; p.Total == 0 {
		return
	}
	every := lineEvery
	if b.terminal {
		every = drawEvery
	}
	if time.Since(b.shown) >= every {
		b.draw()
	}
}

func (b *bar) draw() {
	b.shown, b.drawn = time.Now(), b.last
	share := float64(b.last.Done) / float64(b.last.Total)
	spent := time.Since(b.begun)
	text := fmt.Sprintf("%3.0f %%  %d of %d  %.0f/s", 100*share, b.last.Done, b.last.Total,
		float64(b.last.Done)/spent.Seconds())
	if share > 0 && share < 1 {
		text += "  " + time.Duration(float64(spent)*(1-share)/share).Round(time.Second).String() + " to go"
	}
	if !b.terminal {
		_, _ = fmt.Fprintln(b.w, text) // progress is only informative
		return
	}
	const width = 30
	full := int(share * width)
	// only informative
	_, _ = fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %s", strings.Repeat("=", full), strings.Repeat(" ", width-full), text)
}

// end draws the last state and ends the line.
func (b *bar) end() {
	if b.last.Total > 0 && b.drawn != b.last {
		b.draw()
	}
	if b.terminal && !b.shown.IsZero() {
		_, _ = fmt.Fprintln(b.w) // progress is only informative
	}
}

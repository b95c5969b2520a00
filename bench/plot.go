package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// A plot is a bar chart as SVG, readable on light and on dark pages.
type plot struct {
	file, title, unit string
	bars              []bar
}

// A bar shows a median, and the extremes as a line.
type bar struct {
	label            string
	median, min, max float64
	ours             bool // in another color
}

const (
	plotWidth = 760
	barLeft   = 270 // the labels are to the left
	barWidth  = 400
	barHeight = 18
	barPitch  = 28
	plotTop   = 44
)

// style has no background, and colors that are readable on white and on black: a page may be dark for a reader whose
// system is not.
const style = `<style>text{font:13px system-ui,sans-serif;fill:#7d8590}.title{font-weight:600;font-size:15px}` +
	`.axis{stroke:#8c959f}.ours{fill:#2f81f7}.peer{fill:#b9a57a}.range{stroke:#57606a;stroke-width:2}</style>`

func (p plot) svg() string {
	largest := 0.0
	for _, b := range p.bars {
		largest = max(largest, b.max)
	}
	x := func(v float64) float64 { return barLeft + barWidth*v/max(largest, math.SmallestNonzeroFloat64) }
	height := plotTop + barPitch*len(p.bars) + 8
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n",
		plotWidth, height, plotWidth, height)
	fmt.Fprintf(&s, "<title>%s, %s</title>\n%s\n", escape(p.title), escape(p.unit), style)
	fmt.Fprintf(&s, `<text class="title" x="8" y="22">%s, %s</text>`+"\n", escape(p.title), escape(p.unit))
	for i, b := range p.bars {
		top := plotTop + barPitch*i
		middle, class := float64(top)+barHeight/2.0, "peer"
		if b.ours {
			class = "ours"
		}
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`, barLeft-8, top+14, escape(b.label))
		fmt.Fprintf(&s, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`,
			class, barLeft, top, x(b.median)-barLeft, barHeight)
		fmt.Fprintf(&s, `<line class="range" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, x(b.min), middle, x(b.max), middle)
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%s</text>`+"\n", x(max(b.max, b.median))+8, top+14, short(b.median))
	}
	fmt.Fprintf(&s, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n</svg>\n",
		barLeft, plotTop-6, barLeft, height-8)
	return s.String()
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}

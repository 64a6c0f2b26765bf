package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// bar is one bar of a chart, or the heading of those below it.
type bar struct {
	label, text string
	value       float64
	ours        bool
	heading     bool
}

// The measures of a chart in pixels, and its colours, which are visible on white and on black: a page may have either.
const (
	chartWidth  = 800
	labelWidth  = 310
	numberWidth = 140
	rowHeight   = 34
	barHeight   = 20
	titleHeight = 40

	inkColor    = "#7d8590"
	oursColor   = "#2f81f7"
	othersColor = "#8b949e"
)

// drawBars draws a bar chart as SVG, with one row per bar. The longest bar takes all the space.
func drawBars(w io.Writer, title string, bars []bar) error {
	longest := 0.
	for _, b := range bars {
		longest = max(longest, b.value)
	}
	height := titleHeight + rowHeight*len(bars) + 8
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s"`+"\n",
		chartWidth, height, chartWidth, height, escaped(title))
	fmt.Fprintf(&s, `     font-family="system-ui, sans-serif" font-size="14" fill="%s">`+"\n", inkColor)
	fmt.Fprintf(&s, `<text x="0" y="20" font-size="16" font-weight="600">%s</text>`+"\n", escaped(title))
	for i, b := range bars {
		top := titleHeight + i*rowHeight
		base := top + barHeight/2 + 5 // of the text, centred on the bar
		if b.heading {
			fmt.Fprintf(&s, `<text x="0" y="%d" font-weight="600">%s</text>`+"\n", base+4, escaped(b.label))
			continue
		}
		width := 0.
		if longest > 0 {
			width = b.value / longest * (chartWidth - labelWidth - numberWidth)
		}
		color := othersColor
		if b.ours {
			color = oursColor
		}
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-12, base, escaped(b.label))
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="%d" rx="3" fill="%s"/>`+"\n", labelWidth, top, width, barHeight, color)
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%s</text>`+"\n", labelWidth+width+8, base, escaped(b.text))
	}
	s.WriteString("</svg>\n")
	_, err := io.WriteString(w, s.String())
	return err
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // writing to a strings.Builder does not fail
	return b.String()
}

package policy

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// maxLines bounds the output of print in one decision.
const maxLines = 100

// printed is the output of print in one evaluation. It is kept until the end of the decision, because OPA's evaluator may repeat what
// a program did.
type printed struct {
	lines   []printedLine
	dropped int // lines after the first maxLines
}

// printedLine is a line of the output of print.
type printedLine struct {
	file string
	line int
	text string
}

var _ print.Hook = (*printed)(nil)

// Print keeps a line.
func (p *printed) Print(at print.Context, text string) error {
	if len(p.lines) == maxLines {
		p.dropped++
		return nil
	}
	l := printedLine{text: cutText(text, maxPrinted)}
	if at.Location != nil {
		l.file, l.line = at.Location.File, at.Location.Row
	}
	p.lines = append(p.lines, l)
	return nil
}

// flush passes the output on.
func (p *printed) flush(print func(file string, line int, text string)) {
	for _, l := range p.lines {
		print(l.file, l.line, l.text)
	}
	if p.dropped > 0 {
		last := p.lines[len(p.lines)-1]
		print(last.file, last.line, fmt.Sprintf("this decision printed %d more lines, which are dropped", p.dropped))
	}
}

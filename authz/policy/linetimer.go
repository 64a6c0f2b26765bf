package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// lineTimer measures OPA's evaluator line by line. OPA's own profiler does too, but it changes the expressions that it meets, which other
// evaluations read, and it counts the time between two evaluations.
type lineTimer struct {
	expressions map[*ast.Location]*expression
	last        *expression // the one that is being evaluated, nil for none
	since       time.Time
}

// expression is what is known about the evaluations of an expression.
type expression struct {
	calls int
	took  time.Duration
}

var _ topdown.QueryTracer = (*lineTimer)(nil)

func newLineTimer() *lineTimer { return &lineTimer{expressions: make(map[*ast.Location]*expression)} }

// Enabled is always true.
func (l *lineTimer) Enabled() bool { return true }

// Config asks for no local variables.
func (l *lineTimer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent takes the time from one expression to the next.
func (l *lineTimer) TraceEvent(e topdown.Event) {
	x, ok := e.Node.(*ast.Expr)
	if !ok || e.Op != topdown.EvalOp && e.Op != topdown.RedoOp {
		return
	}
	l.pause()
	if x.Location == nil { // of the query
		return
	}
	next := l.expressions[x.Location]
	if next == nil {
		next = new(expression)
		l.expressions[x.Location] = next
	}
	if e.Op == topdown.EvalOp && !x.Negated { // a negated expression is evaluated as another one, which is at the same place
		next.calls++
	}
	l.last, l.since = next, time.Now()
}

// pause ends the time of the expression that is being evaluated.
func (l *lineTimer) pause() {
	if l.last != nil {
		l.last.took += time.Since(l.since)
		l.last = nil
	}
}

// calls tells about the lines, as means of n evaluations. The longest time comes first.
func (l *lineTimer) calls(n int) (out []authz.ProfiledCalls) {
	type place struct {
		file string
		row  int
	}
	index := make(map[place]int)
	for at, x := range l.expressions {
		if at.Row == 0 { // the query itself
			continue
		}
		i, ok := index[place{at.File, at.Row}]
		if !ok {
			i = len(out)
			index[place{at.File, at.Row}] = i
			out = append(out, authz.ProfiledCalls{File: at.File, Line: at.Row})
		}
		c := &out[i]
		c.Own += x.took / time.Duration(n)
		c.Calls = max(c.Calls, mean(x.calls, n)) // the compiler makes several expressions of one
		if text, _, _ := strings.Cut(string(at.Text), "\n"); len(text) > len(c.Name) || len(text) == len(c.Name) && text < c.Name {
			c.Name = text
		}
	}
	for i := range out {
		out[i].Evaluated = out[i].Calls
	}
	slices.SortFunc(out, func(a, b authz.ProfiledCalls) int {
		return cmp.Or(cmp.Compare(b.Own, a.Own), strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return out
}

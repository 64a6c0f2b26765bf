package rego

import "github.com/open-policy-agent/opa/v1/ir"

// enough is how the body of a loop ends that need not run again.
const enough = held - 1

// loop compiles a loop. That of an every expression ends at the first member for which its body does not hold: the plan marks such a
// member, and looks at the mark after the loop.
func (c *compiler) loop(s *ir.ScanStmt) (step, error) {
	if !marks(s.Block.Stmts) {
		return c.scan(s)
	}
	c.ends[s.Block] = enough
	all, err := c.scan(s)
	return func(f *frame) int {
		if end := all(f); end != outer(enough) {
			return end
		}
		return next
	}, err
}

// marks reports whether the body of a loop is that of an every expression: nothing else sets a local where another is undefined.
func marks(body []ir.Stmt) bool {
	if len(body) < 2 {
		return false
	}
	_, unless := body[len(body)-2].(*ir.IsUndefinedStmt)
	mark, ok := body[len(body)-1].(*ir.AssignVarStmt)
	return unless && ok && mark.Source.Value == ir.Bool(true)
}

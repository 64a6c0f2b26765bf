package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// read reads an operand. The result is nil if it is undefined.
type read func(f *frame) *ast.Term

// variable is a local of a rule. The locals of a rule are its own: another rule uses the same numbers for others.
type variable struct {
	rule  int // its number, or ofAll
	local ir.Local
}

// ofAll stands for the number of a rule where all rules of a function share a local: arguments, results and the value of one rule.
const ofAll = -1

func (c *compiler) variable(l ir.Local) variable {
	if l <= c.shared {
		return variable{ofAll, l}
	}
	return variable{c.rule, l}
}

// use makes room for a local in the frame, and returns its place there.
func (c *compiler) use(l ir.Local) int {
	c.locals = max(c.locals, int(l)+1)
	return int(l)
}

// useRead does too, for a local whose value a closure reads. No value is stored in a local that is not read.
func (c *compiler) useRead(l ir.Local) int {
	c.reading[c.variable(l)] = true
	return c.use(l)
}

// isRead reports whether a closure reads the value of a local.
func (c *compiler) isRead(l ir.Local) bool { return !c.final || c.read[c.variable(l)] }

func (c *compiler) local(l ir.Local) read {
	if t := c.known[l].value; t != nil {
		return func(*frame) *ast.Term { return t }
	}
	if s := c.known[l].slot; s != nil {
		number := c.numberOf(s)
		return func(f *frame) *ast.Term { return f.slots[number] }
	}
	i := c.useRead(l)
	if c.appended[l] {
		return func(f *frame) *ast.Term { return finished(f, i) }
	}
	return func(f *frame) *ast.Term { return f.locals[i] }
}

func (c *compiler) operand(o ir.Operand) read {
	switch v := o.Value.(type) {
	case ir.Local:
		return c.local(v)
	case ir.StringIndex:
		term := c.strings[v]
		return func(*frame) *ast.Term { return term }
	case ir.Bool:
		term := ast.InternedTerm(bool(v))
		return func(*frame) *ast.Term { return term }
	}
	return func(*frame) *ast.Term { return nil }
}

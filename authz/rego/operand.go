package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// read reads an operand. The result is nil if it is undefined.
type read func(f *frame) *ast.Term

// place is a local of a rule. The locals of a rule are its own: another rule uses the same numbers for others.
type place struct {
	rule  int // its number; -1 for arguments and results, which all rules share
	local ir.Local
}

func (c *compiler) place(l ir.Local) place {
	if l <= c.shared {
		return place{-1, l}
	}
	return place{c.at, l}
}

// use makes room for a local.
func (c *compiler) use(l ir.Local) int {
	c.locals = max(c.locals, int(l)+1)
	return int(l)
}

// dynamic makes room for a local whose value is read at run time.
func (c *compiler) dynamic(l ir.Local) int {
	c.reading[c.place(l)] = true
	return c.use(l)
}

// isRead reports whether the value of a local is read at run time.
func (c *compiler) isRead(l ir.Local) bool { return c.read == nil || c.read[c.place(l)] }

func (c *compiler) local(l ir.Local) read {
	if t := c.known[l].value; t != nil {
		return func(*frame) *ast.Term { return t }
	}
	if s := c.known[l].slot; s != nil {
		number := c.numberOf(s)
		return func(f *frame) *ast.Term { return f.slots[number] }
	}
	i := c.dynamic(l)
	if c.arrays[l] {
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

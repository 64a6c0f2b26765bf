package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// dot compiles the lookup of a member.
func (c *compiler) dot(s *ir.DotStmt, following ir.Stmt) step {
	if to := c.slotAfter(s); to != nil {
		return c.dotSlot(s, to, following)
	}
	// OPA's evaluator has an index of rules, which does not find base data under a name of another type.
	condition := c.tested[s.Target]
	if v := c.foldedDot(s); v != nil {
		if condition && member(c.value(s.Source), c.value(s.Key)) == nil {
			return func(f *frame) int { return f.fail(ErrUnsure) }
		}
		return c.constant(s.Target, v)
	}
	source, key, to := c.operand(s.Source), c.operand(s.Key), c.use(s.Target)
	if !c.factOf(s.Source).base {
		return func(f *frame) int {
			v := member(source(f), key(f))
			f.locals[to] = v
			if v == nil {
				return undef
			}
			return next
		}
	}
	return func(f *frame) int {
		from, k := source(f), key(f)
		v := member(from, k)
		if v == nil {
			if v = stored(from, k); v != nil && (condition || f.locals[ir.Data] != f.program.data) {
				return f.fail(ErrUnsure) // whether this part of the data is replaced is not known here
			}
		}
		f.locals[to] = v
		if v == nil {
			return undef
		}
		return next
	}
}

func (c *compiler) length(s *ir.LenStmt) step {
	source, to := c.operand(s.Source), c.use(s.Target)
	return func(f *frame) int {
		t := source(f)
		if t == nil {
			return undef
		}
		switch v := t.Value.(type) {
		case *ast.Array:
			f.locals[to] = ast.InternedTerm(v.Len())
		case ast.Object:
			f.locals[to] = ast.InternedTerm(v.Len())
		case ast.Set:
			f.locals[to] = ast.InternedTerm(v.Len())
		default:
			return undef
		}
		return next
	}
}

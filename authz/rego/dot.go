package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// dot compiles the lookup of a member. Without one, the statement is undefined.
func (c *compiler) dot(s *ir.DotStmt, following ir.Stmt) step {
	if to := c.slotAfter(s); to != nil {
		return c.dotSlot(s, to, following)
	}
	if v := c.foldedDot(s); v != nil {
		if c.tested[s.Target] && member(c.value(s.Source), c.value(s.Key)) == nil {
			return func(f *frame) int { return f.fail(ErrUnsure) } // see dotBase
		}
		return c.constant(s.Target, v)
	}
	if c.factOf(s.Source).base {
		return c.dotBase(s)
	}
	source, key, to := c.operand(s.Source), c.operand(s.Key), c.use(s.Target)
	return func(f *frame) int { return f.set(to, member(source(f), key(f))) }
}

// dotBase compiles the lookup of a member of base data, which may have a name of another type. OPA's evaluator does not find that in a
// condition, by its index of rules, and neither where data is replaced. Which data is replaced is not known here.
func (c *compiler) dotBase(s *ir.DotStmt) step {
	source, key, to, tested := c.operand(s.Source), c.operand(s.Key), c.use(s.Target), c.tested[s.Target]
	return func(f *frame) int {
		from, k := source(f), key(f)
		v := member(from, k)
		if v == nil {
			if v = stored(from, k); v != nil && (tested || f.locals[ir.Data] != f.program.data) {
				return f.fail(ErrUnsure)
			}
		}
		return f.set(to, v)
	}
}

// length compiles the count of the members of a collection. That of another value is undefined.
func (c *compiler) length(s *ir.LenStmt) step {
	source, to := c.operand(s.Source), c.use(s.Target)
	return func(f *frame) int {
		n, ok := size(source(f))
		if !ok {
			return undef
		}
		f.locals[to] = ast.InternedTerm(n)
		return next
	}
}

package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// assignment compiles statements that give a local a value.
func (c *compiler) assignment(s ir.Stmt) (out step, known bool) {
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		if v := c.value(s.Source); v != nil {
			return c.constant(s.Target, v), true
		}
		if c.factOf(s.Source).slot != nil && !c.isRead(s.Target) {
			return nil, true
		}
		source, to := c.operand(s.Source), c.use(s.Target)
		return func(f *frame) int { f.locals[to] = source(f); return next }, true
	case *ir.AssignVarOnceStmt:
		return c.assignOnce(s), true
	case *ir.ResetLocalStmt:
		return c.constant(s.Target, nil), true
	case *ir.MakeNullStmt, *ir.MakeNumberIntStmt, *ir.MakeNumberRefStmt, *ir.AssignIntStmt:
		return c.constant(targets(s)[0], c.scalar(s)), true
	}
	return nil, false
}

// constant compiles the assignment of a constant. It returns nil if nobody reads the local at run time.
func (c *compiler) constant(l ir.Local, value *ast.Term) step {
	if !c.isRead(l) {
		return nil
	}
	to := c.use(l)
	return func(f *frame) int { f.locals[to] = value; return next }
}

// assignOnce compiles the assignment of a rule's value. Two different ones are a conflict.
func (c *compiler) assignOnce(s *ir.AssignVarOnceStmt) step {
	source, to, conflict, end := c.operand(s.Source), c.useRead(s.Target), c.conflict(s), c.exit(s)
	return func(f *frame) int {
		v := source(f)
		switch old := f.locals[to]; {
		case old == nil:
			f.locals[to] = v
		case !equal(old, v):
			return f.fail(conflict)
		} // of equal numbers such as 1 and 1.0, the first counts
		return end
	}
}

// conflict is the error of two different values of one rule or function.
func (c *compiler) conflict(s *ir.AssignVarOnceStmt) error {
	path := c.function.rules()
	text := "rule " + path + " produced conflicting values"
	if len(c.function.params) > c.implicit[c.function.generation] {
		text = "function " + path + " produced conflicting values for the same inputs"
	}
	return &topdown.Error{Code: topdown.ConflictErr, Location: c.location(&s.Location), Message: text}
}

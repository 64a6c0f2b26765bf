package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// condition compiles statements that are undefined if a condition does not hold.
func (c *compiler) condition(s ir.Stmt) (out step, known bool) {
	var holds func(f *frame) bool
	switch s := s.(type) {
	case *ir.EqualStmt:
		if a, b := c.value(s.A), c.value(s.B); a != nil && b != nil {
			return always(equal(a, b)), true
		}
		c.noteEqual(s)
		holds = equality(c.operand(s.A), c.operand(s.B), c.value(s.A), c.value(s.B))
	case *ir.NotEqualStmt:
		if a, b := c.value(s.A), c.value(s.B); a != nil && b != nil {
			return always(!equal(a, b)), true
		}
		a, b := c.operand(s.A), c.operand(s.B)
		holds = func(f *frame) bool { return !equal(a(f), b(f)) }
	case *ir.IsDefinedStmt:
		source := c.local(s.Source)
		holds = func(f *frame) bool { return source(f) != nil }
	case *ir.IsUndefinedStmt:
		source := c.local(s.Source)
		holds = func(f *frame) bool { return source(f) == nil }
	case *ir.IsArrayStmt:
		holds = isA[*ast.Array](c.operand(s.Source))
	case *ir.IsObjectStmt:
		holds = isA[ast.Object](c.operand(s.Source))
	case *ir.IsSetStmt:
		holds = isA[ast.Set](c.operand(s.Source))
	default:
		return nil, false
	}
	return func(f *frame) int {
		if holds(f) {
			return next
		}
		return undef
	}, true
}

// always compiles a condition whose truth is known.
func always(holds bool) step {
	if holds {
		return nil
	}
	return func(*frame) int { return undef }
}

// equality compares two operands, of which one may be known.
func equality(a, b read, knownA, knownB *ast.Term) func(f *frame) bool {
	if knownA != nil {
		a, knownB = b, knownA
	}
	if knownB == nil {
		return func(f *frame) bool { return equal(a(f), b(f)) }
	}
	if text, ok := knownB.Value.(ast.String); ok {
		return func(f *frame) bool {
			t := a(f)
			if t == nil {
				return false
			}
			s, ok := t.Value.(ast.String)
			return ok && s == text
		}
	}
	return func(f *frame) bool { return equal(a(f), knownB) }
}

func isA[T ast.Value](source read) func(f *frame) bool {
	return func(f *frame) bool {
		t := source(f)
		if t == nil {
			return false
		}
		_, ok := t.Value.(T)
		return ok
	}
}

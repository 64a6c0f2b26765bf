package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// loop compiles a loop. That of an every expression ends at the first member for which its body does not hold: the plan marks such a
// member, and looks at the mark after the loop.
func (c *compiler) loop(s *ir.ScanStmt) (step, error) {
	if name := c.nameOf(s); name != nil {
		return c.lookup(s, name)
	}
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

// nameOf reads the name of the member that a loop over base data looks for: so a plan looks a member up beside packages. It is nil for
// other loops.
func (c *compiler) nameOf(s *ir.ScanStmt) read {
	if !c.known[s.Source].base || marks(s.Block.Stmts) || len(s.Block.Stmts) == 0 {
		return nil
	}
	if first, ok := s.Block.Stmts[0].(*ir.EqualStmt); ok && first.A.Value == s.Key {
		return c.operand(first.B)
	}
	return nil
}

// lookup compiles a loop over base data that looks for the member with a name.
func (c *compiler) lookup(s *ir.ScanStmt, name read) (step, error) {
	source := c.local(s.Source)
	all, err := c.scan(s)
	return func(f *frame) int {
		if from, k := source(f), name(f); member(from, k) == nil && stored(from, k) != nil {
			return f.fail(ErrUnsure) // the loop compares the name, and finds no other form of it
		}
		return all(f)
	}, err
}

func (c *compiler) scan(s *ir.ScanStmt) (step, error) {
	source, key, value, base, j := c.local(s.Source), c.use(s.Key), c.use(s.Value), c.known[s.Source].base, c.newJoin(s)
	from := c.known[s.Source].value
	c.known.forget(s) // the body runs again after its own changes
	c.known[s.Value] = fact{base: base}
	if from != nil {
		c.known[s.Key] = fact{part: &collectionPart{from, memberPart{key: true}}}
		c.known[s.Value] = fact{base: base, part: &collectionPart{from, memberPart{}}}
	}
	body, err := c.inner(s.Block)
	if err != nil {
		return nil, err
	}
	return func(f *frame) int {
		from := source(f)
		if from == nil {
			return next
		}
		visit := func(k, v *ast.Term) int {
			if f.interrupted() {
				return abort
			}
			f.locals[key], f.locals[value] = k, v
			return body.runInside(f)
		}
		if j == nil {
			return each(from, visit)
		}
		some, ok := j.candidates(f, from)
		if !ok {
			return each(from, visit)
		}
		for _, m := range some {
			if end := visit(m.key, m.value); end != next {
				return end
			}
		}
		if f.err != nil { // a value to compare with could not be found
			return abort
		}
		return next
	}, nil
}

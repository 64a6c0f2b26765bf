package rego

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ir"
)

// not compiles a negation. Its body holds if it runs to its end.
//
// OPA's planner continues inside some statements: the rest of an expression is in the body of a loop, or in a block that ends if it
// is undefined. Then the end of the body says nothing. So there the body holds if the innermost end is reached.
func (c *compiler) not(s *ir.NotStmt) (step, error) {
	proof, err := innermost(s.Block)
	if err != nil {
		return nil, err
	}
	loose := proof != s.Block
	if loose {
		c.ends[proof] = held
	}
	body, err := c.inner(s.Block)
	return func(f *frame) int {
		switch end := body.run(f); {
		case end == held, end == next && !loose:
			return undef
		case end <= undef:
			return next
		default:
			return outer(end)
		}
	}, err
}

// innermost returns the block at whose end the body of a negation holds.
func innermost(b *ir.Block) (*ir.Block, error) {
	if len(b.Stmts) == 0 {
		return b, nil
	}
	switch s := b.Stmts[len(b.Stmts)-1].(type) {
	case *ir.WithStmt:
		return innermost(s.Block)
	case *ir.ScanStmt:
		for _, before := range b.Stmts {
			if _, ok := before.(*ir.BlockStmt); ok {
				return nil, errNegated
			}
		}
		return innermost(s.Block)
	case *ir.BlockStmt:
		if len(s.Blocks) != 1 || !dispatches(s.Blocks[0]) {
			return nil, errNegated
		}
		if rest := s.Blocks[0]; len(rest.Stmts) > 1 {
			return innermost(rest)
		}
		return s.Blocks[0], nil
	}
	return b, nil
}

// errNegated is the error of a negation that OPA's planner expresses by one block for each package or rule that a variable may name.
var errNegated = errors.New("the negation of a reference with a variable that may name packages or rules")

// dispatches reports whether a block begins with the call of the function that a reference with variables names.
func dispatches(b *ir.Block) bool {
	found := false
	if len(b.Stmts) > 0 {
		visitStatements(inside(b.Stmts[0]), func(s ir.Stmt) {
			_, ok := s.(*ir.CallDynamicStmt)
			found = found || ok
		})
	}
	return found
}

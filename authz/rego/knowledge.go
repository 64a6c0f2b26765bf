package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// The compiler follows values that it knows: constants, and what they lead to in the base data. A local that is known costs
// nothing at run time. Locals are assigned several times, by different rules, so what is known changes from statement to
// statement.

// fact is what is known about the value of a local.
type fact struct {
	value *ast.Term // nil: unknown
	base  bool      // it is base data, of which a with statement may have replaced a part
	slot  *slot     // it is this part of the input
	// origin is the argument or the part of one that it is.
	origin *origin
	// part is the part of members of base data that it is.
	part *collectionPart
}

// knowledge is what is known before a statement.
type knowledge map[ir.Local]fact

// forget removes what some statements, and those inside them, may change.
func (k knowledge) forget(statements ...ir.Stmt) {
	visitStatements([]*ir.Block{{Stmts: statements}}, func(s ir.Stmt) {
		for _, l := range targets(s) {
			delete(k, l)
		}
	})
}

// learn notes what is known after a statement.
func (c *compiler) learn(s ir.Stmt) {
	var known fact
	switch s := s.(type) {
	case *ir.DotStmt:
		known = fact{value: c.foldedDot(s), base: c.factOf(s.Source).base, slot: c.slotAfter(s), origin: c.originAfter(s), part: c.partAfter(s)}
	case *ir.AssignVarStmt:
		// A with statement saves the base data in a local. Values that a rule gives a name are no longer base data.
		known = c.factOf(s.Source)
		known.base = known.base && s.Source.Value == ir.Data
	case *ir.MakeNullStmt, *ir.MakeNumberIntStmt, *ir.MakeNumberRefStmt, *ir.AssignIntStmt:
		known.value = c.scalar(s)
	}
	if c.options.noFolding {
		known.value = nil
	}
	for _, l := range targets(s) {
		delete(c.known, l)
		if known != (fact{}) {
			c.known[l] = known
		}
	}
}

// scalar returns the constant that a statement makes, nil for other statements.
func (c *compiler) scalar(s ir.Stmt) *ast.Term {
	switch s := s.(type) {
	case *ir.MakeNullStmt:
		return ast.NullTerm()
	case *ir.MakeNumberIntStmt:
		return ast.NumberTerm(jsonInt(s.Value))
	case *ir.AssignIntStmt:
		return ast.NumberTerm(jsonInt(s.Value))
	case *ir.MakeNumberRefStmt:
		return ast.NumberTerm(jsonNumber(c.policy.Static.Strings[s.Index].Value))
	}
	return nil
}

// factOf returns what is known about an operand.
func (c *compiler) factOf(o ir.Operand) fact {
	switch v := o.Value.(type) {
	case ir.Local:
		return c.known[v]
	case ir.StringIndex:
		return fact{value: c.strings[v]}
	case ir.Bool:
		return fact{value: ast.InternedTerm(bool(v))}
	}
	return fact{}
}

// value returns the value of an operand, nil if it is not known.
func (c *compiler) value(o ir.Operand) *ast.Term { return c.factOf(o).value }

// foldedDot returns the member that a statement looks up, nil if it is not known or does not exist.
func (c *compiler) foldedDot(s *ir.DotStmt) *ast.Term {
	from, key := c.value(s.Source), c.value(s.Key)
	if v := member(from, key); v != nil {
		return v
	}
	if c.factOf(s.Source).base {
		return stored(from, key)
	}
	return nil
}

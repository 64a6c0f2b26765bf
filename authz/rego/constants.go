package rego

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// constants finds collections that consist of constants. The statement that makes the empty collection gets the whole as its value, and
// those that fill it are left out. What is known is what is known before the block.
func (c *compiler) constants(b *ir.Block) (out []ir.Stmt, values map[ir.Stmt]*ast.Term) {
	if c.options.noFolding {
		return b.Stmts, nil
	}
	values = make(map[ir.Stmt]*ast.Term)
	before := c.known
	defer func() { c.known = before }()
	c.known = maps.Clone(before)
	for i := 0; i < len(b.Stmts); i++ {
		s := b.Stmts[i]
		out = append(out, s)
		c.known.forget(s)
		c.learnScalar(s)
		whole, n := c.wholeCollection(b.Stmts[i:])
		if whole == nil {
			continue
		}
		c.known[targets(s)[0]], values[s] = fact{value: whole}, whole
		for _, s := range b.Stmts[i+1 : i+n] {
			if c.scalar(s) != nil {
				out = append(out, s)
			}
		}
		i += n - 1
	}
	return out, values
}

// wholeCollection returns the collection that the first of some statements begins and the following ones fill with constants, and how
// many statements that is. It returns nil if they do not, or if statements elsewhere change the collection too.
func (c *compiler) wholeCollection(list []ir.Stmt) (whole *ast.Term, n int) {
	value, local, ok := emptyCollection(list[0])
	if !ok {
		return nil, 0
	}
	changes := 0
	for n = 1; n < len(list); n++ {
		if c.learnScalar(list[n]) {
			continue
		}
		grown, ok := c.grow(value, local, list[n])
		if !ok {
			break
		}
		value, changes = grown, changes+1
	}
	if changes != c.changes[local] {
		return nil, 0
	}
	return ast.NewTerm(value), n
}

// learnScalar notes the constant that a statement makes, and returns false for other statements.
func (c *compiler) learnScalar(s ir.Stmt) bool {
	v := c.scalar(s)
	if v != nil {
		c.known[targets(s)[0]] = fact{value: v}
	}
	return v != nil
}

func emptyCollection(s ir.Stmt) (ast.Value, ir.Local, bool) {
	switch s := s.(type) {
	case *ir.MakeSetStmt:
		return ast.NewSet(), s.Target, true
	case *ir.MakeArrayStmt:
		return ast.NewArray(), s.Target, true
	case *ir.MakeObjectStmt:
		return ast.NewObject(), s.Target, true
	}
	return nil, 0, false
}

// grow adds a constant to a collection that nobody else has yet.
func (c *compiler) grow(v ast.Value, local ir.Local, s ir.Stmt) (ast.Value, bool) {
	switch s := s.(type) {
	case *ir.SetAddStmt:
		if t := c.value(s.Value); s.Set == local && t != nil {
			v.(ast.Set).Add(t)
			return v, true
		}
	case *ir.ArrayAppendStmt:
		if t := c.value(s.Value); s.Array == local && t != nil {
			return v.(*ast.Array).Append(t), true
		}
	case *ir.ObjectInsertStmt:
		if k, t := c.value(s.Key), c.value(s.Value); s.Object == local && k != nil && t != nil {
			v.(ast.Object).Insert(k, t)
			return v, true
		}
	}
	return nil, false
}

package rego

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// constants finds collections that consist of constants, and replaces the statements that build them by one that assigns the
// whole. It looks at runs of statements that begin with the empty collection. It leaves alone a local that other statements
// change.
func (c *compiler) constants(b *ir.Block) (out []ir.Stmt, values map[ir.Stmt]*ast.Term) {
	if c.options.noFolding {
		return b.Stmts, nil
	}
	values = make(map[ir.Stmt]*ast.Term)
	known := maps.Clone(c.known)
	get := func(o ir.Operand) *ast.Term {
		if l, ok := o.Value.(ir.Local); ok {
			return known[l].value
		}
		return c.value(o)
	}
	for i := 0; i < len(b.Stmts); i++ {
		s := b.Stmts[i]
		out = append(out, s)
		known.forget(s)
		if v := c.scalar(s); v != nil {
			known[targets(s)[0]] = fact{value: v}
		}
		begin, local, ok := emptyCollection(s)
		if !ok {
			continue
		}
		value, changes, end := begin, 0, i+1
		for ; end < len(b.Stmts); end++ {
			s := b.Stmts[end]
			if v := c.scalar(s); v != nil {
				known[targets(s)[0]] = fact{value: v}
				continue
			}
			grown, ok := grow(value, local, s, get)
			if !ok {
				break
			}
			value, changes = grown, changes+1
		}
		if changes != c.changes[local] {
			continue
		}
		known[local] = fact{value: ast.NewTerm(value)}
		values[s] = known[local].value
		for _, s := range b.Stmts[i+1 : end] {
			if c.scalar(s) != nil {
				out = append(out, s)
			}
		}
		i = end - 1
	}
	return out, values
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
func grow(v ast.Value, local ir.Local, s ir.Stmt, get func(ir.Operand) *ast.Term) (ast.Value, bool) {
	switch s := s.(type) {
	case *ir.SetAddStmt:
		if t := get(s.Value); s.Set == local && t != nil {
			v.(ast.Set).Add(t)
			return v, true
		}
	case *ir.ArrayAppendStmt:
		if t := get(s.Value); s.Array == local && t != nil {
			return v.(*ast.Array).Append(t), true
		}
	case *ir.ObjectInsertStmt:
		if k, t := get(s.Key), get(s.Value); s.Object == local && k != nil && t != nil {
			v.(ast.Object).Insert(k, t)
			return v, true
		}
	}
	return nil, false
}

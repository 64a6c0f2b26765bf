package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// with compiles a block in which a value, or a part of it, is replaced. Functions without arguments have other values in it.
func (c *compiler) with(s *ir.WithStmt) (step, error) {
	local, value := c.useRead(s.Local), c.operand(s.Value)
	path := make([]*ast.Term, len(s.Path))
	for i, index := range s.Path {
		path[i] = c.strings[index]
	}
	before := c.known[s.Local]
	c.known[s.Local] = fact{base: before.base}
	if len(path) == 0 {
		c.known[s.Local] = fact{value: c.value(s.Value), base: before.base || c.factOf(s.Value).base}
	}
	body, err := c.inner(s.Block)
	c.known[s.Local] = before
	return func(f *frame) int {
		saved, memos := f.locals[local], f.memo
		f.locals[local] = upsert(saved, path, value(f))
		f.memo = make([]memo, len(memos))
		end := body.run(f)
		f.locals[local], f.memo = saved, memos
		if end > undef {
			return outer(end)
		}
		return end
	}, err
}

// upsert returns a value in which the part at a path is replaced. It copies what it changes.
func upsert(t *ast.Term, path []*ast.Term, value *ast.Term) *ast.Term {
	if len(path) == 0 {
		return value
	}
	out := ast.NewObject()
	if t != nil {
		if o, ok := t.Value.(ast.Object); ok {
			o.Foreach(func(k, v *ast.Term) { out.Insert(k, v) })
		}
	}
	return put(ast.NewTerm(out), path[0], upsert(out.Get(path[0]), path[1:], value))
}

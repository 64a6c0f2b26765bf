package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// memberPart is a part of each member of a collection.
type memberPart struct {
	key  bool // of its key, in place of its value
	path []*ast.Term
}

func (p memberPart) after(name *ast.Term) memberPart {
	return memberPart{p.key, append(p.path[:len(p.path):len(p.path)], name)}
}

// in returns the part of one member, nil if it has none.
func (p memberPart) in(k, v *ast.Term) *ast.Term {
	if p.key {
		return part(k, p.path)
	}
	return part(v, p.path)
}

// collectionPart is a part of each member of base data.
type collectionPart struct {
	collection *ast.Term
	memberPart
}

func (p *collectionPart) after(name *ast.Term) *collectionPart {
	return &collectionPart{p.collection, p.memberPart.after(name)}
}

// partAfter returns the part of members of base data that a statement looks up, nil for others.
func (c *compiler) partAfter(s *ir.DotStmt) *collectionPart {
	from, name := c.factOf(s.Source).part, c.value(s.Key)
	if from == nil || name == nil {
		return nil
	}
	return from.after(name)
}

package rego

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// The compiler follows values that it knows: constants, and what they lead to in the base data. A local that is known costs
// nothing at run time. Locals are assigned several times, by different rules, so what is known changes from statement to
// statement.

// replaces reports whether a statement replaces a document, or a part of it, for a part of the evaluation. Then it is not the same
// everywhere.
func replaces(p *ir.Policy, document ir.Local) bool {
	found := false
	visit := func(s ir.Stmt) {
		if w, ok := s.(*ir.WithStmt); ok && w.Local == document {
			found = true
		}
	}
	walkBlocks(p.Plans.Plans[0].Blocks, visit)
	if p.Funcs != nil {
		for _, f := range p.Funcs.Funcs {
			walkBlocks(f.Blocks, visit)
		}
	}
	return found
}

// walkBlocks visits all statements of some blocks, also those of blocks inside them.
func walkBlocks(blocks []*ir.Block, visit func(ir.Stmt)) {
	for _, b := range blocks {
		for _, s := range b.Stmts {
			visit(s)
			walkBlocks(inside(s), visit)
		}
	}
}

// inside are the blocks of a statement.
func inside(s ir.Stmt) []*ir.Block {
	switch s := s.(type) {
	case *ir.BlockStmt:
		return s.Blocks
	case *ir.NotStmt:
		return []*ir.Block{s.Block}
	case *ir.ScanStmt:
		return []*ir.Block{s.Block}
	case *ir.WithStmt:
		return []*ir.Block{s.Block}
	}
	return nil
}

// targets are the locals that a statement itself assigns or changes.
func targets(s ir.Stmt) []ir.Local {
	switch s := s.(type) {
	case *ir.CallStmt:
		return []ir.Local{s.Result}
	case *ir.CallDynamicStmt:
		return []ir.Local{s.Result}
	case *ir.DotStmt:
		return []ir.Local{s.Target}
	case *ir.LenStmt:
		return []ir.Local{s.Target}
	case *ir.ScanStmt:
		return []ir.Local{s.Key, s.Value}
	case *ir.AssignIntStmt:
		return []ir.Local{s.Target}
	case *ir.AssignVarStmt:
		return []ir.Local{s.Target}
	case *ir.AssignVarOnceStmt:
		return []ir.Local{s.Target}
	case *ir.ResetLocalStmt:
		return []ir.Local{s.Target}
	case *ir.MakeNullStmt:
		return []ir.Local{s.Target}
	case *ir.MakeNumberIntStmt:
		return []ir.Local{s.Target}
	case *ir.MakeNumberRefStmt:
		return []ir.Local{s.Target}
	case *ir.MakeArrayStmt:
		return []ir.Local{s.Target}
	case *ir.MakeObjectStmt:
		return []ir.Local{s.Target}
	case *ir.MakeSetStmt:
		return []ir.Local{s.Target}
	case *ir.ArrayAppendStmt:
		return []ir.Local{s.Array}
	case *ir.ObjectInsertStmt:
		return []ir.Local{s.Object}
	case *ir.ObjectInsertOnceStmt:
		return []ir.Local{s.Object}
	case *ir.ObjectMergeStmt:
		return []ir.Local{s.Target}
	case *ir.SetAddStmt:
		return []ir.Local{s.Set}
	}
	return nil // a with statement restores what it replaces
}

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
	walkBlocks([]*ir.Block{{Stmts: statements}}, func(s ir.Stmt) {
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
		known = fact{value: c.foldedDot(s), base: c.isBase(s.Source), slot: c.slotAfter(s), origin: c.originAfter(s), part: c.partAfter(s)}
	case *ir.AssignVarStmt:
		// A with statement saves the base data in a local. Values that a rule gives a name are no longer base data.
		known = fact{value: c.value(s.Source), slot: c.slotOf(s.Source), origin: c.originOf(s.Source), part: c.partOf(s.Source), base: s.Source.Value == ir.Data && c.isBase(s.Source)}
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

// value returns the value of an operand, nil if it is not known.
func (c *compiler) value(o ir.Operand) *ast.Term {
	switch v := o.Value.(type) {
	case ir.Local:
		return c.known[v].value
	case ir.StringIndex:
		return c.strings[v]
	case ir.Bool:
		return ast.InternedTerm(bool(v))
	}
	return nil
}

// isBase reports whether an operand is base data.
func (c *compiler) isBase(o ir.Operand) bool {
	l, ok := o.Value.(ir.Local)
	return ok && c.known[l].base
}

// foldedDot returns the member that a statement looks up, nil if it is not known or does not exist.
func (c *compiler) foldedDot(s *ir.DotStmt) *ast.Term {
	from, key := c.value(s.Source), c.value(s.Key)
	if v := member(from, key); v != nil {
		return v
	}
	if c.isBase(s.Source) {
		return stored(from, key)
	}
	return nil
}

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

package rego

import "github.com/open-policy-agent/opa/v1/ir"

// visitStatements visits all statements of some blocks, also those of blocks inside them.
func visitStatements(blocks []*ir.Block, visit func(ir.Stmt)) {
	for _, b := range blocks {
		for _, s := range b.Stmts {
			visit(s)
			visitStatements(inside(s), visit)
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

// replaces reports whether a statement replaces a document, or a part of it, for a part of the evaluation. Then it is not the same
// everywhere.
func replaces(p *ir.Policy, document ir.Local) bool {
	found := false
	visit := func(s ir.Stmt) {
		if w, ok := s.(*ir.WithStmt); ok && w.Local == document {
			found = true
		}
	}
	visitStatements(p.Plans.Plans[0].Blocks, visit)
	if p.Funcs != nil {
		for _, f := range p.Funcs.Funcs {
			visitStatements(f.Blocks, visit)
		}
	}
	return found
}

// changesOf counts the statements that change the collection in a local.
func changesOf(blocks ...*ir.Block) map[ir.Local]int {
	out := make(map[ir.Local]int)
	visitStatements(blocks, func(s ir.Stmt) {
		switch s := s.(type) {
		case *ir.ArrayAppendStmt:
			out[s.Array]++
		case *ir.SetAddStmt:
			out[s.Set]++
		case *ir.ObjectInsertStmt:
			out[s.Object]++
		case *ir.ObjectInsertOnceStmt:
			out[s.Object]++
		}
	})
	return out
}

// hasElse reports whether a block of a function has a rule with else.
func hasElse(b *ir.Block) bool {
	if len(b.Stmts) != 1 {
		return false
	}
	s, ok := b.Stmts[0].(*ir.BlockStmt)
	if !ok || len(s.Blocks) == 0 || len(s.Blocks[0].Stmts) == 0 {
		return false
	}
	_, ok = s.Blocks[0].Stmts[0].(*ir.ResetLocalStmt)
	return ok
}

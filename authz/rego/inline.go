package rego

import "github.com/open-policy-agent/opa/v1/ir"

// A plan looks base data up in two blocks: if the inner one runs to its end it ends the outer one, which otherwise ends the block around
// it. That is what the statements of the inner block do if they stand alone. Taken out, they are part of what the compiler follows.

// inlined returns a plan without such blocks. It does not change p.
func inlined(p *ir.Policy) *ir.Policy {
	out := *p
	main := *p.Plans.Plans[0]
	main.Blocks = inlinedBlocks(main.Blocks)
	out.Plans = &ir.Plans{Plans: []*ir.Plan{&main}}
	if p.Funcs == nil {
		return &out
	}
	out.Funcs = &ir.Funcs{Funcs: make([]*ir.Func, len(p.Funcs.Funcs))}
	for i, f := range p.Funcs.Funcs {
		changed := *f
		changed.Blocks = inlinedBlocks(f.Blocks)
		out.Funcs.Funcs[i] = &changed
	}
	return &out
}

func inlinedBlocks(list []*ir.Block) []*ir.Block {
	out := make([]*ir.Block, len(list))
	for i, b := range list {
		out[i] = inlinedBlock(b)
	}
	return out
}

func inlinedBlock(b *ir.Block) *ir.Block {
	out := &ir.Block{Stmts: make([]ir.Stmt, 0, len(b.Stmts))}
	for _, s := range b.Stmts {
		switch s := s.(type) {
		case *ir.BlockStmt:
			if lookup, ok := lookupOf(s); ok {
				out.Stmts = append(out.Stmts, lookup...)
				continue
			}
			out.Stmts = append(out.Stmts, &ir.BlockStmt{Blocks: inlinedBlocks(s.Blocks), Location: s.Location})
		case *ir.NotStmt:
			out.Stmts = append(out.Stmts, &ir.NotStmt{Block: inlinedBlock(s.Block), Location: s.Location})
		case *ir.ScanStmt:
			changed := *s
			changed.Block = inlinedBlock(s.Block)
			out.Stmts = append(out.Stmts, &changed)
		case *ir.WithStmt:
			changed := *s
			changed.Block = inlinedBlock(s.Block)
			out.Stmts = append(out.Stmts, &changed)
		default:
			out.Stmts = append(out.Stmts, s)
		}
	}
	return out
}

// lookupOf returns the statements of a lookup of base data, if that is all that some blocks are.
func lookupOf(s *ir.BlockStmt) ([]ir.Stmt, bool) {
	outer, ok := thenBreak(s)
	if !ok || len(outer) != 1 {
		return nil, false
	}
	middle, ok := outer[0].(*ir.BlockStmt)
	if !ok {
		return nil, false
	}
	inner, ok := thenBreak(middle)
	for _, s := range inner {
		switch s.(type) {
		case *ir.BlockStmt, *ir.NotStmt, *ir.ScanStmt, *ir.WithStmt, *ir.BreakStmt, *ir.CallDynamicStmt:
			return nil, false // they may break out of these blocks
		}
	}
	return inner, ok
}

// thenBreak returns the statements of the only block, if it ends by breaking out of the block around it.
func thenBreak(s *ir.BlockStmt) ([]ir.Stmt, bool) {
	if len(s.Blocks) != 1 {
		return nil, false
	}
	list := s.Blocks[0].Stmts
	if len(list) == 0 {
		return nil, false
	}
	end, ok := list[len(list)-1].(*ir.BreakStmt)
	return list[:len(list)-1], ok && end.Index == 1
}

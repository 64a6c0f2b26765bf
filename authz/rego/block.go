package rego

import (
	"fmt"
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// step is a compiled statement. It returns next, or how the block with the statement ends.
type step func(f *frame) int

// How a block ends. A number of 0 or more is the number of blocks around it that end too: 0 is what a statement returns that is
// undefined.
const (
	next   = -1       // the block has run to its end
	undef  = 0        // a statement was undefined
	enough = held - 1 // the body of a loop has run to its end, and need not run again
	held   = 1 << 29  // the body of a negation holds; all blocks end up to the negation
	abort  = 1 << 30  // the function returns, or the evaluation fails; all blocks end up to the function
)

// block is a compiled block.
type block []step

func (b block) run(f *frame) int {
	for _, s := range b {
		if end := s(f); end != next {
			return end
		}
	}
	return next
}

// set gives a local a value, and returns how the statement ends: undefined without a value.
func (f *frame) set(local int, v *ast.Term) int {
	f.locals[local] = v
	if v == nil {
		return undef
	}
	return next
}

// outer returns how a block ends if a block inside it ended by a break.
func outer(end int) int {
	if end >= held {
		return end
	}
	return end - 1
}

// runInside runs the block of a statement, and returns how the statement ends. It is defined even if the block is not.
func (b block) runInside(f *frame) int {
	if end := b.run(f); end > undef {
		return outer(end)
	}
	return next
}

// runAll runs blocks of a function, until one ends the function.
func runAll(blocks []block, f *frame) int {
	for _, b := range blocks {
		if end := b.run(f); end >= abort {
			return end
		}
	}
	return next
}

// blocks compiles blocks that run one after the other.
func (c *compiler) blocks(list []*ir.Block) ([]block, error) {
	out := make([]block, len(list))
	for i, b := range list {
		if c.hasElse && c.depth == 1 {
			c.rule++
		}
		var err error
		if out[i], err = c.inner(b); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// inner compiles a block that may end before its last statement. It begins with what is known now. Afterwards, what it may have
// changed is not known.
func (c *compiler) inner(b *ir.Block) (block, error) {
	after := maps.Clone(c.known)
	after.forget(b.Stmts...)
	c.depth++
	out, err := c.block(b)
	c.depth--
	c.known = after
	return out, err
}

func (c *compiler) block(b *ir.Block) (block, error) {
	statements, constants := c.constants(b)
	out := make(block, 0, len(statements)+1)
	for i := 0; i < len(statements); i++ {
		s := statements[i]
		if v := constants[s]; v != nil {
			l := targets(s)[0]
			if store := c.constant(l, v); store != nil {
				out = append(out, store)
			}
			c.known[l] = fact{value: v}
			continue
		}
		var following ir.Stmt
		if i+1 < len(statements) {
			following = statements[i+1]
		}
		var compiled step
		var err error
		if call, loop, ok := isWalk(s, following); ok && !c.options.noIndexes {
			compiled, err = c.walk(call, loop)
			i++
		} else {
			compiled, err = c.statement(s, following)
			c.learn(s)
		}
		if err != nil {
			if c.refused == nil {
				c.refused = s.GetLocation()
			}
			return nil, err
		}
		if compiled != nil {
			out = append(out, compiled)
		}
	}
	if end, ok := c.ends[b]; ok {
		out = append(out, func(*frame) int { return end })
	}
	return out, nil
}

// statement compiles a statement, which another one may follow. It returns nil for one that does nothing.
func (c *compiler) statement(s, following ir.Stmt) (step, error) {
	switch s := s.(type) {
	case *ir.NopStmt:
		return nil, nil
	case *ir.BlockStmt:
		return c.nested(s)
	case *ir.BreakStmt:
		end := int(s.Index)
		return func(*frame) int { return end }, nil
	case *ir.NotStmt:
		return c.not(s)
	case *ir.ScanStmt:
		if following == nil {
			c.noteScan(s)
		}
		return c.loop(s)
	case *ir.WithStmt:
		return c.with(s)
	case *ir.CallStmt:
		return c.call(s, following)
	case *ir.CallDynamicStmt:
		return c.callDynamic(s)
	case *ir.ReturnLocalStmt:
		c.useRead(s.Source)
		return func(*frame) int { return abort }, nil // the function's result is where it returns from
	case *ir.ResultSetAddStmt:
		value := c.local(s.Value)
		return func(f *frame) int { f.results = append(f.results, value(f)); return next }, nil
	case *ir.DotStmt:
		return c.dot(s, following), nil
	case *ir.LenStmt:
		return c.length(s), nil
	}
	if out, known := c.assignment(s); known {
		return out, nil
	}
	if out, known := c.condition(s); known {
		return out, nil
	}
	if out, known := c.collection(s); known {
		return out, nil
	}
	return nil, fmt.Errorf("unknown statement %T", s)
}

// nested compiles blocks that run one after the other, however each ends, unless one breaks out of the block around them.
func (c *compiler) nested(s *ir.BlockStmt) (step, error) {
	blocks, err := c.blocks(s.Blocks)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 1 {
		only := blocks[0]
		return func(f *frame) int { return only.runInside(f) }, nil
	}
	return func(f *frame) int {
		for _, b := range blocks {
			if end := b.runInside(f); end != next {
				return end
			}
		}
		return next
	}, nil
}

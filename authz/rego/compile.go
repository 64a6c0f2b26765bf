package rego

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// Compile turns a plan into a program. An error means that the plan has something that this package does not know.
func Compile(p *ir.Policy, o Options) (_ *Program, err error) {
	defer recovered(&err)
	if !o.noFolding {
		p = inlined(p)
	}
	c := &compiler{policy: p, options: &o, numbers: make(map[string]int), implicit: map[string]int{"g0": 2}, paths: newPathTree(), tables: make(map[string]table)}
	out := &Program{data: ast.NewTerm(ast.NewObject()), capabilities: o.Capabilities}
	if o.Data != nil {
		out.data = ast.NewTerm(o.Data)
	}
	if !replaces(p, ir.Data) && !o.noFolding {
		c.data = out.data
	}
	if !replaces(p, ir.Input) && !o.noSlots {
		c.input = newSlot(nil)
	}
	for _, s := range p.Static.Strings {
		c.strings = append(c.strings, ast.StringTerm(s.Value))
	}
	if p.Funcs != nil {
		for i, fn := range p.Funcs.Funcs {
			f := &function{number: i, name: fn.Name, generation: fn.Path[0], params: fn.Params, result: fn.Return, memo: len(fn.Params) <= implicit+maxRemembered}
			if n, ok := c.implicit[f.generation]; !ok || len(fn.Params) < n {
				c.implicit[f.generation] = len(fn.Params)
			}
			c.numbers[fn.Name] = i
			c.funcs = append(c.funcs, f)
			c.paths.add(fn.Path, f)
		}
		for i, fn := range p.Funcs.Funcs {
			c.funcs[i].file, c.funcs[i].line = c.firstPlace(fn.Blocks)
			if err := c.compileFunction(c.funcs[i], fn.Blocks, int(maxParam(fn))); err != nil {
				_, name, _ := strings.Cut(fn.Name, ".")
				return nil, fmt.Errorf("%s:%d: %s: %w", c.funcs[i].file, c.funcs[i].line, name, err)
			}
		}
	}
	out.funcs = c.funcs
	out.main = function{name: "the query"}
	err = c.compileFunction(&out.main, p.Plans.Plans[0].Blocks, int(ir.Data))
	out.joins = c.joins
	if c.input != nil {
		out.slots = c.slots
	}
	out.called = c.called
	return out, err
}

func maxParam(fn *ir.Func) ir.Local {
	last := max(fn.Return, ir.Data)
	for _, l := range fn.Params {
		last = max(last, l)
	}
	return last
}

// compiler holds what the compilation of statements needs.
type compiler struct {
	policy  *ir.Policy
	options *Options
	strings []*ast.Term
	numbers map[string]int // of functions, by name
	funcs   []*function
	paths   *pathTree
	// implicit are the numbers of arguments of rules that are no functions, by generation. A with statement that replaces functions
	// makes another generation of the rules that it reaches. These have two arguments, input and data, and one more for each function
	// that is replaced by a variable.
	implicit map[string]int
	data     *ast.Term  // the base data, nil if it may be replaced
	input    *slot      // the whole input, nil if it may be replaced
	slots    [][]string // the parts of the input that statements read, by number
	joins    int        // loops that make tables in an evaluation
	tables   map[string]table
	called   []string // the builtin functions that statements call, by number

	// The state of one function:
	function *function
	locals   int               // number of locals
	arrays   map[ir.Local]bool // locals that statements append to
	truths   map[ir.Local]bool // locals that must not be false: the expressions of a rule that are only a reference, and others
	changes  map[ir.Local]int  // the number of statements of the block that change the collection in a local
	known    knowledge
	ends     map[*ir.Block]int // how blocks end that run to their end, if not by next
	// read are the locals whose value is read at run time. It is nil the first time that a function is compiled, which finds
	// them, so that the second time no value is stored that nobody reads.
	read     map[place]bool
	depth    int         // of blocks
	outcomes []*ast.Term // the values of the rules, nil for those that are not constant
	uniform  bool        // they are all the same constant
	at       int         // the number of the rule, or of the rule after an else
	ordered  bool        // the block of the function has a rule and those after its else
	shared   ir.Local    // the last local that the blocks of the function share
	guards   []guard     // of the block
	reading  map[place]bool
	counting bool // the second time: slots get their numbers
}

func (c *compiler) compileFunction(f *function, blocks []*ir.Block, last int) error {
	c.function, c.arrays, c.truths = f, make(map[ir.Local]bool), make(map[ir.Local]bool)
	walkBlocks(blocks, func(s ir.Stmt) {
		switch s := s.(type) {
		case *ir.ArrayAppendStmt:
			c.arrays[s.Array] = true
		case *ir.NotEqualStmt:
			if l, ok := s.A.Value.(ir.Local); ok && s.B.Value == ir.Bool(false) {
				c.truths[l] = true
			}
		}
	})
	c.shared = ir.Local(last)
	if len(f.params) > 0 {
		c.shared++ // the result of one rule
	}
	c.read, c.outcomes, c.uniform = nil, nil, false
	all := changesOf(blocks...)
	for pass := range 2 {
		c.counting = pass == 1
		c.locals, c.known, c.reading = last+1, make(knowledge), map[place]bool{{-1, f.result}: true}
		c.ends = make(map[*ir.Block]int)
		c.known[ir.Data] = fact{value: c.data, base: true}
		c.known[ir.Input] = fact{slot: c.input}
		if c.input == nil {
			c.known[ir.Input] = fact{origin: &origin{argument: ir.Input}}
		}
		for i := int(ir.Data) + 1; i < len(f.params); i++ {
			c.known[f.params[i]] = fact{origin: &origin{argument: f.params[i]}}
		}
		var err error
		f.blocks = make([]block, len(blocks))
		found := make([][]guard, len(blocks))
		c.at = 0
		for i, b := range blocks {
			c.at++
			c.ordered, c.guards, c.changes = isOrdered(b), nil, changesOf(b)
			for l := ir.Local(0); l <= c.shared; l++ {
				c.changes[l] = all[l]
			}
			if f.blocks[i], err = c.inner(b); err != nil {
				return err
			}
			found[i] = c.guards
		}
		if !c.options.noIndexes {
			f.blocks = indexed(blocks, f.blocks, found)
		}
		f.locals, c.read, c.uniform = c.locals, c.reading, c.isUniform(blocks)
	}
	return nil
}

func (c *compiler) location(l *ir.Location) *ast.Location {
	out := &ast.Location{Row: l.Row, Col: l.Col, Text: l.Text}
	if l.File >= 0 && l.File < len(c.policy.Static.Files) {
		out.File = c.policy.Static.Files[l.File].Value
	}
	return out
}

package rego

import (
	"cmp"
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
	out := &Program{data: ast.NewTerm(ast.NewObject()), capabilities: o.Capabilities, main: function{name: "the query"}}
	if o.Data != nil {
		out.data = ast.NewTerm(o.Data)
	}
	c := newCompiler(p, &o, out.data)
	if p.Funcs != nil {
		if err := c.functions(p.Funcs.Funcs); err != nil {
			return nil, err
		}
	}
	if err := c.compile(&out.main, p.Plans.Plans[0].Blocks, ir.Data); err != nil {
		return nil, err
	}
	out.funcs, out.joins, out.called = c.funcs, c.joins, c.called
	if c.input != nil {
		out.slots = c.slots
	}
	return out, nil
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
	// makes another generation of the rules that it reaches. These have the documents as arguments, and one more for each function
	// that is replaced by a variable.
	implicit map[string]int
	data     *ast.Term    // the base data, nil if it may be replaced
	refused  *ir.Location // of the innermost statement that cannot be compiled
	input    *slot        // the whole input, nil if it may be replaced
	slots    [][]string   // the parts of the input that closures read, by number
	joins    int          // loops that make tables in an evaluation
	tables   map[string]table
	called   []string // the builtin functions that closures call, by number

	functionState
}

// functionState is the state of the compilation of one function. Each function is compiled twice: the closures of the first pass are
// thrown away, but it finds out which values anyone reads, and whether all rules have the same value. The second pass is final.
type functionState struct {
	function *function
	final    bool
	read     map[variable]bool // whose values closures read, as the first pass found
	reading  map[variable]bool // the same, as far as this pass has come
	uniform  bool              // all rules have the same constant value, as the first pass found
	values   []*ast.Term       // of the rules, as far as this pass has come; nil for those that are not constant

	locals   int      // number of locals
	shared   ir.Local // the last local that all blocks of the function share
	appended map[ir.Local]bool
	tested   map[ir.Local]bool // locals that must not be false, such as that of an expression that is only a reference
	ends     map[*ir.Block]int // how blocks end that run to their end, if not by next

	// Where the compilation is:
	known   knowledge
	depth   int              // of blocks
	rule    int              // the number of the rule; one after an else has its own
	hasElse bool             // the block of the function has a rule and those after its else
	changes map[ir.Local]int // how many statements of the block of the function change the collection in a local
	guards  []guard          // of the block of the function
}

func newCompiler(p *ir.Policy, o *Options, data *ast.Term) *compiler {
	c := &compiler{
		policy: p, options: o, numbers: make(map[string]int), implicit: map[string]int{firstGeneration: documents},
		paths: newPathTree(), tables: make(map[string]table),
	}
	if !replaces(p, ir.Data) && !o.noFolding {
		c.data = data
	}
	if !replaces(p, ir.Input) && !o.noSlots {
		c.input = newSlot(nil)
	}
	for _, s := range p.Static.Strings {
		c.strings = append(c.strings, ast.StringTerm(s.Value))
	}
	return c
}

// functions compiles the functions of a plan. All are known before the first is compiled, because it may call any.
func (c *compiler) functions(list []*ir.Func) error {
	for i, fn := range list {
		f := &function{
			number: i, name: fn.Name, generation: fn.Path[0], params: fn.Params, result: fn.Return,
			remembers: len(fn.Params) <= documents+maxRemembered,
		}
		f.file, f.line = c.firstLocation(fn.Blocks)
		if n, ok := c.implicit[f.generation]; !ok || len(fn.Params) < n {
			c.implicit[f.generation] = len(fn.Params)
		}
		c.numbers[fn.Name] = i
		c.funcs = append(c.funcs, f)
		c.paths.add(fn.Path, f)
	}
	for i, fn := range list {
		f := c.funcs[i]
		if err := c.compile(f, fn.Blocks, lastShared(fn)); err != nil {
			if at := c.refused; at != nil && at.Row > 0 {
				f.file, f.line = c.location(at).File, at.Row
			}
			return fmt.Errorf("%s:%d: %s: %w", f.file, f.line, f.rules(), err)
		}
	}
	return nil
}

// lastShared returns the last of the arguments and the result of a function.
func lastShared(fn *ir.Func) ir.Local {
	last := max(fn.Return, ir.Data)
	for _, l := range fn.Params {
		last = max(last, l)
	}
	return last
}

// compile compiles a function. The last of the locals that its blocks share is that of an argument or the result.
func (c *compiler) compile(f *function, blocks []*ir.Block, last ir.Local) error {
	c.functionState = functionState{
		function: f, shared: last, appended: make(map[ir.Local]bool), tested: make(map[ir.Local]bool), ends: make(map[*ir.Block]int),
	}
	if len(f.params) > 0 {
		c.shared++ // the value of one rule
	}
	visitStatements(blocks, func(s ir.Stmt) {
		switch s := s.(type) {
		case *ir.ArrayAppendStmt:
			c.appended[s.Array] = true
		case *ir.NotEqualStmt:
			if l, ok := s.A.Value.(ir.Local); ok && s.B.Value == ir.Bool(false) {
				c.tested[l] = true
			}
		}
	})
	for _, c.final = range []bool{false, true} {
		if err := c.pass(blocks, last); err != nil {
			return err
		}
	}
	return nil
}

// pass compiles the blocks of the function.
func (c *compiler) pass(blocks []*ir.Block, last ir.Local) (err error) {
	f := c.function
	c.locals, c.reading, c.values, c.rule = int(last)+1, map[variable]bool{{ofAll, f.result}: true}, nil, 0
	c.known = c.atBegin(f)
	f.blocks = make([]block, len(blocks))
	guards, all := make([][]guard, len(blocks)), changesOf(blocks...)
	for i, b := range blocks {
		c.rule++
		c.hasElse, c.guards, c.changes = hasElse(b), nil, changesOf(b)
		for l := ir.Local(0); l <= c.shared; l++ {
			c.changes[l] = all[l]
		}
		if f.blocks[i], err = c.inner(b); err != nil {
			return err
		}
		guards[i] = c.guards
	}
	if !c.options.noIndexes {
		f.blocks = indexed(blocks, f.blocks, guards)
	}
	f.locals, c.read, c.uniform = c.locals, c.reading, c.isUniform(blocks)
	return nil
}

// atBegin is what is known when a function begins.
func (c *compiler) atBegin(f *function) knowledge {
	known := knowledge{ir.Data: {value: c.data, base: true}, ir.Input: {slot: c.input}}
	if c.input == nil {
		known[ir.Input] = fact{origin: &origin{argument: ir.Input}}
	}
	for i := documents; i < len(f.params); i++ {
		known[f.params[i]] = fact{origin: &origin{argument: f.params[i]}}
	}
	return known
}

// location is a place in the rules.
func (c *compiler) location(l *ir.Location) *ast.Location {
	out := &ast.Location{Row: l.Row, Col: l.Col, Text: l.Text}
	if l.File >= 0 && l.File < len(c.policy.Static.Files) {
		out.File = c.policy.Static.Files[l.File].Value
	}
	return out
}

// firstLocation returns where the first rule of a function is.
func (c *compiler) firstLocation(blocks []*ir.Block) (file string, line int) {
	visitStatements(blocks, func(s ir.Stmt) {
		l := c.location(s.GetLocation())
		if l.Row > 0 && (line == 0 || cmp.Or(strings.Compare(l.File, file), l.Row-line) < 0) {
			file, line = l.File, l.Row
		}
	})
	return file, line
}

package rego

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// function is a compiled function: the rules of one name.
type function struct {
	number     int
	name       string
	generation string // which replacements of functions its rules call: see compiler.implicit
	params     []ir.Local
	result     ir.Local
	remembers  bool // its last value, see memo
	locals     int
	blocks     []block
	file       string // where the first rule is
	line       int
}

// rules is the name of the rules, such as data.x.y. That of the function begins with the generation: g0.data.x.y.
func (fn *function) rules() string {
	_, name, _ := strings.Cut(fn.name, ".")
	return name
}

const (
	documents       = 2    // the arguments that every function begins with: input and data
	firstGeneration = "g0" // of functions that call what their rules name
)

// run runs the blocks of a function, whose arguments are in the frame.
func (fn *function) run(f *frame) { runAll(fn.blocks, f) }

// apply calls the function. The result is nil if it is undefined, or if the evaluation failed.
func (fn *function) apply(r *run, args []*ast.Term) *ast.Term {
	own := args[documents:]
	if fn.remembers {
		if m := &r.memo[fn.number]; m.holds(own) {
			if r.profile != nil {
				r.profile.remembered(fn)
			}
			return m.value
		}
	}
	if r.interrupted() {
		return nil
	}
	if r.profile != nil {
		r.profile.open(&r.profile.rules[fn.number])
	}
	f := r.frame(fn)
	for i, p := range fn.params {
		f.locals[p] = args[i]
	}
	fn.run(f)
	v := finished(f, int(fn.result))
	r.drop(f)
	if r.profile != nil {
		r.profile.close()
	}
	if r.err != nil {
		return nil
	}
	if fn.remembers {
		m := &r.memo[fn.number]
		m.known, m.value = true, v
		copy(m.args[:], own)
	}
	return v
}

func (c *compiler) call(s *ir.CallStmt, following ir.Stmt) (step, error) {
	c.noteCall(s, following)
	number, planned := c.numbers[s.Func]
	args := make([]read, len(s.Args))
	for i, a := range s.Args {
		if planned && i == int(ir.Input) {
			args[i] = c.inputArgument(a)
		} else {
			args[i] = c.operand(a)
		}
	}
	if planned {
		return c.callFunction(c.funcs[number], args, c.use(s.Result)), nil
	}
	return c.callBuiltin(s, args)
}

// inputArgument reads the input for the call of a function. If the program reads it by slots, the function does not need it.
func (c *compiler) inputArgument(o ir.Operand) read {
	if c.input != nil {
		return func(*frame) *ast.Term { return nil }
	}
	return c.operand(o)
}

func (c *compiler) callFunction(fn *function, args []read, to int) step {
	return func(f *frame) int {
		values, _ := f.push(f, args, false)
		v := fn.apply(f.run, values)
		f.pop(len(args))
		return f.called(to, v, undef)
	}
}

// called stores the result of a call, and returns how its statement ends: without a result as the caller says.
func (f *frame) called(to int, v *ast.Term, without int) int {
	f.locals[to] = v
	switch {
	case f.err != nil:
		return abort
	case v == nil:
		return without
	}
	return next
}

package rego

import (
	"context"
	"io"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// Program is a compiled query. It never changes, and its methods may be called concurrently.
type Program struct {
	main         function
	funcs        []*function
	data         *ast.Term
	slots        [][]string
	joins        int // loops that make tables in an evaluation
	capabilities *ast.Capabilities
	called       []string // the names of the builtin functions that it calls
}

// Options are what a program is compiled with.
type Options struct {
	// Data is the base data, nil for none. It must not change afterwards.
	Data ast.Value
	// Builtins are functions that rules may call besides OPA's own, by name.
	Builtins map[string]*topdown.Builtin
	// Capabilities say which hosts functions may call. Nil: all.
	Capabilities *ast.Capabilities

	noFolding, noSlots, noIndexes bool // for tests
}

// Call is one evaluation of a program. All fields may be zero.
type Call struct {
	Input ast.Value // nil: undefined
	// Slots are the values of Program.Slots, nil for those that are undefined. They take the place of Input.
	Slots                       []*ast.Term
	Time                        time.Time // zero: now
	Seed                        io.Reader // of random numbers; nil for the system's
	Runtime                     *ast.Term
	Metrics                     metrics.Metrics
	Cancel                      topdown.Cancel
	InterQueryBuiltinCache      cache.InterQueryCache
	InterQueryBuiltinValueCache cache.InterQueryValueCache
	NDBuiltinCache              builtins.NDBCache
	PrintHook                   print.Hook
	// StrictBuiltinErrors makes the evaluation fail where a function fails. Otherwise its expression is undefined.
	StrictBuiltinErrors bool
	// Profile counts and times the calls of the evaluation. Nil: nobody does.
	Profile *Profile
}

// Result is the result of an evaluation.
type Result struct {
	// Values are the results of the query, an object of its variables each, in the order in which they were found.
	Values []*ast.Term
	// Errors tell which functions failed.
	Errors []topdown.Error
}

// Slots are the parts of the input that the program reads, as paths of names. Call.Slots has their values in the same order. It is
// nil if the program reads the input as a document.
func (p *Program) Slots() [][]string { return p.slots }

// Eval evaluates the program. Errors are ErrUnsure, ErrEscaped, and those of OPA's evaluator, a *topdown.Error. OPA's evaluator finds fewer
// conflicts and failed functions, because it skips what cannot change the value: see doc.go. So a caller that wants its errors asks it
// again after an error.
func (p *Program) Eval(ctx context.Context, c *Call) (Result, error) {
	r := newRun(ctx, p, c)
	defer r.release()
	var in *ast.Term
	if c.Input != nil {
		in = ast.NewTerm(c.Input)
	}
	if r.slots = c.Slots; r.slots == nil {
		r.ownSlots = fill(r.ownSlots[:0], p.slots, in)
		r.slots = r.ownSlots
	}
	f := r.frame(&p.main)
	f.locals[ir.Input], f.locals[ir.Data] = in, p.data
	p.main.run(f)
	r.drop(f)
	out := Result{Values: r.results, Errors: r.failures()}
	if r.err == nil && c.StrictBuiltinErrors && len(out.Errors) > 0 {
		r.err = &out.Errors[0]
	}
	return out, r.err
}

// fill finds the values of the slots in a document.
func fill(slots []*ast.Term, paths [][]string, input *ast.Term) []*ast.Term {
	for _, path := range paths {
		t := input
		for _, name := range path {
			if t == nil {
				break
			}
			o, ok := t.Value.(ast.Object)
			if !ok {
				t = nil
				break
			}
			t = o.Get(ast.InternedTerm(name))
		}
		slots = append(slots, t)
	}
	return slots
}

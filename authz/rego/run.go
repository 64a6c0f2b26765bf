package rego

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// run is the state of one evaluation. It belongs to one goroutine.
type run struct {
	program *Program
	context context.Context
	call    *Call
	builtin *topdown.BuiltinContext // nil until a function of OPA is called
	profile *Profile                // nil for none

	slots    []*ast.Term // the parts of the input
	ownSlots []*ast.Term // memory for slots
	memo     []memo      // of functions, by number; a new one for each replacement of input or data
	joins    []joinState // of loops, by number; nil until one is looked at
	free     []*frame    // frames to be used again
	args     []*ast.Term // a stack of arguments
	tried    []int       // a stack of numbers of rules that indexes found
	results  []*ast.Term
	failed   []error
	err      error

	cancel    topdown.Cancel
	countdown int
}

// memo is the last value of a function. Arguments are compared by their place in memory, which suffices for calls with the same
// variables.
type memo struct {
	known bool
	value *ast.Term // nil: undefined
	args  [maxRemembered]*ast.Term
}

// maxRemembered is the number of arguments, besides input and data, with which a function has a memo.
const maxRemembered = 2

// holds reports whether the memo is that of a call with these arguments.
func (m *memo) holds(args []*ast.Term) bool {
	for i, a := range args {
		if m.args[i] != a {
			return false
		}
	}
	return m.known
}

// frame holds the locals of one call.
type frame struct {
	*run
	locals []*ast.Term // nil: undefined
}

var runs = sync.Pool{New: func() any { return new(run) }}

func newRun(ctx context.Context, p *Program, c *Call) *run {
	r := runs.Get().(*run)
	r.program, r.context, r.call, r.cancel, r.countdown = p, ctx, c, c.Cancel, pollEvery
	r.profile = c.Profile
	if cap(r.memo) < len(p.funcs) {
		r.memo = make([]memo, len(p.funcs))
	}
	r.memo = r.memo[:len(p.funcs)]
	return r
}

func (r *run) release() {
	clear(r.memo)
	clear(r.args[:cap(r.args)])
	clear(r.ownSlots)
	*r = run{memo: r.memo[:0], free: r.free, args: r.args[:0], tried: r.tried[:0], ownSlots: r.ownSlots[:0]}
	runs.Put(r)
}

// frame returns a frame with undefined locals.
func (r *run) frame(fn *function) *frame {
	var f *frame
	if n := len(r.free); n > 0 {
		f = r.free[n-1]
		r.free = r.free[:n-1]
	} else {
		f = new(frame)
	}
	f.run = r
	if cap(f.locals) < fn.locals {
		f.locals = make([]*ast.Term, fn.locals)
	} else {
		f.locals = f.locals[:fn.locals]
	}
	return f
}

// drop lets a later call use the frame.
func (r *run) drop(f *frame) {
	clear(f.locals)
	f.run = nil
	r.free = append(r.free, f)
}

// push reads arguments onto the stack of arguments. It returns false if one is undefined and must not be. Pop takes them off.
func (r *run) push(f *frame, args []read, defined bool) (values []*ast.Term, ok bool) {
	begin := len(r.args)
	for _, a := range args {
		v := a(f)
		if v == nil && defined {
			r.args = r.args[:begin]
			return nil, false
		}
		r.args = append(r.args, v)
	}
	return r.args[begin:], true
}

func (r *run) pop(n int) { r.args = r.args[:len(r.args)-n] }

// builtins is the context of calls of OPA's functions.
func (r *run) builtins() *topdown.BuiltinContext {
	if r.builtin != nil {
		return r.builtin
	}
	c, now := r.call, r.call.Time
	if now.IsZero() {
		now = time.Now()
	}
	r.builtin = &topdown.BuiltinContext{
		Context: r.context, Metrics: c.Metrics, Seed: c.Seed, Time: ast.NumberTerm(jsonInt(now.UnixNano())), Cancel: c.Cancel, Runtime: c.Runtime,
		Cache: builtins.Cache{}, InterQueryBuiltinCache: c.InterQueryBuiltinCache, InterQueryBuiltinValueCache: c.InterQueryBuiltinValueCache,
		NDBuiltinCache: c.NDBuiltinCache, PrintHook: c.PrintHook, RequestMetadata: map[string]any{},
		Capabilities: r.program.capabilities,
	}
	if r.builtin.Metrics == nil {
		r.builtin.Metrics = metrics.NoOp()
	}
	if r.builtin.Seed == nil {
		r.builtin.Seed = rand.Reader
	}
	return r.builtin
}

// pollEvery is the number of calls and steps of loops between two looks at the cancellation.
const pollEvery = 16

// interrupted reports whether the evaluation was cancelled. It looks now and then.
func (r *run) interrupted() bool {
	if r.countdown--; r.countdown > 0 {
		return false
	}
	return r.cancelled()
}

// cancelled reports whether the evaluation was cancelled.
func (r *run) cancelled() bool {
	r.countdown = pollEvery
	if r.cancel == nil || !r.cancel.Cancelled() {
		return false
	}
	r.fail(&topdown.Error{Code: topdown.CancelErr, Message: "caller cancelled query execution"})
	return true
}

// ErrUnsure is the error of an evaluation that cannot go on as OPA's evaluator would. That evaluator must answer instead.
var ErrUnsure = errors.New("a value of another type names a part of the data")

// ErrEscaped is another such error: see escaped.
var ErrEscaped = errors.New("a glob matches a backslash, which OPA's evaluator may read as an escape")

// fail ends the evaluation with an error.
func (r *run) fail(err error) int {
	if r.err == nil {
		r.err = err
	}
	return abort
}

// failures are the errors of functions that failed.
func (r *run) failures() (out []topdown.Error) {
	for _, err := range r.failed {
		var known *topdown.Error
		if errors.As(err, &known) {
			out = append(out, *known)
		} else {
			out = append(out, topdown.Error{Code: topdown.BuiltinErr, Message: err.Error()})
		}
	}
	return out
}

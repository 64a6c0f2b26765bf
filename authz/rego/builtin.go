package rego

import (
	"errors"
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// builtin is one call of a builtin function.
type builtin struct {
	decl           *ast.Builtin
	fn             topdown.BuiltinFunc
	args           []read
	location       *ast.Location
	number         int // of its name, in profiles
	void, relation bool
}

// callBuiltin compiles the call of a builtin function.
func (c *compiler) callBuiltin(s *ir.CallStmt, args []read) (step, error) {
	decl, fn := ast.BuiltinMap[s.Func], topdown.GetBuiltin(s.Func)
	if own := c.options.Builtins[s.Func]; own != nil && fn == nil {
		decl, fn = own.Decl, own.Func
	}
	if decl == nil || fn == nil {
		return nil, fmt.Errorf("there is no function %s", s.Func)
	}
	b := &builtin{decl: decl, fn: fn, args: args, location: c.location(&s.Location), number: c.calledNumber(s.Func)}
	b.void, b.relation = decl.Decl.Result() == nil, decl.Relation
	to := c.use(s.Result)
	own := natives[s.Func]
	if own == nil {
		own = c.matcher(s)
	}
	call := b.opa(to)
	if own != nil {
		call = b.native(own, to)
	}
	if s.Func == ast.GlobMatch.Name && c.value(s.Args[0]) != nil {
		call = escaped(call, args, to)
	}
	return call, nil
}

// calledNumber gives a builtin function a number, by which a profile counts its calls.
func (c *compiler) calledNumber(name string) int {
	i := slices.Index(c.called, name)
	if i < 0 {
		i = len(c.called)
		c.called = append(c.called, name)
	}
	return i
}

// opa compiles a call of OPA's function.
func (b *builtin) opa(to int) step {
	return func(f *frame) int {
		p := f.profile
		if p != nil {
			p.open(&p.builtins[b.number])
		}
		v, end := b.call(f)
		f.locals[to] = v
		if p != nil {
			p.close()
		}
		return end
	}
}

// native compiles a call that this package can make itself for most values.
func (b *builtin) native(own native, to int) step {
	return func(f *frame) int {
		args, defined := f.push(f, b.args, true)
		if !defined {
			f.locals[to] = nil
			return undef
		}
		p := f.profile
		if p != nil {
			p.open(&p.builtins[b.number])
		}
		v, ok := own(args)
		f.pop(len(args))
		end := next
		if !ok {
			v, end = b.call(f)
		}
		f.locals[to] = v
		if p != nil {
			p.close()
		}
		return end
	}
}

// call calls the function and returns how its statement ends. The functions of OPA may take long, so each call looks at the
// cancellation.
func (b *builtin) call(f *frame) (out *ast.Term, end int) {
	if f.cancelled() {
		return nil, abort
	}
	args := make([]*ast.Term, len(b.args))
	for i, a := range b.args {
		if args[i] = a(f); args[i] == nil {
			return nil, undef
		}
	}
	bctx := f.builtins()
	recorded := b.decl.Nondeterministic && bctx.NDBuiltinCache != nil
	if recorded {
		if v, ok := bctx.NDBuiltinCache.Get(b.decl.Name, ast.NewArray(args...)); ok {
			return ast.NewTerm(v), next
		}
	}
	bctx.Location = b.location
	out, called, err := b.results(f, bctx, args)
	if err != nil {
		var halt topdown.Halt
		if errors.As(err, &halt) {
			return nil, f.fail(halt.Err)
		}
		f.failed = append(f.failed, err)
		return nil, undef
	}
	if recorded && out != nil {
		bctx.NDBuiltinCache.Put(b.decl.Name, ast.NewArray(args...), out.Value)
	}
	if out == nil && !(b.void && called) {
		return nil, undef
	}
	return out, next
}

// results returns the result of the function: of a relation, an array of all. It reports whether there was one, as functions such as
// print are called for what they do.
func (b *builtin) results(f *frame, bctx *topdown.BuiltinContext, args []*ast.Term) (out *ast.Term, called bool, err error) {
	var all []*ast.Term
	err = b.fn(*bctx, args, func(t *ast.Term) error {
		out, called = t, true
		if b.relation {
			if f.interrupted() {
				return topdown.Halt{Err: f.err}
			}
			all = append(all, t)
		}
		return nil
	})
	if b.relation {
		out = ast.ArrayTerm(all...)
	}
	return out, called, err
}

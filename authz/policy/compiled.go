package policy

import (
	"context"
	"errors"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/yielder"
	"github.com/tollkeeper-authz/tollkeeper/authz/rego"
)

// compile compiles the query to closures. The options are those of OPA's evaluator, which evaluates the query if that is not
// possible; Evaluator then says why.
func (p *Policy) compile(ctx context.Context, more []builtin, options []func(*opa.Rego)) {
	own := make(map[string]*topdown.Builtin, len(more))
	for i := range more {
		own[more[i].decl.Name] = more[i].topdown()
	}
	plan, err := rego.Plan(ctx, p.bundle.Compiler, options...)
	if err == nil {
		p.program, err = rego.Compile(plan, rego.Options{Data: p.bundle.Root(), Builtins: own, Capabilities: p.bundle.Compiler.Capabilities()})
	}
	if err != nil {
		p.program, p.evaluator = nil, Evaluator{Reason: Unsupported, Detail: err.Error()}
		return
	}
	if paths := p.program.Slots(); paths != nil {
		p.slots = input.SlotsOf(paths)
	}
}

// decideCompiled returns the value of the query, by the program.
func (e *evaluation) decideCompiled(ctx context.Context, refs *input.Refs, r *authz.Request, f *authz.Facts) (ast.Value, error) {
	if e.slots == nil {
		document, err := input.Value(refs, r, f)
		if err != nil {
			return nil, unfit(err)
		}
		return e.runCompiled(ctx, document, nil)
	}
	room := slotRooms.Get().(*[]*ast.Term)
	defer func() { clear(*room); slotRooms.Put(room) }()
	slots, err := e.slots.Fill((*room)[:0], r, f)
	if err != nil {
		return nil, unfit(err)
	}
	*room = slots
	return e.runCompiled(ctx, nil, slots)
}

// slotRooms is memory for slots.
var slotRooms = sync.Pool{New: func() any { return new([]*ast.Term) }}

// disputable reports whether OPA's evaluator might answer otherwise than the program did. It skips rules that cannot change the
// value, so it does not meet each conflict and each failed function that a program meets. It also has the better texts.
func (e *evaluation) disputable(err error) bool {
	var known *EvalError
	if errors.As(err, &known) {
		return known.Code != codeInput && known.Code != codeUndefined && known.Code != codeDecision
	}
	return err == nil && e.strict && len(e.failed) > 0
}

// runCompiled runs the program and returns the value of the query.
func (e *evaluation) runCompiled(ctx context.Context, document ast.Value, slots []*ast.Term) (ast.Value, error) {
	call := rego.Call{
		Input: document, Slots: slots, Cancel: yielder.New(ctx), InterQueryBuiltinCache: e.responses, InterQueryBuiltinValueCache: e.values,
	}
	if e.cache != nil {
		e.nondeterministic = builtins.NDBCache{}
		call.NDBuiltinCache = e.nondeterministic
	}
	if e.print != nil {
		call.PrintHook = e
	}
	result, err := e.program.Eval(ctx, &call)
	e.failed = result.Errors
	if ctxErr := ended(ctx); ctxErr != nil {
		return nil, ctxErr
	}
	switch {
	case err != nil:
		return nil, evalError(err)
	case len(result.Values) == 0:
		return nil, undefined(e.Query(), e.failed)
	case len(result.Values) > 1:
		return nil, invalidDecision("%s has several values", e.Query())
	}
	variables, ok := result.Values[0].Value.(ast.Object)
	if !ok || variables.Len() != 1 {
		return nil, invalidDecision("%s has no value", e.Query())
	}
	return variables.Get(variables.Keys()[0]).Value, nil
}

// topdown is the function in the form of OPA's own.
func (b *builtin) topdown() *topdown.Builtin {
	return &topdown.Builtin{
		Decl: &ast.Builtin{Name: b.decl.Name, Decl: b.decl.Decl, Nondeterministic: b.decl.Nondeterministic},
		Func: func(bctx topdown.BuiltinContext, args []*ast.Term, yield func(*ast.Term) error) error {
			t, err := b.impl(bctx, args)
			if err != nil || t == nil {
				return err
			}
			return yield(t)
		},
	}
}

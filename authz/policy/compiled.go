package policy

import (
	"context"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/yielder"
	"github.com/tollkeeper-authz/tollkeeper/authz/rego"
)

// compile compiles the query to closures. The options are those of OPA's evaluator, which evaluates the query if that is not
// possible; Evaluator then says why.
func (p *Policy) compile(ctx context.Context, more []builtin, options []func(*opa.Rego)) *decider {
	d := &decider{cache: p.newCache()}
	own := make(map[string]*topdown.Builtin, len(more))
	for i := range more {
		own[more[i].decl.Name] = more[i].topdown()
	}
	plan, err := rego.Plan(ctx, p.bundle.Compiler, options...)
	if err == nil {
		d.program, err = rego.Compile(plan, rego.Options{Data: p.bundle.Root(), Builtins: own, Capabilities: p.bundle.Compiler.Capabilities()})
	}
	if err != nil {
		d.program, d.evaluator = nil, Evaluator{Reason: Unsupported, Detail: err.Error()}
		return d
	}
	if paths := d.program.Slots(); paths != nil {
		d.slots = input.SlotsOf(paths)
	}
	return d
}

// byProgram lets the program answer.
func (e *evaluation) byProgram(ctx context.Context) (a answer) {
	defer recovered(&a)
	if e.slots == nil {
		document, err := input.Value(e.refs, e.request, e.facts)
		if err != nil {
			return answer{err: unfit(err)}
		}
		return e.answer(e.runProgram(ctx, document, nil))
	}
	room := slotRooms.Get().(*[]*ast.Term)
	defer func() { clear(*room); slotRooms.Put(room) }()
	slots, err := e.slots.Fill((*room)[:0], e.request, e.facts)
	if err != nil {
		return answer{err: unfit(err)}
	}
	*room = slots
	return e.answer(e.runProgram(ctx, nil, slots))
}

// slotRooms is memory for slots.
var slotRooms = sync.Pool{New: func() any { return new([]*ast.Term) }}

// isDisputable reports whether OPA's evaluator might answer otherwise than the program did. It skips rules that cannot change the
// value, so it does not meet each conflict and each failed function that a program meets. It also has the better texts.
func (e *evaluation) isDisputable(err error) bool {
	switch codeOf(err) {
	case "":
		return err == nil && e.strict && len(e.failed) > 0
	case codeInput, codeUndefined, codeDecision, codePanic:
		return false
	}
	return true
}

// runProgram runs the program and returns the value of the query.
func (e *evaluation) runProgram(ctx context.Context, document ast.Value, slots []*ast.Term) (ast.Value, error) {
	call := rego.Call{
		Input: document, Slots: slots, Time: e.time, Cancel: yielder.ForProgram(ctx),
		InterQueryBuiltinCache: e.responses, InterQueryBuiltinValueCache: e.values, NDBuiltinCache: e.nondeterministic,
		Profile: e.measure.calls(),
	}
	if e.print != nil {
		call.PrintHook = &e.printed
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

package policy

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/topdown/print"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/yielder"
)

// Decide asks the policy about a request. With tr it fills tr with what the policy did, whatever comes out. That takes
// many times as long as a plain decision, and enters rules that a plain one skips.
//
// The error is an *EvalError if the policy gave no usable verdict, or wraps ctx's error if ctx ended first. With an
// error the verdict denies, and holds at most the functions that failed. Decide does not keep r or f.
func (p *Policy) Decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (v authz.Verdict, err error) {
	defer func() {
		if x := recover(); x != nil {
			v, err = authz.Verdict{}, &EvalError{Code: codePanic, Text: fmt.Sprintf("panic: %v", x)}
		}
	}()
	if r == nil {
		return authz.Verdict{}, &EvalError{Code: codeInput, Text: "there is no request"}
	}
	if p.cache == nil || tr != nil {
		v, _, err := p.evaluate(ctx, r, f, tr)
		return v, err
	}
	return p.decideCached(ctx, r, f)
}

// decideCached evaluates the policy unless the verdict is cached.
//
// A cached verdict is the one that the policy would give again, for two reasons. The evaluator sees only what the key is
// made of, and one walk makes both: see package input. And the cache keeps a verdict only if no function was called on
// the way to it whose answer may change. OPA notes the calls of functions that it knows to be nondeterministic; a policy
// that names one which OPA does not know has no cache. Such calls cannot appear later: the same input takes the same way.
func (p *Policy) decideCached(ctx context.Context, r *authz.Request, f *authz.Facts) (authz.Verdict, error) {
	key := p.keys.Get().(*input.Key)
	defer p.keys.Put(key)
	if !key.Fill(p.refs, r, f) {
		p.cache.Bypass()
		v, _, err := p.evaluate(ctx, r, f, nil)
		return v, err
	}
	if v, ok := p.cache.Get(key.Bytes()); ok {
		return v, nil
	}
	v, steady, err := p.evaluate(ctx, r, f, nil)
	switch {
	case err != nil:
	case steady:
		p.cache.Put(key.Bytes(), v)
	default:
		p.cache.Bypass()
	}
	return v, err
}

// evaluate evaluates the policy. The verdict is steady if the same input will give it again.
func (p *Policy) evaluate(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (_ authz.Verdict, steady bool, err error) {
	if err := ended(ctx); err != nil {
		return authz.Verdict{}, false, err
	}
	refs := p.refs
	if tr != nil {
		refs = input.Everything() // people who ask why want to see what the policy could have read
	}
	document, err := input.Value(refs, r, f)
	if err != nil {
		return authz.Verdict{}, false, &EvalError{Code: codeInput, Text: "the request cannot be shown to the policy: " + err.Error(), cause: err}
	}
	e := evaluation{Policy: p, trace: tr}
	decision, err := e.run(ctx, document)
	if tr != nil {
		tr.Query, tr.Route = p.Query(), p.routeOf(ctx, document)
	}
	var v authz.Verdict
	if err == nil {
		v, err = verdictOf(decision)
	}
	v.Errors = errorsOf(e.failed)
	if err == nil && p.strict && len(e.failed) > 0 {
		return authz.Verdict{Errors: v.Errors}, false, builtinError(&e.failed[0])
	}
	return v, e.steady(), err
}

// evaluation is one run of the query.
type evaluation struct {
	*Policy
	trace            *authz.Trace
	failed           []topdown.Error   // functions that failed and only made their expressions undefined
	nondeterministic builtins.NDBCache // calls whose answer may change
	printed          bool
}

// steady reports whether the same input gives the same verdict again, and has no other effect, such as a print. A verdict
// after a failed function is not cached, so that the record of each decision has the failure.
func (e *evaluation) steady() bool {
	return len(e.nondeterministic) == 0 && len(e.failed) == 0 && !e.printed
}

// Print passes on what a rule prints.
func (e *evaluation) Print(at print.Context, text string) error {
	e.printed = true
	file, line := "", 0
	if at.Location != nil {
		file, line = at.Location.File, at.Location.Row
	}
	e.print(file, line, cutText(text, maxPrinted))
	return nil
}

var _ topdown.Cancel = (*yielder.Yielder)(nil)

// run runs the query and returns its only value.
func (e *evaluation) run(ctx context.Context, document ast.Value) (ast.Value, error) {
	options := make([]rego.EvalOption, 0, len(e.fixed)+8)
	options = append(options, e.fixed...)
	options = append(options,
		rego.EvalParsedInput(document),
		rego.EvalMetrics(metrics.NoOp()),
		rego.EvalExternalCancel(yielder.New(ctx)),
		rego.EvalBuiltinErrorList(&e.failed))
	if e.cache != nil && e.trace == nil {
		e.nondeterministic = builtins.NDBCache{}
		options = append(options, rego.EvalNDBuiltinCache(e.nondeterministic))
	}
	if e.trace != nil {
		t := newTracer(document)
		defer t.fill(e.trace)
		// Without the index the evaluator enters rules that cannot hold. People who ask why want to see those.
		options = append(options, rego.EvalQueryTracer(t), rego.EvalRuleIndexing(false))
	} else if e.print != nil {
		options = append(options, rego.EvalPrintHook(e))
	}
	results, err := e.prepared.Eval(ctx, options...)
	if ctxErr := ended(ctx); ctxErr != nil {
		// Even if there is a result: a function that was cut short is undefined, and "not blocked" would hold.
		return nil, ctxErr
	}
	switch {
	case err != nil:
		return nil, evalError(err)
	case len(results) == 0:
		return nil, undefined(e.Query(), e.failed)
	case len(results) > 1 || len(results[0].Expressions) != 1:
		return nil, invalidDecision("%s has several values", e.Query())
	}
	v, ok := results[0].Expressions[0].Value.(ast.Value)
	if !ok {
		return nil, invalidDecision("%s has no value", e.Query())
	}
	return v, nil
}

// ended puts ctx's error into words, and is nil while there is none.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("policy: evaluation cut short: %w", err)
	}
	return nil
}

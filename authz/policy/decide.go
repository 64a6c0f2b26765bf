package policy

import (
	"context"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/yielder"
)

// Decide evaluates the policy for a request. If tr is not nil, the decision is always repeated by OPA's evaluator, as
// Options.Recheck does with some, and then evaluated once more to record it in tr, even if it fails. That takes many times as long.
//
// The error is an *EvalError if the policy gave no usable verdict, or wraps ctx's error if ctx ended first. With an
// error, the verdict denies and has no fields except Errors. Decide does not keep r or f.
func (p *Policy) Decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (authz.Verdict, error) {
	a := p.decide(ctx, r, f, tr)
	return a.verdict, a.err
}

func (p *Policy) decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (a answer) {
	defer recovered(&a)
	d := p.now.Load()
	switch {
	case r == nil:
		return answer{err: &EvalError{Code: codeInput, Text: "there is no request"}}
	case tr != nil:
		a, _ = p.explain(ctx, r, f, tr)
	case d.cache != nil:
		a = p.decideCached(ctx, d, r, f)
	default:
		a, _ = p.evaluate(ctx, d, r, f)
	}
	return a
}

// recovered turns a panic into an answer that denies.
func recovered(a *answer) {
	if x := recover(); x != nil {
		*a = answer{err: &EvalError{Code: codePanic, Text: fmt.Sprintf("panic: %v", x)}}
	}
}

// decideCached evaluates the policy unless the verdict is cached.
//
// An evaluation would give the cached verdict again, for two reasons. First, the input and the key have the same content,
// because one walk makes both: see package input. Second, a verdict is cached only if the evaluation called no function whose
// result may change. OPA records calls of functions that it knows to be nondeterministic. If a policy uses such a function that
// OPA does not know, it has no cache. The same input always makes the same calls.
func (p *Policy) decideCached(ctx context.Context, d *decider, r *authz.Request, f *authz.Facts) answer {
	key := p.keys.Get().(*input.Key)
	defer p.keys.Put(key)
	if !key.Fill(p.refs, r, f) {
		d.cache.Bypass()
		a, _ := p.evaluate(ctx, d, r, f)
		return a
	}
	if v, ok := d.cache.Get(key.Bytes()); ok {
		return answer{verdict: v}
	}
	a, steady := p.evaluate(ctx, d, r, f)
	switch {
	case a.err != nil:
	case steady:
		d.cache.Put(key.Bytes(), a.verdict)
	default:
		d.cache.Bypass()
	}
	return a
}

// evaluate evaluates the policy. The verdict is steady if the same input will give it again.
func (p *Policy) evaluate(ctx context.Context, d *decider, r *authz.Request, f *authz.Facts) (a answer, steady bool) {
	e := evaluation{Policy: p, decider: d, request: r, facts: f}
	if e.cache != nil || len(e.nondeterminism.sometimes) > 0 {
		e.nondeterministic = builtins.NDBCache{}
	}
	a = e.decide(ctx)
	if e.print != nil {
		e.printed.flush(e.print)
	}
	return a, e.steady()
}

// evaluation is one evaluation of the query.
type evaluation struct {
	*Policy
	*decider
	request          *authz.Request
	facts            *authz.Facts
	trace            *authz.Trace
	measure          *measure          // nil: nothing is measured
	time             time.Time         // zero: that of its beginning
	failed           []topdown.Error   // functions that failed; their expressions are undefined
	nondeterministic builtins.NDBCache // calls whose result may change; nil: they are not recorded
	printed          printed
}

// answer is what an evaluation gives.
type answer struct {
	value   ast.Value // of the query; nil: there is none
	verdict authz.Verdict
	err     error
}

// decide lets the program answer, and OPA's evaluator where there is no program or its answer is in doubt.
func (e *evaluation) decide(ctx context.Context) answer {
	if err := ended(ctx); err != nil {
		return answer{err: err}
	}
	if e.program == nil {
		return e.byOPA(ctx)
	}
	again := e.measure == nil && (e.trace != nil || e.isRecheckDue())
	if again {
		e.time = time.Now()
	}
	a := e.byProgram(ctx)
	switch {
	case e.isDisputable(a.err):
		e.measure.dispute(e.failed, a.err)
		e.failed, e.printed = nil, printed{}
		return e.byOPA(ctx)
	case again || codeOf(a.err) == codePanic && e.measure == nil:
		return e.recheck(ctx, a)
	}
	return a
}

// answer reads the verdict in the value of the query.
func (e *evaluation) answer(value ast.Value, err error) (a answer) {
	a.value, a.err = value, err
	if err == nil {
		a.verdict, a.err = verdictOf(value)
	}
	a.verdict.Errors = errorsOf(e.failed)
	if a.err == nil && e.strict && len(e.failed) > 0 {
		a.verdict, a.err = authz.Verdict{Errors: a.verdict.Errors}, builtinError(&e.failed[0])
	}
	return a
}

// steady reports whether the verdict may be cached: the same input gives it again, and the evaluation printed nothing. A verdict
// after a failed function is not steady, so that each decision is recorded with the failure.
func (e *evaluation) steady() bool {
	return len(e.nondeterministic) == 0 && len(e.failed) == 0 && len(e.printed.lines) == 0
}

var _ topdown.Cancel = (*yielder.Yielder)(nil)

// unfit is the error of a request that is not JSON.
func unfit(err error) error {
	return &EvalError{Code: codeInput, Text: "the request cannot be shown to the policy: " + err.Error(), cause: err}
}

// byOPA lets OPA's evaluator answer.
func (e *evaluation) byOPA(ctx context.Context) (a answer) {
	defer recovered(&a)
	document, err := input.Value(e.refs, e.request, e.facts)
	if err != nil {
		return answer{err: unfit(err)}
	}
	return e.answer(e.run(ctx, document))
}

// run runs the query on OPA's evaluator and returns its only value.
func (e *evaluation) run(ctx context.Context, document ast.Value, more ...rego.EvalOption) (ast.Value, error) {
	options := make([]rego.EvalOption, 0, len(e.fixed)+len(more)+8)
	options = append(append(options, e.fixed...), more...)
	options = append(options,
		rego.EvalParsedInput(document),
		rego.EvalMetrics(metrics.NoOp()),
		rego.EvalExternalCancel(yielder.ForOPA(ctx)),
		rego.EvalBuiltinErrorList(&e.failed))
	if !e.time.IsZero() {
		options = append(options, rego.EvalTime(e.time))
	}
	if e.nondeterministic != nil {
		options = append(options, rego.EvalNDBuiltinCache(e.nondeterministic))
	}
	if e.measure != nil && e.measure.lines != nil {
		options = append(options, rego.EvalQueryTracer(e.measure.lines))
	}
	if e.print != nil {
		options = append(options, rego.EvalPrintHook(&e.printed))
	}
	results, err := e.prepared.Eval(ctx, options...)
	if ctxErr := ended(ctx); ctxErr != nil {
		// This applies even if there is a result: an interrupted function is undefined, and then "not blocked" is true.
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

// ended returns an error that wraps ctx's error, nil if ctx has not ended.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("policy: evaluation cut short: %w", err)
	}
	return nil
}

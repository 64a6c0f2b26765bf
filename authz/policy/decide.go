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

// Decide evaluates the policy for a request. If tr is not nil, it records the evaluation in tr, even if it fails. Tracing takes
// many times as long, and enters rules that an ordinary evaluation skips.
//
// The error is an *EvalError if the policy gave no usable verdict, or wraps ctx's error if ctx ended first. With an
// error, the verdict denies and has no fields except Errors. Decide does not keep r or f.
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
// An evaluation would give the cached verdict again, for two reasons. First, the input and the key have the same content,
// because one walk makes both: see package input. Second, a verdict is cached only if the evaluation called no function whose
// result may change. OPA records calls of functions that it knows to be nondeterministic. If a policy uses such a function that
// OPA does not know, it has no cache. The same input always makes the same calls.
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
		refs = input.Everything() // an explanation shows everything that the policy could read
	}
	e := evaluation{Policy: p, trace: tr}
	defer e.flush()
	decision, err := e.decide(ctx, refs, r, f)
	if tr != nil {
		tr.Query = p.Query()
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

// evaluation is one evaluation of the query.
type evaluation struct {
	*Policy
	trace            *authz.Trace
	failed           []topdown.Error   // functions that failed; their expressions are undefined
	nondeterministic builtins.NDBCache // calls whose result may change
	printed          []line
}

// line is a line of the output of print.
type line struct {
	file string
	line int
	text string
}

// steady reports whether the verdict may be cached: the same input gives it again, and the evaluation printed nothing. A verdict
// after a failed function is not steady, so that each decision is recorded with the failure.
func (e *evaluation) steady() bool {
	return len(e.nondeterministic) == 0 && len(e.failed) == 0 && len(e.printed) == 0
}

// Print keeps the output of print until flush.
func (e *evaluation) Print(at print.Context, text string) error {
	l := line{text: cutText(text, maxPrinted)}
	if at.Location != nil {
		l.file, l.line = at.Location.File, at.Location.Row
	}
	e.printed = append(e.printed, l)
	return nil
}

// flush passes on the output of print. It waits for the end of the evaluation, because OPA's evaluator may repeat what a program did.
func (e *evaluation) flush() {
	for _, l := range e.printed {
		e.print(l.file, l.line, l.text)
	}
}

var _ topdown.Cancel = (*yielder.Yielder)(nil)

// decide returns the value of the query. Only OPA's evaluator can be traced.
func (e *evaluation) decide(ctx context.Context, refs *input.Refs, r *authz.Request, f *authz.Facts) (ast.Value, error) {
	if e.program != nil && e.trace == nil {
		if v, err := e.decideCompiled(ctx, refs, r, f); !e.disputable(err) {
			return v, err
		}
		e.failed, e.nondeterministic, e.printed = nil, nil, nil
	}
	document, err := input.Value(refs, r, f)
	if err != nil {
		return nil, unfit(err)
	}
	return e.run(ctx, document)
}

// unfit is the error of a request that is not JSON.
func unfit(err error) error {
	return &EvalError{Code: codeInput, Text: "the request cannot be shown to the policy: " + err.Error(), cause: err}
}

// run runs the query on OPA's evaluator and returns its only value.
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
		// Without the index the evaluator also enters rules that cannot be true. An explanation shows those too.
		options = append(options, rego.EvalQueryTracer(t), rego.EvalRuleIndexing(false))
	} else if e.print != nil {
		options = append(options, rego.EvalPrintHook(e))
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

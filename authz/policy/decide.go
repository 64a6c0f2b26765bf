package policy

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Decide asks the policy about a request. tr, if not nil, is filled with what the policy did, whatever comes out;
// that costs many times the time of a plain decision.
//
// The error is a *EvalError if the policy gave no usable verdict, or wraps ctx's error if ctx ended first. With an
// error the verdict is the zero value, which denies. Decide does not keep r or f.
func (p *Policy) Decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (v authz.Verdict, err error) {
	defer func() {
		if x := recover(); x != nil {
			v, err = authz.Verdict{}, &EvalError{Code: codePanic, Text: fmt.Sprintf("panic: %v", x)}
		}
	}()
	if r == nil {
		return authz.Verdict{}, &EvalError{Code: codeInput, Text: "there is no request"}
	}
	if p.memo == nil || tr != nil {
		v, _, err := p.decide(ctx, r, f, tr)
		return v, err
	}
	k := p.memo.keyOf(p.reads, r, f)
	if k == nil {
		v, _, err := p.decide(ctx, r, f, nil)
		return v, err
	}
	defer p.memo.done(k)
	if v, ok := p.memo.get(k); ok {
		return v, nil
	}
	v, steady, err := p.decide(ctx, r, f, nil)
	switch {
	case err != nil:
	case steady:
		p.memo.put(k, v)
	default:
		p.memo.bypasses.Inc()
	}
	return v, err
}

// decide evaluates the policy. The verdict is steady if the same input will give it again.
func (p *Policy) decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (_ authz.Verdict, steady bool, err error) {
	if err := ended(ctx); err != nil {
		return authz.Verdict{}, false, err
	}
	want := p.reads
	if tr != nil {
		want = everything() // people who ask why want to see what the policy could have read
	}
	input, err := inputOf(want, r, f)
	if err != nil {
		return authz.Verdict{}, false, &EvalError{Code: codeInput, Text: "the request cannot be shown to the policy: " + err.Error(), cause: err}
	}
	decision, steady, err := p.evaluate(ctx, input, tr)
	if err != nil {
		return authz.Verdict{}, false, err
	}
	v, err := verdictOf(decision)
	return v, steady, err
}

// evaluate runs the query and returns its only value, and whether nothing was asked whose answer may change.
func (p *Policy) evaluate(ctx context.Context, input ast.Value, tr *authz.Trace) (_ ast.Value, steady bool, err error) {
	var failed []topdown.Error // builtins that failed and only made their expressions undefined
	options := make([]rego.EvalOption, 0, len(p.fixed)+7)
	options = append(options, p.fixed...)
	options = append(options,
		rego.EvalParsedInput(input),
		rego.EvalMetrics(metrics.NoOp()),
		rego.EvalExternalCancel(&turn{ctx: ctx}),
		rego.EvalBuiltinErrorList(&failed))
	asked := builtins.NDBCache{}
	if p.memo != nil && tr == nil {
		options = append(options, rego.EvalNDBuiltinCache(asked))
	}
	if tr != nil {
		t := newTracer(input)
		defer t.fill(tr)
		// Without the index rules are entered that cannot hold, which is what somebody who asks why wants to see.
		options = append(options, rego.EvalQueryTracer(t), rego.EvalRuleIndexing(false))
	}
	results, err := p.prepared.Eval(ctx, options...)
	if ctxErr := ended(ctx); ctxErr != nil {
		// Even if there is a result: a builtin that was cut short is undefined, and "not blocked" would hold.
		return nil, false, ctxErr
	}
	switch {
	case err != nil:
		return nil, false, evalError(err)
	case len(results) == 0:
		return nil, false, p.undefined(failed)
	case len(results) > 1 || len(results[0].Expressions) != 1:
		return nil, false, invalidDecision("%s has several values", p.query)
	}
	v, ok := results[0].Expressions[0].Value.(ast.Value)
	if !ok {
		return nil, false, invalidDecision("%s has no value", p.query)
	}
	return v, len(asked) == 0 && len(failed) == 0, nil
}

// ended is ctx's error in words, or nil.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("policy: evaluation cut short: %w", err)
	}
	return nil
}

func (p *Policy) undefined(failed []topdown.Error) error {
	e := &EvalError{Code: codeUndefined, Text: p.query + " is undefined"}
	if len(failed) > 0 {
		first := &failed[0]
		e.cause = first
		e.Text += ", perhaps because of: " + first.Message
		if first.Location != nil {
			e.File, e.Line = first.Location.File, first.Location.Row
		}
	}
	return e
}

// evalError translates an error of OPA's evaluator.
func evalError(err error) error {
	e := &EvalError{Code: topdown.InternalErr, Text: err.Error(), cause: err}
	var top *topdown.Error
	if errors.As(err, &top) {
		e.Code, e.Text = top.Code, top.Message
		if top.Location != nil {
			e.File, e.Line = top.Location.File, top.Location.Row
		}
	}
	return e
}

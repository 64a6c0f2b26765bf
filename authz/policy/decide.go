package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/topdown/print"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Decide asks the policy about a request. tr, if not nil, is filled with what the policy did, whatever comes out. That
// costs many times the time of a plain decision, and enters rules that a plain one passes over: whoever wants the verdict
// asks without a trace.
//
// The error is a *EvalError if the policy gave no usable verdict, or wraps ctx's error if ctx ended first. With an
// error the verdict denies, and says at most which functions failed. Decide does not keep r or f.
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
		v, _, err := p.decide(ctx, r, f, tr)
		return v, err
	}
	k := p.cache.keyOf(p.refs, r, f)
	if k == nil {
		v, _, err := p.decide(ctx, r, f, nil)
		return v, err
	}
	defer p.cache.done(k)
	if v, ok := p.cache.get(k); ok {
		return v, nil
	}
	v, steady, err := p.decide(ctx, r, f, nil)
	switch {
	case err != nil:
	case steady:
		p.cache.put(k, v)
	default:
		p.cache.bypasses.Inc()
	}
	return v, err
}

// decide evaluates the policy. The verdict is steady if the same input will give it again.
func (p *Policy) decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (_ authz.Verdict, steady bool, err error) {
	if err := ended(ctx); err != nil {
		return authz.Verdict{}, false, err
	}
	want := p.refs
	if tr != nil {
		want = everything() // people who ask why want to see what the policy could have read
	}
	input, err := inputOf(want, r, f)
	if err != nil {
		return authz.Verdict{}, false, &EvalError{Code: codeInput, Text: "the request cannot be shown to the policy: " + err.Error(), cause: err}
	}
	e := evaluation{Policy: p, trace: tr}
	decision, err := e.run(ctx, input)
	if tr != nil {
		tr.Query, tr.Route = p.Query(), p.routeOf(ctx, input)
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
	trace   *authz.Trace
	failed  []topdown.Error   // functions that failed and only made their expressions undefined
	asked   builtins.NDBCache // functions whose answer may be another one next time
	printed bool
}

// steady reports whether the same input gives the same verdict again, and has no other effect, such as a print. A verdict
// that came of an error is not kept, so that the error is in the record of each decision.
func (e *evaluation) steady() bool { return len(e.asked) == 0 && len(e.failed) == 0 && !e.printed }

// Print gives what a rule prints to whoever wants it.
func (e *evaluation) Print(at print.Context, text string) error {
	e.printed = true
	file, line := "", 0
	if at.Location != nil {
		file, line = at.Location.File, at.Location.Row
	}
	e.Policy.print(file, line, cutText(text, maxPrinted))
	return nil
}

// run runs the query and returns its only value.
func (e *evaluation) run(ctx context.Context, input ast.Value) (ast.Value, error) {
	options := make([]rego.EvalOption, 0, len(e.fixed)+8)
	options = append(options, e.fixed...)
	options = append(options,
		rego.EvalParsedInput(input),
		rego.EvalMetrics(metrics.NoOp()),
		rego.EvalExternalCancel(&yielder{ctx: ctx}),
		rego.EvalBuiltinErrorList(&e.failed))
	if e.cache != nil && e.trace == nil {
		e.asked = builtins.NDBCache{}
		options = append(options, rego.EvalNDBuiltinCache(e.asked))
	}
	if e.trace != nil {
		t := newTracer(input)
		defer t.fill(e.trace)
		// Without the index rules are entered that cannot hold, which is what somebody who asks why wants to see.
		options = append(options, rego.EvalQueryTracer(t), rego.EvalRuleIndexing(false))
	} else if e.Policy.print != nil {
		options = append(options, rego.EvalPrintHook(e))
	}
	results, err := e.prepared.Eval(ctx, options...)
	if ctxErr := ended(ctx); ctxErr != nil {
		// Even if there is a result: a builtin that was cut short is undefined, and "not blocked" would hold.
		return nil, ctxErr
	}
	switch {
	case err != nil:
		return nil, evalError(err)
	case len(results) == 0:
		return nil, e.undefined(e.failed)
	case len(results) > 1 || len(results[0].Expressions) != 1:
		return nil, invalidDecision("%s has several values", e.Query())
	}
	v, ok := results[0].Expressions[0].Value.(ast.Value)
	if !ok {
		return nil, invalidDecision("%s has no value", e.Query())
	}
	return v, nil
}

// ended is ctx's error in words, or nil.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("policy: evaluation cut short: %w", err)
	}
	return nil
}

func (p *Policy) undefined(failed []topdown.Error) error {
	e := &EvalError{Code: codeUndefined, Text: p.Query() + " is undefined"}
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

// Bounds of what is kept of errors and of what rules print: either may quote a request.
const (
	maxErrors    = 8
	maxErrorText = 400
	maxPrinted   = 4 << 10
)

// errorsOf tells which functions failed, each once, as file:line: text. Nil for none.
func errorsOf(failed []topdown.Error) []string {
	var out []string
	for i := range failed {
		e := builtinError(&failed[i])
		text := cutText(strings.Join(strings.Fields(strings.TrimPrefix(e.Error(), "policy: ")), " "), maxErrorText)
		if len(out) < maxErrors && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

func builtinError(failed *topdown.Error) *EvalError {
	e := &EvalError{Code: failed.Code, Text: failed.Message, cause: failed}
	if failed.Location != nil {
		e.File, e.Line = failed.Location.File, failed.Location.Row
	}
	return e
}

// cutText is at most the first n bytes of a text, as UTF-8 and in memory of their own.
func cutText(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(strings.Clone(s), "�")
}

package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A compiled program is young code that decides who gets in. So some of its decisions are repeated by OPA's evaluator, and one
// difference is enough to distrust the program.

// RecheckResult is what the repetition of a decision gave.
type RecheckResult string

const (
	// Same means that OPA's evaluator decided as the program did.
	Same RecheckResult = "same"
	// Different means that it decided otherwise. The decision denies.
	Different RecheckResult = "different"
	// Unfinished means that it did not finish in time. The program's decision stands.
	Unfinished RecheckResult = "unfinished"
)

// Difference is a decision about which the program and OPA's evaluator disagree. The answers are values in Rego's notation, or
// errors. They may show parts of the request and secrets of the policy, so they are for the operator alone.
type Difference struct {
	Revision, Query string
	Program, OPA    string
}

// differs is the error of a decision about which the evaluators disagree.
func differs() error {
	return &EvalError{Code: codeDiffers, Text: "the compiled program and OPA's evaluator disagree: OPA's evaluator decides from now on"}
}

// isRecheckDue chooses at random which decisions are repeated, so that no pattern of requests escapes.
func (p *Policy) isRecheckDue() bool { return p.recheck > 0 && rand.IntN(p.recheck) == 0 }

// recheck repeats a decision of the program on OPA's evaluator and returns the answer that counts. Both see the same input, the same
// time and the same results of functions that may give another one each time. OPA's evaluator may call more of them, such as
// time.now_ns in a rule that the program leaves out because a later condition cannot hold. Then the verdict is not cached.
func (e *evaluation) recheck(ctx context.Context, a answer) answer {
	if !a.isFinal() || len(changingIn(e.failed)) > 0 {
		return a
	}
	within, cancel := half(ctx)
	defer cancel()
	again := evaluation{
		Policy: e.Policy, decider: e.decider, request: e.request, facts: e.facts,
		time: e.time, nondeterministic: e.nondeterministic,
	}
	b := again.byOPA(within)
	if err := ended(ctx); err != nil {
		return answer{err: err}
	}
	switch {
	case !b.isFinal() || codeOf(b.err) == codeInput && codeOf(a.err) != codeInput: // the program does not read what is unfit
		e.report(Unfinished, nil)
	case !a.agrees(b):
		return e.differ(a, b)
	default:
		e.report(Same, nil)
	}
	return a
}

// half returns a context with half of the time that is left.
func half(ctx context.Context) (context.Context, context.CancelFunc) {
	at, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(at)/2)
}

// differ distrusts the program and denies.
func (e *evaluation) differ(program, opa answer) answer {
	var d *Difference
	if e.Distrust() {
		d = &Difference{Revision: e.Revision(), Query: e.Query()}
		d.Program, d.OPA = textsOf(program, opa)
	}
	if e.trace != nil {
		e.trace.Differed = true
	}
	e.report(Different, d)
	return answer{err: differs()}
}

func (e *evaluation) report(r RecheckResult, d *Difference) {
	if e.rechecked != nil {
		e.rechecked(r, d)
	}
}

// isFinal reports whether the evaluation came to its end.
func (a *answer) isFinal() bool { return a.err == nil || codeOf(a.err) != "" }

// agrees reports whether two answers are the same. Failed functions play no part: see isDisputable.
func (a *answer) agrees(b answer) bool {
	if codeOf(a.err) != codeOf(b.err) {
		return false
	}
	return a.err != nil || ast.Compare(a.value, b.value) == 0
}

// codeOf returns the code of an EvalError, "" for other errors.
func codeOf(err error) string {
	if known, ok := errors.AsType[*EvalError](err); ok {
		return known.Code
	}
	return ""
}

// changingIn returns the failed functions that may give another result if they are called again, such as http.send.
func changingIn(failed []topdown.Error) (names []string) {
	for i := range failed {
		name, _, _ := strings.Cut(failed[i].Message, ":")
		if b := ast.BuiltinMap[name]; b != nil && b.Nondeterministic {
			names = append(names, name)
		}
	}
	return names
}

// textsOf returns two answers as texts. Of two objects it shows the fields that differ, because the others may hold secrets.
func textsOf(a, b answer) (string, string) {
	x, ok := a.value.(ast.Object)
	y, too := b.value.(ast.Object)
	if ok && too && a.err == nil && b.err == nil {
		a.value, b.value = without(x, y), without(y, x)
	}
	return a.text(), b.text()
}

// without returns the fields of an object that another one does not have with the same value.
func without(o, other ast.Object) ast.Value {
	out := ast.NewObject()
	o.Foreach(func(k, v *ast.Term) {
		if w := other.Get(k); w == nil || !v.Equal(w) {
			out.Insert(k, v)
		}
	})
	return out
}

func (a *answer) text() string {
	out := "no value"
	switch {
	case a.err != nil:
		out = fmt.Sprintf("error %s: %v", codeOf(a.err), a.err)
	case a.value != nil:
		out = a.value.String()
	}
	return cutText(out, maxPrinted)
}

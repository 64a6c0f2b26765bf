package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tollkeeper-authz/tollkeeper/authz/rego"
)

// OPA's runner of tests knows OPA's evaluator alone, and requests are decided by a compiled program. So each test rule is evaluated on
// both. The replaced functions and data of tests reach rules that no request reaches.

// testQuery is the variable of the query for a test rule.
const testQuery = ast.Var("x")

// compare evaluates a test rule on both evaluators and notes how they differ.
func (s *suite) compare(ctx context.Context, r *TestResult) {
	ctx, cancel := context.WithTimeout(ast.WithCompiler(ctx, s.compiler), testTimeout)
	defer cancel()
	query := []func(*opa.Rego){
		opa.ParsedQuery(ast.NewBody(ast.Equality.Expr(ast.NewTerm(s.testRef(r)), ast.NewTerm(testQuery)))),
		opa.Compiler(s.compiler), opa.Store(s.store), opa.GenerateJSON(func(t *ast.Term, _ *opa.EvalContext) (any, error) { return t, nil }),
	}
	plan, err := rego.Plan(ctx, s.compiler, query...)
	if err != nil {
		r.Uncompiled = err.Error()
		return
	}
	program, err := rego.Compile(plan, rego.Options{Data: s.store.root, Capabilities: s.compiler.Capabilities()})
	if err != nil {
		r.Uncompiled = err.Error()
		return
	}
	now, calls := time.Now(), builtins.NDBCache{} // both see the same time, and the same results of functions such as http.send
	want, wantErr := byOPA(ctx, query, now, calls)
	got, err := byProgram(ctx, program, now, calls)
	if ctx.Err() != nil {
		r.Uncompiled = "there was no time for both evaluators"
		return
	}
	r.note(got, err, want, wantErr)
}

// note notes how the answer of a program and the one that OPA's evaluator wants differ.
func (r *TestResult) note(got *ast.Term, err error, want *ast.Term, wantErr error) {
	switch {
	case err != nil && wantErr == nil: // OPA's evaluator would decide such a request, too
		r.Uncompiled = "the program ended with " + inTest(nil, err)
	case err == nil && (wantErr != nil || !same(got, want)):
		r.Difference = fmt.Sprintf("the compiled program gives %s and OPA's evaluator gives %s: report this as a bug of Tollkeeper, and set policy.evaluator to opa until it is mended",
			inTest(got, nil), inTest(want, wantErr))
	}
}

// byOPA returns the value of a test rule, nil if it is undefined.
func byOPA(ctx context.Context, query []func(*opa.Rego), now time.Time, calls builtins.NDBCache) (*ast.Term, error) {
	prepared, err := opa.New(query...).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	results, err := prepared.Eval(ctx, opa.EvalTransaction(snapshot{}), opa.EvalTime(now), opa.EvalNDBuiltinCache(calls),
		opa.EvalPrintHook(topdown.NewPrintHook(io.Discard)))
	if err != nil || len(results) == 0 {
		return nil, err
	}
	return results[0].Bindings[string(testQuery)].(*ast.Term), nil
}

// byProgram is byOPA for a program.
func byProgram(ctx context.Context, p *rego.Program, now time.Time, calls builtins.NDBCache) (value *ast.Term, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
		}
	}()
	end := topdown.NewCancel()
	defer context.AfterFunc(ctx, end.Cancel)()
	r, err := p.Eval(ctx, &rego.Call{Time: now, NDBuiltinCache: calls, Cancel: end, PrintHook: topdown.NewPrintHook(io.Discard)})
	if err != nil || len(r.Values) == 0 {
		return nil, err
	}
	return r.Values[0].Value.(ast.Object).Get(ast.StringTerm(string(testQuery))), nil
}

func same(a, b *ast.Term) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Value.Compare(b.Value) == 0
}

// inTest is a value or an error in words.
func inTest(v *ast.Term, err error) string {
	var known *topdown.Error
	switch {
	case errors.As(err, &known):
		return "the error " + known.Code
	case err != nil:
		return "the error " + err.Error()
	case v == nil:
		return "undefined"
	}
	return v.String()
}

// testRef finds the test rule of a result among the compiled ones.
func (s *suite) testRef(r *TestResult) ast.Ref {
	for _, m := range s.compiler.Modules {
		for _, rule := range m.Rules {
			if name := testName(rule.Head.Ref()); name.String() == r.Name && m.Package.Path.String() == r.Package {
				return m.Package.Path.Extend(name)
			}
		}
	}
	return nil
}

// testName is the part of a rule's name that ends with test_…, as OPA's runner finds it.
func testName(name ast.Ref) ast.Ref {
	name = name.GroundPrefix()
	for i, t := range name {
		if text := strings.Trim(t.String(), `"`); strings.HasPrefix(text, tester.TestPrefix) {
			return name[:i+1]
		}
	}
	return nil
}

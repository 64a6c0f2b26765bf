package rego

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// modes are the ways to compile a program. Each must give the same answers.
var modes = map[string]Options{
	"all":        {},
	"no folding": {noFolding: true},
	"no slots":   {noSlots: true},
	"no indexes": {noIndexes: true},
}

// answer is what an evaluation gives.
type answer struct {
	value    string   // the results, empty for none
	err      string   // the code and the text of its error
	failures []string // the functions that failed, sorted
	unsteady []string // calls whose result may change, sorted
}

func (a answer) String() string {
	return fmt.Sprintf("value %s, error %q, failures %q, unsteady %q", a.value, a.err, a.failures, a.unsteady)
}

// evaluators are both evaluators of a query over the same rules and data.
type evaluators struct {
	prepared rego.PreparedEvalQuery
	programs map[string]*Program
	// extra counts answers with failed functions that OPA's evaluator never meets, for example because it evaluates only the member that a
	// rule asks for.
	extra int
}

// refused is the error of rules that the planner does not support. OPA's evaluator evaluates those.
type refused struct{ error }

// newEvaluators compiles data.p.main of some modules.
func newEvaluators(ctx context.Context, modules map[string]string, data ast.Value, modes map[string]Options) (*evaluators, error) {
	compiler, err := ast.CompileModulesWithOpt(modules, ast.CompileOpts{})
	if err != nil {
		return nil, err
	}
	native, err := ast.JSON(data)
	if err != nil {
		return nil, err
	}
	store := inmem.NewFromObjectWithOpts(native.(map[string]any), inmem.OptReturnASTValuesOnRead(true))
	query := []func(*rego.Rego){rego.ParsedQuery(ast.MustParseBody("data.p.main = x")), rego.Compiler(compiler), rego.Store(store)}
	e := &evaluators{programs: make(map[string]*Program)}
	if e.prepared, err = rego.New(append(query, rego.GenerateJSON(asTerm))...).PrepareForEval(ctx); err != nil {
		return nil, err
	}
	plan, err := Plan(ctx, compiler, query...)
	if err != nil {
		return nil, refused{err}
	}
	for name, o := range modes {
		o.Data = data
		if e.programs[name], err = Compile(plan, o); err != nil && strings.HasPrefix(err.Error(), "panic: ") {
			panic(err)
		} else if err != nil {
			return nil, refused{err}
		}
	}
	return e, nil
}

func asTerm(t *ast.Term, _ *rego.EvalContext) (any, error) { return t, nil }

// aMoment is the time of all evaluations.
var aMoment = time.Unix(1_700_000_000, 0)

// topdown evaluates with OPA's evaluator. Indexes and early exits skip expressions, which then cannot fail; without them it evaluates
// what a program does.
func (e *evaluators) topdown(ctx context.Context, input ast.Value, skips bool) answer {
	var failures []topdown.Error
	calls := builtins.NDBCache{}
	options := []rego.EvalOption{
		rego.EvalBuiltinErrorList(&failures), rego.EvalNDBuiltinCache(calls), rego.EvalTime(aMoment),
		rego.EvalRuleIndexing(skips), rego.EvalEarlyExit(skips),
	}
	if input != nil {
		options = append(options, rego.EvalParsedInput(input))
	}
	results, err := e.prepared.Eval(ctx, options...)
	var values []string
	for _, r := range results {
		values = append(values, r.Bindings["x"].(*ast.Term).String())
	}
	return answerOf(values, err, failures, calls)
}

// compiled evaluates with a program.
func (e *evaluators) compiled(ctx context.Context, mode string, input ast.Value) (out answer) {
	defer func() {
		if x := recover(); x != nil {
			out = answer{err: fmt.Sprintf("panic: %v", x)}
		}
	}()
	calls := builtins.NDBCache{}
	r, err := e.programs[mode].Eval(ctx, &Call{Input: input, Time: aMoment, NDBuiltinCache: calls})
	var values []string
	if err == nil {
		for _, t := range r.Values {
			values = append(values, t.Value.(ast.Object).Get(ast.StringTerm("x")).String())
		}
	}
	return answerOf(values, err, r.Errors, calls)
}

func answerOf(values []string, err error, failures []topdown.Error, calls builtins.NDBCache) answer {
	out := answer{value: strings.Join(values, " and ")}
	if err != nil {
		out.err = err.Error()
		var known *topdown.Error
		if errors.As(err, &known) {
			text, _, _ := strings.Cut(known.Message, ":\n") // OPA's evaluator also names the values of a conflict
			out.err = known.Code + ": " + text
		}
		return out // which functions were called before depends on the order
	}
	for _, f := range failures {
		out.failures = append(out.failures, f.Code+": "+f.Message)
	}
	for name, args := range calls {
		args.Foreach(func(k, v *ast.Term) { out.unsteady = append(out.unsteady, fmt.Sprint(name, k, v)) })
	}
	slices.Sort(out.failures)
	slices.Sort(out.unsteady)
	out.failures = slices.Compact(out.failures)
	return out
}

// compare says how the programs and OPA's evaluator differ, empty if they do not.
func (e *evaluators) compare(ctx context.Context, input ast.Value) string {
	want := e.topdown(ctx, input, true)
	if code(want.err) == topdown.InternalErr {
		return "" // a bug of OPA's evaluator
	}
	for mode := range e.programs {
		got := e.compiled(ctx, mode, input)
		if got.equal(want) {
			continue
		}
		most := e.topdown(ctx, input, false)
		conflict := strings.HasSuffix(got.err, ": object keys must be unique") || got.err != "" && code(got.err) == code(most.err)
		if conflict || got.err == ErrUnsure.Error() || got.err == ErrEscaped.Error() {
			continue // a conflict that OPA's evaluator skips
		}
		if want.same(got) && includes(got.failures, want.failures) && includes(got.unsteady, want.unsteady) {
			if !includes(most.failures, got.failures) || !includes(most.unsteady, got.unsteady) {
				e.extra++
			}
			continue
		}
		return fmt.Sprintf("%s: %v\nOPA: %v\nwithout skips: %v", mode, got, want, most)
	}
	return ""
}

// checkAgree compares the evaluators of a module for each input, and returns them.
func checkAgree(t *testing.T, module, data string, inputs []string) *evaluators {
	t.Helper()
	e, err := newEvaluators(t.Context(), map[string]string{"p.rego": module}, ast.MustParseTerm(data).Value, modes)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range inputs {
		input := ast.MustParseTerm(text).Value
		for range 2 { // the first evaluation must not change what the second one reads
			if d := e.compare(t.Context(), input); d != "" {
				t.Errorf("%s: %s", text, d)
			}
		}
	}
	return e
}

// same reports whether two answers have the same value, or errors of one kind: of several conflicts, each evaluator finds another one
// first.
func (a answer) same(b answer) bool { return a.value == b.value && code(a.err) == code(b.err) }

// equal reports whether two answers are the same.
func (a answer) equal(b answer) bool {
	return a.same(b) && slices.Equal(a.failures, b.failures) && slices.Equal(a.unsteady, b.unsteady)
}

// code is the code of an error.
func code(err string) string {
	before, _, _ := strings.Cut(err, ":")
	return before
}

// includes reports whether all has everything that is in some.
func includes(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

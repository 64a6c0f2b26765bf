package bundle

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/lineage"
)

// testTimeout bounds how long one test rule may run.
const testTimeout = 30 * time.Second

// TestResult is the result of one test rule.
type TestResult struct {
	Package string // such as data.tollkeeper.key_test
	Name    string // such as test_expired_key_is_denied
	File    string
	Line    int
	// Skipped is true if the rule's name begins with todo_test_.
	Skipped bool
	// Failed is true if the rule was false or undefined.
	Failed bool
	// Err says why the rule could not be evaluated.
	Err      error
	Duration time.Duration
	// Cases are the failed cases of a test with several cases. Each is a path of names.
	Cases []string
	// Difference says how a compiled program and OPA's evaluator differ, and what to do. Then the test did not pass.
	Difference string
	// Uncompiled says why only OPA's evaluator ran the test.
	Uncompiled string
	// Trace shows the expressions that failed, for a test that did not pass.
	Trace string
	// Output is the rule's output of print.
	Output string
}

// Passed reports whether the test ran and passed.
func (r *TestResult) Passed() bool {
	return !r.Failed && !r.Skipped && r.Err == nil && r.Difference == ""
}

// OnBoth reports whether both evaluators ran the test.
func (r *TestResult) OnBoth() bool { return !r.Skipped && r.Uncompiled == "" }

// Test runs the rules whose names begin with test_ in all files of src, including *_test.rego, as opa test does. Each is evaluated by a
// compiled program, too, which must give the same value. The results are sorted by file and line. The error is a *LoadError or ctx's error; a failed test is not an error. regoVersion is as in
// Options.
func Test(ctx context.Context, src Source, regoVersion string) ([]TestResult, error) {
	files, err := src.read(true)
	if err != nil {
		return nil, err
	}
	modules, faults := parseModules(files, regoVersion)
	base, more := readData(files)
	if faults = append(append(faults, more...), customFaults(modules)...); len(faults) > 0 {
		return nil, &LoadError{Faults: faults}
	}
	store, err := newBaseData(base.merged)
	if err != nil {
		return nil, loadError(faultData, "", "%v", err)
	}
	s := suite{modules: modules, store: store}
	results, err := s.run(ctx, "", false)
	if err != nil {
		return nil, err
	}
	if err := s.addTraces(ctx, results); err != nil {
		return nil, err
	}
	out := make([]TestResult, len(results))
	for i := range results {
		if out[i] = testResult(results[i]); !out[i].Skipped {
			s.compare(ctx, &out[i])
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// suite is a set of modules with tests.
type suite struct {
	modules  map[string]*ast.Module
	store    *baseData
	compiler *ast.Compiler // of the last run
}

// run runs the tests whose full names match filter, or all if filter is empty.
func (s *suite) run(ctx context.Context, filter string, trace bool) ([]*tester.Result, error) {
	s.compiler = ast.NewCompiler().WithCapabilities(ast.CapabilitiesForThisVersion()).WithEnablePrintStatements(true)
	results, err := tester.NewRunner().
		SetCompiler(s.compiler).
		SetStore(s.store).
		SetModules(s.modules).
		SetTimeout(testTimeout).
		EnableTracing(trace).
		Filter(filter).
		RunTests(ctx, snapshot{})
	if err != nil {
		return nil, &LoadError{Faults: faultsOf(err)}
	}
	var out []*tester.Result
	for r := range results {
		out = append(out, r)
	}
	return out, ctx.Err()
}

// addTraces runs the tests that did not pass once more, with a trace. The first run has none, because a trace makes a test many
// times slower and most tests pass.
func (s *suite) addTraces(ctx context.Context, results []*tester.Result) error {
	broken := make(map[string]*tester.Result)
	var patterns []string
	for _, r := range results {
		if !r.Pass() && !r.Skip {
			broken[fullName(r)] = r
			patterns = append(patterns, regexp.QuoteMeta(fullName(r)))
		}
	}
	if len(broken) == 0 {
		return nil
	}
	traced, err := s.run(ctx, strings.Join(patterns, "|"), true)
	for _, r := range traced {
		if b := broken[fullName(r)]; b != nil {
			b.Trace = r.Trace
		}
	}
	return err
}

func fullName(r *tester.Result) string { return r.Package + "." + r.Name }

func testResult(r *tester.Result) TestResult {
	out := TestResult{
		Package:  r.Package,
		Name:     r.Name,
		Skipped:  r.Skip,
		Failed:   r.Fail,
		Err:      r.Error,
		Duration: r.Duration,
		Output:   string(r.Output),
	}
	if r.Location != nil {
		out.File, out.Line = r.Location.File, r.Location.Row
	}
	if out.Passed() || out.Skipped {
		return out
	}
	for path, c := range r.SubResults.Iter {
		if c.Fail && len(c.SubResults) == 0 {
			out.Cases = append(out.Cases, strings.Join(path, "/"))
		}
	}
	var trace strings.Builder
	topdown.PrettyTraceWithLocation(&trace, lineage.Fails(r.Trace))
	out.Trace = trace.String()
	return out
}

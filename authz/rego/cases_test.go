package rego

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	inmem "github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/open-policy-agent/opa/v1/util"
)

// TestCases_OfOPA runs OPA's own cases of both versions of the language, which its module has, in every mode.
func TestCases_OfOPA(t *testing.T) {
	registerSleep()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "v1", "test", "cases", "testdata")
	agreed, refused, all := make(map[string]int), 0, 0
	for name, version := range map[string]ast.RegoVersion{"v0": ast.RegoV0, "v1": ast.RegoV1} {
		for _, tc := range cases.MustLoad(filepath.Join(dir, name)).Sorted().Cases {
			all++
			t.Run(name+"/"+tc.Note, func(t *testing.T) {
				for k, v := range tc.Env {
					t.Setenv(k, v)
				}
				programs, err := compileCase(t, &tc, version)
				if _, ok := errors.AsType[*unplanned](err); ok {
					refused++
					return
				}
				for mode := range modes {
					if err := runCase(t, &tc, programs[mode], err); err != nil {
						t.Errorf("%s, %s: %v", mode, filepath.Base(tc.Filename), err)
					} else {
						agreed[mode]++
					}
				}
			})
		}
	}
	counts := slices.Sorted(maps.Values(agreed))
	const summary = "conformance: OPA's cases: %d, of which at least %d agree in each of %d modes, and %d are left to OPA's evaluator"
	t.Logf(summary, all, counts[0], len(agreed), refused)
	if all < 4427 || refused > 10 {
		t.Errorf("%d cases, %d refused: OPA's planner or its cases have changed", all, refused)
	}
}

// registerSleep adds a function that OPA's cases call, and that only its own tests have.
var registerSleep = sync.OnceFunc(func() {
	sleep := &ast.Builtin{Name: "test.sleep", Decl: types.NewFunction(types.Args(types.S), types.NewNull())}
	ast.RegisterBuiltin(sleep)
	topdown.RegisterBuiltinFunc(sleep.Name, func(_ topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
		d, err := time.ParseDuration(string(args[0].Value.(ast.String)))
		if err != nil {
			return err
		}
		time.Sleep(d)
		return iter(ast.NullTerm())
	})
})

// runCase returns how a case differs. Its modules may have an error already.
func runCase(t *testing.T, tc *cases.TestCase, p *Program, err error) (difference error) {
	defer func() {
		if x := recover(); x != nil {
			difference = fmt.Errorf("panic: %v", x)
		}
	}()
	var rs Result
	if err == nil {
		rs, err = evalCase(t, tc, p)
	}
	if tc.WantError != nil && (err == nil || !strings.Contains(err.Error(), *tc.WantError)) {
		return fmt.Errorf("the error is %v, want %s", err, *tc.WantError)
	}
	if tc.WantErrorCode != nil {
		var e *topdown.Error
		if !errors.As(err, &e) || e.Code != *tc.WantErrorCode {
			return fmt.Errorf("the error is %v, want the code %s", err, *tc.WantErrorCode)
		}
	}
	if err != nil && tc.WantErrorCode == nil && tc.WantError == nil {
		return err
	}
	if tc.WantResult == nil {
		return nil
	}
	return compareResults(t, tc, rs)
}

func compareResults(t *testing.T, tc *cases.TestCase, rs Result) error {
	want := ast.NewSet()
	for _, b := range *tc.WantResult {
		want.Add(ast.NewTerm(ast.MustInterfaceToValue(b)))
	}
	got := ast.NewSet()
	for _, r := range rs.Values {
		o := ast.NewObject()
		r.Value.(ast.Object).Foreach(func(k, term *ast.Term) {
			v, err := ast.JSON(term.Value)
			if err != nil {
				t.Fatal(err)
			}
			if tc.SortBindings {
				slices.SortFunc(v.([]any), util.Compare)
			}
			name := string(k.Value.(ast.String))
			if !tc.IgnoreGeneratedVars || !strings.HasPrefix(name, "__localq") {
				o.Insert(k, ast.NewTerm(ast.MustInterfaceToValue(v)))
			}
		})
		got.Add(ast.NewTerm(o))
	}
	if want.Compare(got) != 0 {
		return fmt.Errorf("the result is\n%v\nwant\n%v", got, want)
	}
	return nil
}

// compileCase compiles a case in every mode.
func compileCase(t *testing.T, tc *cases.TestCase, version ast.RegoVersion) (map[string]*Program, error) {
	modules := make(map[string]string)
	for i, m := range tc.Modules {
		modules[fmt.Sprintf("test-%d.rego", i)] = m
	}
	options := ast.ParserOptions{RegoVersion: version}
	if tc.ExperimentalKeywords {
		options.Capabilities = ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(true))
	}
	compiler, err := ast.CompileModulesWithOpt(modules, ast.CompileOpts{ParserOptions: options, EnablePrintStatements: true})
	if err != nil {
		return nil, err
	}
	data := map[string]any{}
	if tc.Data != nil {
		data = *tc.Data
	}
	plan, err := Plan(t.Context(), compiler, rego.ParsedQuery(ast.MustParseBody(tc.Query)), rego.Store(inmem.NewFromObject(data)))
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	programs := make(map[string]*Program)
	for mode, o := range modes {
		o.Data = ast.MustInterfaceToValue(data)
		if programs[mode], err = Compile(plan, o); err != nil {
			return nil, fmt.Errorf("compile: %w", err)
		}
	}
	return programs, nil
}

func evalCase(t *testing.T, tc *cases.TestCase, p *Program) (Result, error) {
	call := &Call{StrictBuiltinErrors: tc.StrictError}
	switch {
	case tc.InputTerm != nil:
		call.Input = ast.MustParseTerm(*tc.InputTerm).Value
	case tc.Input != nil:
		call.Input = ast.MustInterfaceToValue(*tc.Input)
	}
	return p.Eval(t.Context(), call)
}

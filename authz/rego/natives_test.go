package rego

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// TestNatives_EqualOPA compares each function of this package with OPA's on values of all types.
func TestNatives_EqualOPA(t *testing.T) {
	values := someValues()
	for _, name := range slices.Sorted(maps.Keys(natives)) {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(15, 1))
			theirs, arity := topdown.GetBuiltin(name), len(ast.BuiltinMap[name].Decl.FuncArgs().Args)
			accepted := 0
			for range 20_000 {
				args := make([]*ast.Term, arity)
				for i := range args {
					args[i] = values[random.IntN(len(values))]
				}
				got, ok := natives[name](args)
				if !ok {
					continue // the call is left to OPA
				}
				accepted++
				var want *ast.Term
				err := theirs(topdown.BuiltinContext{}, args, func(v *ast.Term) error { want = v; return nil })
				if err != nil || (got == nil) != (want == nil) || got != nil && got.Value.Compare(want.Value) != 0 {
					t.Fatalf("%s(%v) is %v, want %v, %v", name, args, got, want, err)
				}
			}
			if accepted < 20 {
				t.Errorf("only %d of 20,000 calls were not left to OPA", accepted)
			}
		})
	}
}

// someValues are values of all types.
func someValues() []*ast.Term {
	texts := []string{
		`null`, `true`, `false`, `0`, `1`, `2`, `-1`, `1.0`, `1.5`, `1e2`, `100`, `12345678901234567890123`, `""`, `"a"`, `"A"`, `"ab"`, `"b"`, `"ÄÖ"`, `"äö"`, `"1"`, `"aba"`,
		`[]`, `[1]`, `["a"]`, `["a", "b"]`, `[["a"]]`, `[1, "a", null]`, `[""]`, `[0, 1, 2]`,
		`{}`, `{"a": 1}`, `{"a": {"b": 2}}`, `{1: "a"}`, `{"b": null, "a": 1}`, `{["a"]: 1}`, `{"a": [1, 2]}`,
		`set()`, `{1}`, `{"a"}`, `{"a", "b"}`, `{1, 2}`, `{[1]}`, `{null}`,
	}
	out := make([]*ast.Term, len(texts))
	for i, text := range texts {
		out[i] = ast.MustParseTerm(text)
	}
	return append(out, ast.StringTerm("\xff"), ast.StringTerm("İ"))
}

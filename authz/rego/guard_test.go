package rego

import (
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestGuards_Kinds compares both evaluators where an index by the beginning, the end or a member of a value may leave out a rule that holds.
func TestGuards_Kinds(t *testing.T) {
	inputs := []string{
		`{}`, `{"x": 3}`, `{"x": "3"}`, `{"x": "3a"}`, `{"x": "a3"}`, `{"x": "13a"}`, `{"x": "a13"}`, `{"x": ""}`, `{"x": null}`, `{"x": "/v1/3/z"}`, `{"x": "/v1/13/z/a3"}`, `{"x": "/v1/z/3"}`,
		`{"x": ["3"]}`, `{"x": ["3", "3", "13", 3]}`, `{"x": [3.0, "4"]}`, `{"x": [["3"], {"a": "3"}, "5"]}`, `{"x": {"a": "3", "b": "13", "3": 1}}`, `{"x": {"3": "z"}}`, `{"x": {"3", "z", true}}`, `{"x": [true, null, "none"]}`,
		`{"x": [` + strings.Repeat(`"3", "7", `, 100) + `"9"]}`, `{"x": ["3"], "y": "z"}`, `{"x": ["4", "5", "x"], "y": ["3"]}`,
	}
	for name, c := range map[string]struct {
		modules string
		indexed bool
	}{
		"begins":                  {many(`q contains N if startswith(input.x, "N")`, ""), true},
		"begins, nested":          {many(`q contains N if startswith(input.x, "N")`, `q contains 30 if startswith(input.x, "")`), true},
		"begins, value":           {many(`q contains startswith(input.x, "N") if true`, ""), false},
		"begins, not":             {many(`q contains N if not startswith(input.x, "N")`, ""), false},
		"begins, argument":        {many(`f(x) := N if startswith(x, "N0")`, "q := f(input.x)"), true},
		"begins, same value":      {many(`q if startswith(input.x, "N")`, ""), true},
		"ends":                    {many(`q contains N if endswith(input.x, "N")`, ""), true},
		"ends, of a member":       {many(`q contains N if endswith(input.x[0], "N")`, ""), true},
		"one of two":              {many(`q contains N if strings.any_prefix_match(input.x, ["N", "aN"])`, ""), true},
		"one of two that nest":    {many(`q contains N if strings.any_prefix_match(input.x, ["N", "Na", "N", "a"])`, ""), true},
		"one of a set":            {many(`q contains N if strings.any_prefix_match(input.x, {"N", "aN"})`, ""), true},
		"one of none":             {many(`q contains N if strings.any_prefix_match(input.x, [])`, `q contains 31 if strings.any_prefix_match(input.x, "3")`), true},
		"one of two ends":         {many(`q contains N if strings.any_suffix_match(input.x, ["N", "Na"])`, ""), true},
		"glob":                    {many(`q contains N if glob.match("/v1/N/*", ["/"], input.x)`, ""), true},
		"glob, end":               {many(`q contains N if glob.match("/v1/*/N", ["/"], input.x)`, ""), true},
		"glob, both":              {many(`q contains N if glob.match("/v1/N/**/aN", ["/"], input.x)`, ""), true},
		"glob, alternatives":      {many(`q contains N if glob.match("/v1/{N,1N}/z*", null, input.x)`, ""), false},
		"glob, invalid":           {many(`q contains N if glob.match("/v1/N/[", [], input.x)`, ""), false},
		"has":                     {many(`q contains N if "N" in input.x`, ""), true},
		"has number":              {many(`q contains N if N in input.x`, ""), true},
		"has, by underscore":      {many(`q contains N if input.x[_] == "N"`, ""), true},
		"has, by some":            {many(`q contains [i, N] if { some i, v in input.x; v == "N" }`, ""), true},
		"has, more conditions":    {many(`q contains N if { input.x[_] == "N"; input.y[_] == "z" }`, ""), true},
		"has, after a condition":  {many(`q contains N if { input.y == "z"; input.x[_] == "N" }`, ""), true},
		"has no more than others": {many(`q contains N if { input.x[_] != "N" }`, ""), false},
		"has key":                 {many(`q contains N if { some i, v in input.x; i == "N" }`, ""), false},
		"has, not":                {many(`q contains N if not "N" in input.x`, ""), false},
		"has, every":              {many(`q contains N if every v in input.x { v == "N" }`, ""), false},
		"has and begins":          {many(`q contains N if { "N" in input.x; startswith(input.y, "z") }`, many(`q contains 1N if startswith(input.y, "N")`, "")[len("package p"):]), true},
		"has, value":              {many(`q := N if "N" in input.x`, ""), true},
		"has, object":             {many(`q["kN"] := N if "N" in input.x`, ""), true},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := newEngines(t.Context(), map[string]string{"p.rego": c.modules + "\nmain := q"}, ast.NewObject(), modes)
			if err != nil {
				t.Fatal(err)
			}
			for _, input := range inputs {
				if d := e.compare(t.Context(), ast.MustParseTerm(input).Value); d != "" {
					t.Errorf("%s: %s", input, d)
				}
			}
			for _, f := range e.programs["all"].funcs {
				if f.name == "g0.data.p.f" || f.name == "g0.data.p.q" && !strings.Contains(c.modules, "f(x)") {
					if indexed := len(f.blocks) < 10; indexed != c.indexed {
						t.Errorf("%s has %d blocks", f.name, len(f.blocks))
					}
				}
			}
		})
	}
}

package rego

import (
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// TestPatterns_AsOPA compares both evaluators on patterns that are known at load, and on others.
func TestPatterns_AsOPA(t *testing.T) {
	data := `{"res": ["^/a", "b$", "(", "^/a/[0-9]+$", 7, "x{2000}"],
		"rows": [{"re": "^/a", "glob": "/a/*"}, {"re": "c"}, {"glob": "**/z"}, {"glob": "[a"}, {}],
		"map": {"^/a": "/a/**", "b+": "{a,b}*", "[": "["}, "d": ["/", "."]}`
	inputs := []string{
		`{}`, `{"x": "/a"}`, `{"x": "/a/7"}`, `{"x": "/a/b/z"}`, `{"x": "a.b"}`, `{"x": "ab"}`, `{"x": 7}`,
		`{"x": "", "p": "^$"}`, `{"x": "abc", "p": "b"}`, `{"x": "[a", "p": "("}`, `{"x": "/a", "p": 1}`,
		`{"x": "/a\\/b/z"}`, `{"x": "*a"}`}
	for name, rules := range map[string]string{
		"constant":              `main if regex.match("^/a", input.x)`,
		"constant, invalid":     `main if regex.match("(", input.x)`,
		"raw text":              "main if regex.match(`^/a/\\d+$`, input.x)",
		"from the input":        `main if regex.match(input.p, input.x)`,
		"list":                  `main := [p | some p in data.res; regex.match(p, input.x)]`,
		"fields":                `main := [r | some r in data.rows; regex.match(r.re, input.x)]`,
		"keys":                  `main := {k | some k, _ in data.map; regex.match(k, input.x)}`,
		"by reference":          `main := [i | regex.match(data.rows[i].re, input.x)]`,
		"set":                   `main := [p | some p in {"^/a", "b"}; regex.match(p, input.x)]`,
		"negated":               `main if not regex.match("^/a", input.x)`,
		"as value":              `main := [regex.match("^/a", input.x), regex.match("a", "abc")]`,
		"glob":                  `main if glob.match("/a/*", ["/"], input.x)`,
		"glob, no delimiters":   `main := [glob.match("/a*", null, input.x), glob.match("*.b", [], input.x)]`,
		"glob, wrong delimiter": `main if glob.match("/a*", ["//"], input.x)`,
		"glob, from data":       `main if glob.match("/a/*", data.d, input.x)`,
		"glob, escaped": "main := [q, r]\ndefault q := 0\ndefault r := 0\n" +
			"q := 1 if glob.match(`\\*a`, [], input.x)\nr := 1 if glob.match(`/*/*/z`, [`/`], input.x)",
		"glob, from the input":  `main if glob.match("/a/*", input.d, input.x)`,
		"globs":                 `main := [r | some r in data.rows; glob.match(r.glob, ["/"], input.x)]`,
		"globs of values":       `main := [k | some k, v in data.map; glob.match(v, [], input.x)]`,
		"globs, two delimiters": `main := [k | some k, v in data.map; d := data.d; glob.match(v, d, input.x)]`,
		"replaced data":         `main := [r, x] if x := r with data.res as ["c", "z"]` + "\nr := [p | some p in data.res; regex.match(p, input.x)]",
		"replaced function":     `main if regex.match("^/a", input.x) with regex.match as f` + "\nf(_, y) := y == \"ab\"",
	} {
		t.Run(name, func(t *testing.T) {
			checkAgree(t, "package p\n"+rules, data, inputs)
		})
	}
}

// TestPatterns_KnownAtLoad checks which calls find their patterns.
func TestPatterns_KnownAtLoad(t *testing.T) {
	list := ast.MustParseTerm(`[{"re": "^/a"}, {"re": "b"}, {"re": 7}, {}]`)
	c := &compiler{options: &Options{}, functionState: functionState{known: knowledge{}}}
	c.known[5] = fact{part: &collectionPart{list, memberPart{path: []*ast.Term{ast.StringTerm("re")}}}}
	if got := c.texts(ir.Operand{Value: ir.Local(5)}); len(got) != 2 || got[0] != "^/a" || got[1] != "b" {
		t.Errorf("%q", got)
	}
	if got := c.texts(ir.Operand{Value: ir.Local(6)}); got != nil {
		t.Errorf("%q", got)
	}
}

// TestPatterns_LongText matches a long text with many patterns. Each match looks at the cancellation.
func TestPatterns_LongText(t *testing.T) {
	const patterns = 100
	data := ast.MustParseTerm(`{"res": [` + strings.Repeat(`"x$", `, patterns) + `"y$"]}`).Value
	for _, rule := range []string{"main := [r | some r in data.res; regex.match(r, input.x)]", "main := [r | some r in data.res; glob.match(r, [], input.x)]"} {
		e, err := newEvaluators(t.Context(), map[string]string{"p.rego": "package p\n" + rule}, data, modes)
		if err != nil {
			t.Fatal(err)
		}
		for length, most := range map[int]int64{10: patterns / 2, longText + 1: 2 * patterns} {
			asked := &looks{}
			input := ast.NewObject([2]*ast.Term{ast.StringTerm("x"), ast.StringTerm(strings.Repeat("a", length))})
			if _, err := e.programs["all"].Eval(t.Context(), &Call{Input: input, Cancel: asked}); err != nil {
				t.Fatal(err)
			}
			if n := asked.n; n > most || length > longText && n < patterns {
				t.Errorf("%s: it looked %d times for %d bytes", rule, n, length)
			}
		}
	}
}

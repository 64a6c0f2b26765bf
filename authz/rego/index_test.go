package rego

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// many returns a module of 20 rules, made of a text with the number of the rule.
func many(format, more string) string {
	var text strings.Builder
	text.WriteString("package p\n")
	for i := range 20 {
		text.WriteString(strings.ReplaceAll(format, "N", fmt.Sprint(i)) + "\n")
	}
	return text.String() + more
}

// TestIndex_Rules compares both evaluators where a rule index may leave out a rule that holds.
func TestIndex_Rules(t *testing.T) {
	inputs := []string{
		`{}`, `7`, `{"x": "3"}`, `{"x": 3}`, `{"x": 3.0}`, `{"x": 0.3e1}`, `{"x": true}`, `{"x": null}`, `{"x": [3]}`, `{"x": ["3"]}`,
		`{"x": {"0": "3"}}`, `{"x": ["3", 1]}`, `{"x": [["3"], {"y": 2}]}`, `{"x": [{"y": "3", "z": "a"}]}`, `{"x": {"y": "3"}}`,
		`{"x": "3", "y": "3"}`, `{"x": "3", "y": "z"}`, `{"x": "none", "y": "3"}`, `{"x": 3, "y": 3}`, `{"x": "33", "y": "1"}`, `{"y": "3"}`,
		`{"x": 1e20}`, `{"x": 100000000000000000001}`, `{"x": "/3"}`, `{"x": "/3/"}`, `{"x": "/3/v"}`, `{"x": "/a/v"}`,
		`{"x": "/13/v/3", "y": "3"}`, `{"x": ""}`, `{"x": "/"}`, `{"x": "a.3"}`, `{"x": "a.b.3"}`, `{"x": "ü/3/é", "y": "/3/"}`,
		`{"x": "/v/3"}`, `{"x": "a/3/b"}`, `{"x": "a/b/3"}`, `{"x": "/a/b/v/17"}`, `{"x": "a/v"}`, `{"x": "/v/3/a"}`, `{"x": "a/3"}`,
		`{"x": "ab"}`, `{"x": "a"}`, `{"l": []}`, `{"l": ["3"]}`, `{"l": ["3", 1]}`, `{"l": ["v", 1, "3"]}`, `{"l": {"0": "3"}}`,
		`{"l": {"3"}}`,
	}
	for name, c := range map[string]struct {
		modules string
		blocks  int // of the rules of q or f behind an index; 0: no index
	}{
		"text":                        {many(`q contains N if input.x == "N"`, ""), 3},
		"text on the left":            {many(`q contains N if "N" == input.x`, ""), 3},
		"number":                      {many(`q contains N if input.x == N`, ""), 3},
		"other numbers":               {many(`q contains N if input.x == N.0`, "q contains 7 if input.x == 1e20"), 0},
		"deep":                        {many(`q contains N if input.x.y == "N"`, ""), 3},
		"in an array of the input":    {many(`q contains N if input.x[0] == "N"`, ""), 3},
		"deep in an array":            {many(`q contains N if input.x[0].y == "N"`, ""), 3},
		"after an array in the input": {many(`q contains N if { input.x[0].z == "a"; input.x[0].y == "N" }`, ""), 3},
		"array of the replaced input": {many(`r contains N if input.x[0] == "N"`, "q := [r, x] if x := r with input.x as [\"4\"]"), 0},
		"pattern of an array":         {many(`q contains [N, y] if { input.x = ["N", y] }`, ""), 3},
		"nested pattern":              {many(`q contains [N, y] if { input.x = [["N"], {"y": y}] }`, ""), 3},
		"item":                        {many(`q contains N if input.l[0] == "N"`, ""), 3},
		"item of an argument":         {many(`f(x) := N if x[0] == "N"`, "q := f(input.l)"), 2},
		"array":                       {many(`q contains N if ["N", y] = input.l`, ""), 3},
		"array of an argument":        {many(`f(["v", x, "N"]) := N`, "q := f(input.l)"), 2},
		"begins":                      {many(`q contains N if startswith(input.x, "/N")`, "q contains 20 if startswith(input.x, \"\")"), 3},
		"begins, of two lengths":      {many(`q contains N if startswith(input.x, "/N/")`, "q contains 20 if startswith(input.x, \"/\")"), 3},
		"begins, negated":             {many(`q contains N if not startswith(input.x, "/N")`, ""), 0},
		"ends":                        {many(`q contains N if endswith(input.x, "N")`, "q contains 20 if endswith(input.x, input.y)"), 3},
		"begins and ends":             {many(`q contains N if { startswith(input.x, "/"); endswith(input.x, "N"); not startswith(input.x, "/3") }`, ""), 3},
		"begins or equals":            {many(`q contains N if startswith(input.x, "/N")`, many(`q contains 1N if input.x == "/N/v"`, "")[len("package p"):]), 3},
		"begins, argument":            {many(`f(x) := N if startswith(x, "/N/")`, "q := [f(x) | some x in [input.x, input.y]]"), 2},
		"begins, data":                {many(`q contains N if startswith(input.x, data.k.kN)`, "q contains 60 if startswith(input.x, data.k.kz)"), 0},
		"globs":                       {many(`q contains N if glob.match("/N/*", ["/"], input.x)`, ""), 3},
		"globs, segment":              {many(`q contains N if glob.match("*/N/?", ["/"], input.x)`, ""), 3},
		"globs, end":                  {many(`q contains N if glob.match("**/v/N", ["/"], input.x)`, ""), 3},
		"globs, dots":                 {many(`q contains N if glob.match("*.N", [], input.x)`, ""), 3},
		"globs, no delimiters":        {many(`q contains N if glob.match("*N*", null, input.x)`, ""), 0},
		"globs, two delimiters":       {many(`q contains N if glob.match("*/N/?", ["/", "."], input.x)`, ""), 0},
		"globs, alternatives":         {many(`q contains N if glob.match("{/a,/N}/v", ["/"], input.x)`, ""), 0},
		"globs, escaped":              {many(`q contains N if glob.match("/\\N/v", ["/"], input.x)`, ""), 0},
		"globs, not":                  {many(`q contains N if glob.match("[!N]/v", ["/"], input.x)`, ""), 0},
		"globs, invalid":              {many(`q contains N if glob.match("/N/[", ["/"], input.x)`, ""), 0},
		"globs, any depth":            {many(`q contains N if glob.match("**/N/*", ["/"], input.x)`, ""), 0},
		"globs, class":                {many(`q contains N if glob.match("[!N]*", ["/"], input.x)`, ""), 0},
		"globs, class last":           {many(`q contains N if glob.match("*[!N]", ["/"], input.x)`, ""), 0},
		"globs, braces last":          {many(`q contains N if glob.match("*/{a,N}", ["/"], input.x)`, ""), 0},
		"globs, literal":              {many(`q contains N if glob.match("/N/v", ["/"], input.x)`, ""), 3},
		"scalars":                     {many(`q contains N if input.x == "N"`, "q contains 30 if input.x == null\nq contains 31 if input.x == true\nq contains 32 if input.x == [3]\nq contains 33 if input.x == 3"), 3},
		"in a set":                    {many(`q contains N if input.x in {"N", "3N", N}`, ""), 3},
		"in an array":                 {many(`q contains N if input.x in ["N", "N", true]`, ""), 3},
		"in a mixed array":            {many(`q contains N if input.x in ["N", ["N"]]`, ""), 0},
		"in an object":                {many(`q contains N if input.x in {"a": "N"}`, ""), 0},
		"not in":                      {many(`q contains N if not input.x in {"N", "3N"}`, ""), 0},
		"not":                         {many(`q contains N if not input.x == "N"`, ""), 0},
		"not equal":                   {many(`q contains N if input.x != "N"`, ""), 0},
		"two":                         {many(`q contains N if { input.x == "N"; input.y == "z" }`, ""), 3},
		"few first":                   {many(`q contains N if { input.y == "z"; input.x == "N" }`, ""), 3},
		"another for some":            {many(`q contains N if input.x == "N"`, many(`q contains 1N if input.y == "N"`, "")[len("package p"):]), 3},
		"the same twice":              {many(`q contains N if { input.x == "N"; input.x == "3" }`, ""), 3},
		"same key in many":            {many(`q contains N if input.x == "3"`, many(`q contains 1N if input.x == "N"`, "")[len("package p"):]), 3},
		"without":                     {many(`q contains N if input.x == "N"`, "q contains 40\nq contains 41 if input.y"), 3},
		"after a failure":             {many(`q contains N if { to_number(input.x) > 0; input.y == "N" }`, ""), 3},
		"after a loop":                {many(`q contains N if { some i in [1, 2, N]; input.x == "N" }`, ""), 0},
		"loop after":                  {many(`q contains [N, i] if { input.x == "N"; some i in [1, 2, N] }`, ""), 3},
		"value":                       {many(`q := N if input.x == "N"`, ""), 2},
		"value, default":              {many(`q := N if input.x == "N"`, "default q := -1"), 3},
		"same value":                  {many(`q if input.x == "N"`, "q if input.y == \"z\""), 2},
		"conflict":                    {many(`q := N if input.x in {"N", "3"}`, ""), 2},
		"else":                        {many(`q := N if input.x == "N"`, "q := 50 if input.y == \"z\" else := 51 if input.y == \"3\" else := 52"), 0},
		"else of all":                 {many(`q := N if input.x == "N" else := 3 if input.y == "3"`, ""), 0},
		"object":                      {many(`q["kN"] := N if input.x == "N"`, ""), 3},
		"argument":                    {many(`f("N", y) := N`, "q := f(input.x, 1)"), 2},
		"argument, in body":           {many(`f(x, y) := N if { x == "N"; y == 1 }`, "q := f(input.x, 1)"), 2},
		"part of an argument":         {many(`f(x) := N if x.y == "N"`, "q := f(input.x)"), 2},
		"argument, default":           {many(`f(x) := N if x == "N"`, "default f(_) := 9\nq := f(input.x)"), 3},
		"argument of many":            {many(`f(x) := N if x == "N"`, "q := [f(i) | some i in [\"1\", 2, input.x, input.y]]"), 2},
		"array as argument":           {many(`f([x, "N"]) := N`, "q := f([1, input.x])"), 2},
		"replaced input":              {many(`r contains N if input.x == "N"`, "q := [r, x, y] if { x := r with input.x as \"4\"; y := r with input as {\"x\": \"5\"} }"), 0},
		"constant from data":          {many(`q contains N if input.x == data.k.kN`, "q contains 60 if input.x == data.k.kz"), 3},
		"replaced data":               {many(`r contains N if input.x == data.k.kN`, "q := [r, x] if x := r with data.k as {\"k1\": \"3\"}"), 0},
		"value of a rule":             {many(`q contains N if r == "N"`, "r := input.x"), 0},
		"failure in the value":        {many(`q := to_number(input.y) if input.x == "N"`, "q := 9 if input.x == \"none\""), 2},
	} {
		t.Run(name, func(t *testing.T) {
			text := c.modules
			data := ast.MustParseTerm(`{"k": {"k1": "1", "k2": "3", "k3": "3", "k4": 3, "k5": "5", "k6": "6", "k7": true, "k8": [3], "kz": "3"}}`).Value.(ast.Object)
			e, err := newEngines(t.Context(), map[string]string{"p.rego": text + "\nmain := q"}, data, modes)
			if err != nil {
				t.Fatal(err)
			}
			for _, input := range inputs {
				if d := e.compare(t.Context(), ast.MustParseTerm(input).Value); d != "" {
					t.Errorf("%s: %s", input, d)
				}
			}
			for _, f := range e.programs["all"].funcs {
				if (f.name == "g0.data.p.q" && !strings.Contains(text, "f(")) || f.name == "g0.data.p.f" {
					if got := len(f.blocks); c.blocks > 0 && got != c.blocks || c.blocks == 0 && got < 20 && f.name != "g0.data.p.q" {
						t.Errorf("%s has %d blocks, want %d", f.name, got, c.blocks)
					}
				}
			}
		})
	}
}

// TestKey_EqualValues checks that two values with a key are equal if and only if their keys are.
func TestKey_EqualValues(t *testing.T) {
	texts := []string{
		`""`, `"1"`, `"true"`, `"null"`, `null`, `true`, `false`, `0`, `-0`, `0.0`, `1`, `1.0`, `1e0`, `10`, `1e1`, `-1`, `-1.0`, `100`, `1e2`,
		`999999999999999`, `9999999999999999`, `9007199254740993`, `9007199254740992.0`, `9007199254740992`, `0.1`, `1e400`, `[]`, `[1]`, `{"a": 1}`, `{1}`,
	}
	with := 0
	for _, a := range texts {
		for _, b := range texts {
			x, y := ast.MustParseTerm(a), ast.MustParseTerm(b)
			k, ok := key(x)
			l, both := key(y)
			if !ok || !both {
				continue
			}
			with++
			if (k == l) != equal(x, y) {
				t.Errorf("%s and %s: keys %v and %v", a, b, k, l)
			}
		}
	}
	if with < 100 {
		t.Errorf("only %d pairs have keys", with)
	}
}

package rego

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// trap is a policy of which a plan, or a first idea of how to run it, has another meaning.
type trap struct {
	name, modules, data, input string
	want                       string // the value or the error; "refused" if OPA's evaluator must evaluate it; empty for undefined
}

func TestTraps(t *testing.T) {
	for _, c := range traps {
		t.Run(c.name, c.run)
	}
}

// run compares both evaluators, and the program's answer with what is wanted.
func (c *trap) run(t *testing.T) {
	e, input, err := c.engines(t)
	var r refused
	if errors.As(err, &r) && c.want == "refused" {
		return
	}
	if err != nil || c.want == "refused" {
		t.Fatalf("%v, want %s", err, c.want)
	}
	for range 2 { // the first evaluation must not change what the second one reads
		if d := e.compare(t.Context(), input); d != "" {
			t.Error(d)
		}
		if a := e.compiled(t.Context(), "all", input); a.value+a.err != c.want {
			t.Errorf("%v, want %s", a, c.want)
		}
	}
}

func (c *trap) engines(t *testing.T) (*engines, ast.Value, error) {
	modules := make(map[string]string)
	for i, text := range strings.Split(c.modules, "---\n") {
		modules[fmt.Sprintf("%d.rego", i)] = text
	}
	data, input := ast.NewObject(), ast.MustParseTerm(c.input).Value
	if c.data != "" {
		data = ast.MustParseTerm(c.data).Value.(ast.Object)
	}
	e, err := newEngines(t.Context(), modules, data, modes)
	return e, input, err
}

var traps = []trap{
	{"negated tree", "package p\nmain if not data.a[input.x].q\n---\npackage a.b\nq := 1\n---\npackage a.c.d\nr := 2", "", `{"x": "z"}`, "true"},
	{"negated tree with data", "package p\nmain if not data.a[input.x].q\n---\npackage a.b\nq := 1\n---\npackage a.c.d\nr := 2", `{"a": {"z": {"q": false}}}`, `{"x": "z"}`, "true"},
	{"negated trees", "package p\nmain if not data.a[input.x]\n---\npackage a.b\nq := 1\n---\npackage a.c.d\nr := 2", "", `{"x": "z"}`, "refused"},
	{"negated dispatch, false", "package p\nmain if not data.a[input.x].y\n---\npackage a\nq := {\"y\": false}\nr := {\"y\": 1}", "", `{"x": "q"}`, "true"},
	{"negated dispatch, true", "package p\nmain if not data.a[input.x].y\n---\npackage a\nq := {\"y\": false}\nr := {\"y\": 1}", "", `{"x": "r"}`, ""},
	{"negated dispatch, false rule", "package p\nmain if not data.a[input.x]\n---\npackage a\nq := {\"y\": false}\nr := false", "", `{"x": "r"}`, "true"},
	{"negated dispatch, true rule", "package p\nmain if not data.a[input.x]\n---\npackage a\nq := {\"y\": false}\nr := false", "", `{"x": "q"}`, ""},
	{"negated dispatch with input", "package p\nmain if not data.a[input.x] with input.y as 3\n---\npackage a\nq if input.y == 3\nr := false", "", `{"x": "q"}`, ""},
	{"negated dispatch with other input", "package p\nmain if not data.a[input.x] with input.y as 4\n---\npackage a\nq if input.y == 3\nr := false", "", `{"x": "q"}`, "true"},
	{"negated walk", "package p\nmain if not walk(input, [[\"x\"], \"z\"])", "", `{"x": "z"}`, ""},
	{"negated objects that differ in length", "package p\nmain if not {input.x: 1} == {input.y: 1, \"b\": 2}", "", `{"x": "z", "y": "z"}`, "refused"},
	{"negated objects", "package p\nmain if not {input.x: 1, \"b\": 2} == {input.y: 1, \"b\": 2}", "", `{"x": "z", "y": "z"}`, "refused"},
	{"conflict in a comprehension that is an expression", "package p\nmain if { {\"a\": x | some x in [1, 2]} }", "", `{}`, "refused"},
	{"failure in a comprehension that is negated", "package p\nmain if not [{x | x := to_number(y)} | y := input.x]", "", `{"x": []}`, "refused"},
	{"planner panics where functions and data are replaced", "package p\nmain := x if x := q with data.a.f as data.a.g\nq := 1 if { data.a[input.x][input.x] with data.b as 1 }\n---\npackage a\nf(x) := x\ng(x) := f(x)", "", `{"x": "h"}`, "refused"},
	{"replaced function before replaced data", "package p\nmain := x if x := q with sort as f with data.a as 1\nf(_) := 2\nq := [data.a, sort([])]", "", `{}`, "[1, 2]"},
	{"replaced function before replaced input", "package p\nmain := x if x := q with data.p.f as data.p.g with input.a as 1\nf(_) := 2\ng(_) := 3\nq := [input.a, f(1)]", "", `{}`, "[1, 3]"},
	{"replaced function after replaced data", "package p\nmain := x if x := q with data.a as 1 with sort as f\nf(_) := 2\nq := [data.a, sort([])]", "", `{}`, "[1, 2]"},
	{"replaced function of the policy before replaced data", "package p\nmain := x if x := q with data.p.f as data.p.g with data.a as 1\nf(_) := 2\ng(_) := 3\nq := [data.a, f(1)]", "", `{}`, "[1, 3]"},
	{"replaced functions", "package p\nmain := x if x := q with sort as f with count as 7 with input.a as 1\nf(_) := 2\nq := [sort([]), count([])]", "", `{}`, "[2, 7]"},
	{"object that replaces a part of what is read", "package p\nmain := x if x := data.b with data.b.x as {\"q\": 1}", `{"b": {"x": {"y": 2}, "z": 1}}`, `{}`, "refused"},
	{"object that replaces a part of what a rule reads", "package p\nmain := x if x := q with data.b.x.y as input\nq := data.b[input.z]", `{"b": {"x": {"y": {"w": 2}}}}`, `{"z": "x"}`, "refused"},
	{"object that replaces what is read", "package p\nmain := x if x := data.b.x with data.b.x as {\"q\": 1}", `{"b": {"x": {"y": 2}, "z": 1}}`, `{}`, `{"q": 1}`},
	{"negated call", "package p\nmain if not f({input.x: 1}, {input.y: 1, \"b\": 2})\nf(x, x)", "", `{"x": "z", "y": "z"}`, "true"},
	{"number for text in a loop", "package p\nmain := [x | x := data.a[_][1]]", `{"a": {"k": {"1": 2}, "l": [4, 5]}}`, `{"x": 1}`, "[2, 5]"},
	{"text for number in a loop", "package p\nmain := [x | some k; x := data.a[k][\"1\"]]", `{"a": {"k": {"1": 2}, "l": [4, 5]}}`, `{"x": 1}`, "[2, 5]"},
	{"boolean is no text", "package p\nmain := data.a[input.x]", `{"a": {"true": {"1": 2}}}`, `{"x": true}`, ""},
	{"number for text in a named value", "package p\nmain := y[input.x] if y := data.a", `{"a": {"1": 2}}`, `{"x": 1}`, ""},
	{"text for number in a named value", "package p\nmain := y[input.x] if y := data.a", `{"a": [1, 2]}`, `{"x": "1"}`, ""},
	{"overlap mix2", "package p\nmain := q\nq[x][z] := data.o if { x := \"k\"; z := \"b\"}\nq[y][z].c := 2 if { y := \"k\"; z := \"b\"}\nq[y][z].d.e := 2 if { y := \"k\"; z := \"b\"}", `{"o": {"c": 2}}`, `{}`, "eval_conflict_error: object keys must be unique"},
	{"overlap mix3", "package p\nmain := q\nq[x].b := {\"c\": {\"z\": 1}} if { x := \"k\"}\nq.k[y] := {\"c\": {\"z\": 1}} if { y := \"b\"}\nq.k.b[y].x := 2 if y := \"c\"", `{"o": {"c": 2}}`, `{}`, "eval_conflict_error: object keys must be unique"},
	{"constant that nobody reads", "package p\nmain := q if x := []\nq := count([])", "", `{}`, "0"},
	{"negated walk, undefined", "package p\nmain if not walk(input, [[\"q\"], 1])", "", `{"x": "z"}`, "true"},
	{"rule within a constant", "package p\nmain := q\nq[x] := {\"a\": 1} if x := \"k\"\nq[y].b := 2 if y := \"k\"", "", `{}`, "eval_conflict_error: object keys must be unique"},
	{"overlap deep", "package p\nmain := q\nq.a[x] := {\"a\": 1} if x := \"k\"\nq.a[y].b.c := 2 if y := \"k\"\nq.a[z].b := {\"d\": 1} if z := \"k\"", "", `{}`, "eval_conflict_error: object keys must be unique"},
	{"rule within data", "package p\nmain := q\nq[x] := data.o if x := \"k\"\nq[y][z] := 2 if { y := \"k\"; z := \"c\" }", `{"o": {"a": 1}}`, `{}`, "eval_conflict_error: object keys must be unique"},
	{"variable names a function", "package p\nmain := data.a[input.x]\n---\npackage a\nf(x) := x\nq := 1", "", `{"x": "f"}`, ""},
	{"dispatch where a function is a variable", "package p\nmain := y if { some y in [1, 2]; z := data.a[input.x] with data.a.f as y; z == 2 }\n---\npackage a\nf(x) := x\nq := f(7)", "", `{"x": "q"}`, "refused"},
	{"dispatch where a builtin is a variable", "package p\nmain contains z if { some y in [1, 2]; z := data.a[input.x] with count as y }\n---\npackage a\nr := 3\nq := count([])", "", `{"x": "q"}`, "refused"},
	{"conflict where a builtin is a variable", "package p\nmain contains z if { some y in [1, 2]; z := q with count as y }\nq := count([1])\nq := 3", "", `{"x": "q"}`, "eval_conflict_error: rule data.p.q produced conflicting values"},
	{"number for text", "package p\nmain := [data.a[1], data.a[input.x]]", `{"a": {"1": 2}}`, `{"x": 1}`, "[2, 2]"},
	{"number for text beside packages", "package p\nmain := data.a[input.x]\n---\npackage a.b\nq := 1", `{"a": {"1": 2}}`, `{"x": 1}`, "a value of another type names a part of the data"},
	{"text for number beside packages", "package p\nmain := data.a[\"k\"][input.x][1]\n---\npackage a.b\nq := 1\n---\npackage a.k.z\nq := 1", `{"a": {"k": {"1": [2, 3]}}}`, `{"x": "1"}`, "3"},
	{"missing number beside packages", "package p\nmain := data.a[input.x]\n---\npackage a.b\nq := 1", `{"a": {"1": 2}}`, `{"x": 3}`, ""},
	{"number for text in replaced data", "package p\nmain := x if x := q with data.a as {\"1\": 2}\nq := data.a[input.x]", `{"a": {"1": 2}}`, `{"x": 1}`, "a value of another type names a part of the data"},
	{"number for text in a condition", "package p\ndefault main := 0\nmain := 1 if data.a[input.x]\nmain := 2 if input.x == 3", `{"a": {"1": 2}}`, `{"x": 1}`, "a value of another type names a part of the data"},
	{"number of the data for text in a condition", "package p\ndefault main := 0\nmain := 1 if data.a[data.b]\nmain := 2 if input.x == 3", `{"a": {"1": 2}, "b": 1}`, `{"x": 1}`, "a value of another type names a part of the data"},
	{"number for text in a comparison", "package p\ndefault main := 0\nmain := 1 if data.a[input.x] == 2\nmain := 2 if input.x == 3", `{"a": {"1": 2}}`, `{"x": 1}`, "1"},
	{"forms of a number for an item", "package p\nmain := [x | some k in [\"1.0\", 1.0, \"01\", \"+1\", \"1e0\", 1e0, 10e-1]; x := [k, data.a[k]]]", `{"a": [1, 2]}`, `{}`, `[["1.0", 2], [1.0, 2], ["01", 2], ["+1", 2]]`},
	{"text for number", "package p\nmain := [data.a[input.x]]", `{"a": [1, 2]}`, `{"x": "1"}`, "[2]"},
	{"merge", "package p\nmain := data.a\n---\npackage a.b\nq := 1", `{"a": {"b": {"q": 2, "r": {"z": 1}}, "c": 1}}`, `{}`, `{"b": {"q": 2, "r": {"z": 1}}, "c": 1}`},
	{"merge2", "package p\nmain := data.a.b\n---\npackage a.b.c\nq := 1", `{"a": {"b": {"c": 2}}}`, `{}`, `{"c": 2}`},
	{"data array key", "package p\nmain := data.a[i] if i := input.x", `{"a": [1, 2]}`, `{"x": 1}`, "2"},
	{"with array", "package p\nmain := x if x := input with input.a.b as 1", ``, `{"a": [1]}`, `{"a": {"b": 1}}`},
	{"with data array", "package p\nmain := x if x := data.a with data.a.b as 1", `{"a": [1]}`, `{"a": [1]}`, `{"b": 1}`},
	{"with scalar", "package p\nmain := x if x := input with input.a.b.c as 1", ``, `7`, `{"a": {"b": {"c": 1}}}`},
	{"with two", "package p\nmain := [input, x] if x := [input, q] with input.a as 1 with input.a.b as 2\nq := input.a", ``, `{}`, `[{}, [{"a": {"b": 2}}, {"b": 2}]]`},
	{"bool arg", "package p\nmain := f(true)\nf(x) := y if { y := [x, input.a] }", ``, `{"a": 3}`, "[true, 3]"},
	{"set member", "package p\nmain := {1, 2, input.a}[x] if x := input.a", ``, `{"a": 3}`, "3"},
	{"scan string", "package p\nmain := [x | some x in input.a]", ``, `{"a": "b"}`, "[]"},
	{"len string", "package p\nmain := 1 if { [_, _] = input.a }", ``, `{"a": "bc"}`, ""},
	{"conflict of another key", "package p\nmain := q[\"a\"]\nq[x] := y if { some x, y in {\"a\": 1, \"b\": 2} }\nq[x] := y if { some x, y in {\"b\": 3} }", ``, `{"a": "bc"}`, "eval_conflict_error: object keys must be unique"},
	{"else with", "package p\nmain := x if { x := input.b with input.b as 3; x == 4 } else := [input.b, q] if true\nq := input.b", ``, `{"b": 1}`, "[1, 1]"},
	{"not with", "package p\nmain := [input.b, q] if not q with input.b as false\nq := input.b", ``, `{"b": 1}`, "[1, 1]"},
	{"keys with the same hash", "package p\nmain[k] contains v if { some v in [1, 2]; some k in [\"x\", [\"x\"], {\"x\"}] }", "", `{}`, `{"x": {1, 2}, ["x"]: {1, 2}, {"x"}: {1, 2}}`},
	{"the first of equal values behind an index", "package p\nmain := [q, r]\nq := 1.0 if input.x\n" + strings.Repeat("q := 1 if input.y == \"a\"\n", 9) + "q := 2 if input.y == \"b\"\n" +
		strings.Repeat("r := 1.0 if input.y == \"a\"\n", 9) + "r := 1 if input.x\nr := 2 if input.y == \"b\"\n", "", `{"x": 1, "y": "a"}`, "[1.0, 1.0]"},
	{"the first of equal values", "package p\nmain := [q, r, f(2)]\nq := 1.0 if input.x\nq := 1 if input.y\nr := x if some x in [1, 1.0]\nf(x) := 1e0 if x == 2\nf(y) := 1 if y > 1", "", `{"x": 1, "y": 2}`, "[1.0, 1, 1e0]"},
	{"set with a number in its name", "package p\nmain := q\nq[1] contains 2 if false", "", `{}`, "refused"},
	{"data that a called rule reads", "package p\nmain := [q, x] if x := q with data.a as {\"b\": 2}\nq := data.a.b", `{"a": {"b": 1}}`, `{}`, "[1, 2]"},
	{"data below what a called rule reads", "package p\nmain := [q, x] if x := q with data.a.b as 2\nq := data.a", `{"a": {"b": 1, "c": 3}}`, `{}`, `[{"b": 1, "c": 3}, {"b": 2, "c": 3}]`},
	{"data that a called function reads", "package p\nmain := [f(1), x] if x := f(1) with data.a.b as 2\nf(y) := [y, z] if z := data.a.b", `{"a": {"b": 1}}`, `{}`, "[[1, 1], [1, 2]]"},
	{"undefined rule over data", "package p\nmain := data.a[input.x]\n---\npackage a\nq := 1 if input.z\nr := 2", `{"a": {"q": 7}}`, `{"x": "q"}`, ""},
	{"data beside rules", "package p\nmain := data.a[input.x]\n---\npackage a\nq := 1 if input.z\nr := 2", `{"a": {"s": 7}}`, `{"x": "s"}`, "7"},
	{"function called again", "package p\nmain := [f(input.a), f(input.b), f(input.a), f(input.a), x] if x := f(input.a) with input.z as 3\nf(x) := [x, input.z]", "", `{"a": 1, "b": 2, "z": 1}`, "[[1, 1], [2, 1], [1, 1], [1, 1], [1, 3]]"},
	{"function called again with others", "package p\nmain := [f(a, b) | some a in [input.a, input.b, input.a]; some b in [input.b, input.a]]\nf(x, y) := z if { z := x - y; z != 0 }", "", `{"a": 1, "b": 2}`, "[-1, 1, -1]"},
	{"locals of rules after else", "package p\nmain := [q, r]\nq := x if { y := input.a.b; x := y.c } else := x if { y := input.a.b; x := y } else := input.a\nr := x if { x := input.a.b.c } else := x if { x := input.a }", "", `{"a": {"b": {"d": 1}}}`, `[{"d": 1}, {"b": {"d": 1}}]`},
}

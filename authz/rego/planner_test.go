package rego

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// TestTraps_OfOPAsPlanner has policies for which OPA's planner, or a runtime of its plans, was wrong once. The number is that of the
// issue or the pull request of OPA.
func TestTraps_OfOPAsPlanner(t *testing.T) {
	for _, c := range planned {
		t.Run(c.name, c.run)
	}
}

var planned = []trap{
	{"2601, replaced data in a loop over packages", "package p\nmain := [x, y] if { x := sort([y | y := data.bar[_]]) with data.bar.p as 3 with data.bar.q as 4; y := data.bar.p }\n---\npackage bar\np := 1\nq := 2", "", `{}`, "[[3, 4], 1]"},
	{"2601, replaced input in a loop over rules", "package p\nmain := sort([[k, v] | some k; v := data.bar[k] with input.x as 5])\n---\npackage bar\np := input.x\nq := [input.x, input.y]", "", `{"x": 1, "y": 2}`, `[["p", 5], ["q", [5, 2]]]`},
	{"2863, rules after else in order", "package p\nmain := x if { x := data.a[input.k].q; x > 5 } else := [2] if { some v; data.a[v].q == 1 } else := 3\n---\npackage a.b\nq := 1", `{"a": {"c": {"q": 2}}}`, `{"k": "c"}`, "[2]"},
	{"2922, replaced data below what is not there", "package p\nmain contains x if data.a.b[x] with data.a.b as {\"c\": 1, \"d\": 2}", "", `{}`, `{"c", "d"}`},
	{"2922, replaced data that has no such part", "package p\nmain if data.a.b.c with data.a.b as 1", "", `{}`, ""},
	{"2922, replaced data that a set reads", "package p\nmain := [v, w] if { v := data.ex.v with data.a.b as {\"c\": 1, \"d\": 2, \"e\": 1}; w := data.ex.v }\n---\npackage ex\nv contains x if data.a.b[x] == 1", "", `{}`, `[{"c", "e"}, set()]`},
	{"2922, replaced data below a number", "package p\nmain := [x, data.a] if x := data.a with data.a.b.c as 2", `{"a": 7}`, `{}`, `[{"b": {"c": 2}}, 7]`},
	{"2926, base data and rules at one place", "package p\nmain := data.a\n---\npackage a.b\nq := 1\nr := 2 if input.x", `{"a": {"b": {"q": {"z": 3}, "s": 4}}}`, `{"x": 1}`, `{"b": {"q": {"z": 3}, "r": 2, "s": 4}}`},
	{"3010, the last replacement counts", "package p\nmain := x if x := [input, q] with input.x as {\"y\": 1} with input.x.y as 2 with input.x as 3\nq := input.x", "", `{}`, `[{"x": 3}, 3]`},
	{"3031, conflict of rules after else", "package p\nmain := 1 if { false } else := 2\nmain := 3 if { false } else := 4", "", `{}`, "eval_conflict_error: rule data.p.main produced conflicting values"},
	{"3031, same value after else", "package p\nmain := 1 if { false } else := 2\nmain := 3 if { false } else := 2", "", `{}`, "2"},
	{"3031, conflict with a rule before else", "package p\nmain := 1 if { input.x } else := 2\nmain := 3 if { input.y } else := 1", "", `{"x": 1, "y": 1}`, "eval_conflict_error: rule data.p.main produced conflicting values"},
	{"3031, conflict of functions after else", "package p\nmain := f(1)\nf(x) := 1 if { x == 2 } else := 2\nf(x) := 3 if { x == 2 } else := x", "", `{}`, "eval_conflict_error: function data.p.f produced conflicting values for the same inputs"},
	{"3065, loops over packages and rules", "package p\nmain := {[x, y, z] | z := data.a[x][y]}\n---\npackage a.b\nq := 1\nr := 2\n---\npackage a.c\nq := 3", `{"a": {"d": {"s": 4}}}`, `{}`, `{["b", "q", 1], ["b", "r", 2], ["c", "q", 3], ["d", "s", 4]}`},
	{"3279, negated base data with a variable", "package p\nmain if { k := input.x; not data.a[k] }", `{"a": {"q": 8}}`, `{"x": "q"}`, ""},
	{"3305, negated base data beside rules", "package p\nmain if { k := \"q\"; not data.bar[k] }\n---\npackage bar\np := 7", `{"bar": {"q": 8}}`, `{}`, ""},
	{"3305, negated base data beside rules, absent", "package p\nmain if { k := \"r\"; not data.bar[k] }\n---\npackage bar\np := 7", `{"bar": {"q": 8}}`, `{}`, "true"},
	{"3325, variables of two comprehensions", "package p\nmain := [ys, zs] if { xs := numbers.range(1, 3); ys := {x | xs[x]}; zs := {x | xs[x]} }", "", `{}`, "[{0, 1, 2}, {0, 1, 2}]"},
	{"3325, variable of a comprehension and a loop", "package p\nmain := [ys, x] if { ys := {x | input.l[x]}; input.m[x] == 5 }", "", `{"l": [1, 2], "m": {"k": 5}}`, `[set(), "k"]`},
	{"5264, number for text in base data", "package p\nmain if { i := 1; data.stuff[i] }", `{"stuff": {"1": {}}}`, `{}`, "a value of another type names a part of the data"},
	{"5829, dispatch within a comprehension", "package p\nmain := x if { b := input; x := {y | y := data.a[b][_]} }\n---\npackage a\nb := {\"foo\", \"bar\"}\nc := {\"x\", \"y\"}", "", `"b"`, `{"bar", "foo"}`},
	{"5839, rules that overlap in part", "package p\nmain := data.a.b[c] if c := input.c\n---\npackage a\nb[c] := \"C\" if c := \"c\"\nb[\"d\"] := \"D\"", "", `{"c": "d"}`, `"D"`},
	{"5839, rules of several lengths", "package p\nmain := a[input.b][input.c].allow\na.b.c.allow := true\na.x.d.allow := true\na.y[x] := \"E\" if x := \"x\"", "", `{"b": "x", "c": "d"}`, "true"},
	{"5839, a shorter rule", "package p\nmain := a[input.b][input.c]\na.b.c := true\na.x.d := 3\na.y := \"E\"", "", `{"b": "x", "c": "d"}`, "3"},
	{"5964, a rule that is no part of the path", "package p\nmain := a[input.b][input.c]\na.b[c] := \"x\" if c := \"c\"\na.d := \"y\"", "", `{"b": "b", "c": "c"}`, `"x"`},
	{"6304, input replaced within a text", "package p\nmain := x if x := input.foo with input.foo as input", "", `123`, "123"},
	{"7399, rules of other packages", "package p\nmain := data[first].allow.see.something_else if first := input.x\n---\npackage primary\nallow[action].something if action := \"show\"\nallow.see.something_else if true\n---\npackage unrelated\nallow.other.stuff if true", "", `{"x": "primary"}`, "true"},
	{"7399, rules of mixed length", "package p\nmain := a[input.r][input.a][input.b]\na.allow[x][y] if { x := \"list\"; y := \"fruit\" }\na.unrelated.eat.veggies if true", "", `{"r": "unrelated", "a": "eat", "b": "veggies"}`, "true"},
	{"locals with one number in two rules", "package p\nmain := [q, r, s]\nq := [x, y] if { x := input.a; y := [x, 1] }\nr := [x, y] if { x := {\"k\": input.b}; y := x.k }\ns contains x if { x := [1]; x != input.a }\ns contains x if { some y in input.b; x := [y, y] }", "", `{"a": [1], "b": {"z": 7}}`, `[[[1], [[1], 1]], [{"k": {"z": 7}}, {"z": 7}], {[7, 7]}]`},
	{"arguments of nested calls", "package p\nmain := f(f(input.a, g(input.b)), f(g(input.b), g(g(input.a))))\nf(x, y) := [x, y]\ng(x) := {x: z} if z := f(x, x)", "", `{"a": 1, "b": 2}`, `[[1, {2: [2, 2]}], [{2: [2, 2]}, {{1: [1, 1]}: [{1: [1, 1]}, {1: [1, 1]}]}]]`},
	{"array that grows after it was read", "package p\nmain := [[x, y] | some x in input.a; y := [z | some z in input.a; z != x]]", "", `{"a": [1, 2]}`, `[[1, [2]], [2, [1]]]`},
	{"replaced data that a function reads", "package p\nmain := [f(\"k\"), x, f(\"k\")] if x := f(\"k\") with data.a as {\"k\": 2}\nf(k) := data.a[k]", `{"a": {"k": 1}}`, `{}`, "[1, 2, 1]"},
	{"replaced data that a loop reads", "package p\nmain := [q, x] if x := q with data.a as [3]\nq := [y | some y in data.a; y > 1]", `{"a": [1, 2]}`, `{}`, "[[2], [3]]"},
	{"replaced data of a rule's condition", "package p\nmain := [q, x] if x := q with data.a as \"x\"\nq := 1 if data.a == \"y\"\nq := 2 if data.a == \"x\"", `{"a": "y"}`, `{}`, "[1, 2]"},
}

// TestPlan_Twice plans at once and again: OPA's registry panics if a name is registered twice.
func TestPlan_Twice(t *testing.T) {
	plan := func(n int) error {
		c, err := ast.CompileModulesWithOpt(map[string]string{"p.rego": fmt.Sprintf("package p\nmain := %d", n)}, ast.CompileOpts{})
		if err != nil {
			return err
		}
		p, err := Plan(context.Background(), c, rego.ParsedQuery(ast.MustParseBody("data.p.main = x")))
		if err != nil {
			return err
		}
		program, err := Compile(p, Options{})
		if err != nil {
			return err
		}
		r, err := program.Eval(context.Background(), &Call{})
		if want := fmt.Sprintf(`[{"x": %d}]`, n); fmt.Sprint(r.Values) != want {
			return fmt.Errorf("%v, %v, want %s", r.Values, err, want)
		}
		return nil
	}
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			for range 2 {
				if err := plan(n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// TestEval_SharesConstants has rules that add to a collection, and return one, that all evaluations share. Run it with the race
// detector.
func TestEval_SharesConstants(t *testing.T) {
	const module = `package p
main := {"empty": empty, "set": set, "object": table, "deep": deep, "kept": kept, "given": f([1, 2]), "data": data.d, "with": changed}
empty contains x if { some x in input.none }
set contains x if { some x in {1, 2} }
set contains input.n
table[k] := v if { some k, v in {"a": 1} }
table["n"] := input.n
deep.a[k] contains input.n if { some k in ["x", "y"] }
kept := [x | x := {"k": [1, {2}]}; input.n > 0]
f(x) := [x, array.concat(x, [input.n]), object.union({"a": x}, {"b": input.n}), {3} | {input.n}]
changed := [x, input.n] if { x := data.d with data.d.z as 7 with data.d.list as [] }
`
	data := ast.MustParseTerm(`{"d": {"z": {"a": 1}, "list": [1, 2]}}`).Value
	for mode, o := range modes {
		p, before := mustCompile(t, module, data, o), data.String()
		eval := func(n int) string {
			r, err := p.Eval(context.Background(), &Call{Input: ast.NewObject([2]*ast.Term{ast.StringTerm("n"), ast.InternedTerm(n)})})
			return fmt.Sprint(r.Values, err)
		}
		want := []string{eval(5), eval(6), eval(7)}
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() {
				for i := range 100 {
					if got := eval(5 + i%3); got != want[i%3] {
						t.Errorf("%s, input %d: %s, want %s", mode, 5+i%3, got, want[i%3])
						return
					}
				}
			})
		}
		group.Wait()
		if data.String() != before || emptySet.Value.(ast.Set).Len() > 0 {
			t.Errorf("%s: the data has become %v, and the empty set %v", mode, data, emptySet)
		}
	}
}

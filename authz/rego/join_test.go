package rego

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestJoin_Loops compares both evaluators where a table may leave out a member for which a condition holds.
func TestJoin_Loops(t *testing.T) {
	const data = `{
		"list": [
			{"id": "a", "n": 1, "o": {"p": "q"}}, {"id": "b", "n": 2}, {"id": "a", "n": 1.0}, {"n": "1"}, "a", ["a", "b"],
			{"id": null}, {"id": true}, {"id": "c"}, {"id": "d"}
		],
		"same": [
			{"id": "a", "n": 1, "t": ["x"]}, {"id": "b", "n": 2, "t": ["y"]}, {"id": "a", "n": 3, "t": []}, {"id": "d", "n": 4},
			{"id": "e", "n": 5}, {"id": "f", "n": 6}, {"id": "g", "n": 7}, {"id": "h", "n": 8}, {"id": "i", "n": 9}, {"id": "j", "n": "j"}
		],
		"map": {
			"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 1}, "d": {}, "e": {"n": "1"}, "f": {"n": 4}, "g": {"n": 5}, "h": {"n": 6}, "1": {"n": 7}
		},
		"rows": [["a", 1], ["b", 2], ["a", 3], ["c", 4], ["d", 5], ["e", 6], ["f", 7], ["g", 8], {"0": "a"}],
		"words": ["a", "b", "c", "d", "e", "f", "g", "h", "i", "a"],
		"mixed": ["a", 1, 1.0, true, null, ["a"], {"id": "a"}, "1", "b", "c"]
	}`
	inputs := []string{
		`{}`, `{"x": "a"}`, `{"x": "b", "n": 2}`, `{"x": 1, "n": 1}`, `{"x": 1.0, "n": 1.0}`, `{"x": "1"}`, `{"x": true}`, `{"x": null}`,
		`{"x": ["a"]}`, `{"x": {"id": "a"}}`,
		`{
			"x": "a", "users": ["a", "b", "a", "z", 1],
			"list": [{"id": "a"}, {"id": "b"}, {"id": 1}, {"id": "a"}, {}, {"id": "c"}, {"id": "d"}, {"id": "e"}, {"id": "f"}]
		}`,
		`{"x": "z", "list": {"a": {"id": "z"}, "b": {"id": "z"}}, "users": [{"name": "a"}, {"name": "b"}, {}]}`,
		`{"x": "a", "list": "text", "users": {"a", "b"}}`,
	}
	for name, rules := range map[string]string{
		"a field":              `main := [m | some m in data.same; m.id == input.x]`,
		"a field of few":       `main := [m | some m in data.list; m.id == input.x]`,
		"reversed":             `main := [m | some m in data.same; input.x == m.id]`,
		"index":                `main := [i | some i, m in data.same; m.id == input.x]`,
		"by reference":         `main := [i | data.same[i].id == input.x]`,
		"number":               `main := [i | data.same[i].n == input.n]`,
		"mixed":                `main := [i | data.mixed[i] == input.x]`,
		"words":                `main := [i | some i, w in data.words; w == input.x]`,
		"object":               `main := {k | some k, v in data.map; v.n == input.n}`,
		"key":                  `main := {v | some k, v in data.map; k == input.x}`,
		"index as key":         `main := {v | some i, v in data.words; i == input.x}`,
		"array of arrays":      `main := [r | some r in data.rows; r[0] == input.x]`,
		"text for an index":    `main := [r | r := data.rows[_]; r["0"] == input.x]`,
		"data by number":       `main := [data.rows[i][1] | data.rows[i][0] == input.x]`,
		"two":                  `main := [m | some m in data.same; m.id == input.x; m.n == input.n]`,
		"constant":             `main := [m | some m in data.same; m.id == "a"; m.n == input.n]`,
		"deep text for index":  `main := [i | data.rows[i]["0"] == input.x]`,
		"two members":          `main := [m | some m in data.same; m.id == m.n]`,
		"not":                  `main := [m | some m in data.same; not m.id == input.x]`,
		"after a loop":         `main := [t | some m in data.same; some t in m.t; m.id == input.x]`,
		"after a failure":      `main := [m | some m in data.list; to_number(m.id) > 0; m.id == input.x]`,
		"after a comparison":   `main := [m | some m in data.same; m.n != 3; m.id == input.x]`,
		"after a call":         `main := [m | some m in data.same; count(m.t) > 0; m.id == input.x]`,
		"value of a rule":      `main := [m | some m in data.same; m.id == r]` + "\nr := input.x",
		"failing rule":         `main := [m | some m in data.same; m.id == r]` + "\nr := to_number(input.x)",
		"rule with conflict":   `main := [m | some m in data.same; m.id == r]` + "\nr := input.x\nr := \"b\" if input.n",
		"unused rule":          `main := [m | some m in input.list; m.id == r]` + "\nr := to_number(input.x)",
		"argument":             `main := [f(x) | some x in ["a", "b", input.x, 1]]` + "\nf(x) := [m | some m in data.same; m.id == x]",
		"part of an argument":  `main := [f(x) | some x in input.users]` + "\nf(x) := [m.n | some m in data.same; m.id == x.name]",
		"join with data":       `main := {u: ms | some u in input.users; ms := [m.n | some m in data.same; m.id == u]}`,
		"join within input":    `main := [[u, ms] | some u in input.users; ms := [i | some i, m in input.list; m.id == u]]`,
		"join of three":        `main := [[u, m.n, w] | some u in input.users; some m in data.same; m.id == u; some w in data.words; w == m.id]`,
		"join with itself":     `main := [[a, b] | some a in data.same; some b in data.same; a.id == b.id; a.n != b.n]`,
		"other lists":          `main := [[i, j] | some i, a in [input.list, data.same, input.list, data.list]; some j, m in a; m.id == input.x]`,
		"assigned in the body": `main := [m | some m in data.same; x := m.n; y := x; y == input.n]`,
		"a set":                `main := [m | some m in {x | some x in data.words}; m == input.x]`,
		"first wins":           `main if { some m in data.same; m.id == input.x }`,
		"every":                `main if every m in data.same { m.id != input.x }`,
		"every equal":          `main if every m in data.same { m.id == input.x }`,
		"another member":       `main := [m | some m in data.same; x := m.n; m.id == x]`,
		"negated":              `main if { some n in [1, 2]; not r(n) }` + "\nr(n) if { some m in data.same; m.id == input.x; m.n == n }",
		"replaced input":       `main := [r, x] if x := r with input.x as "b"` + "\nr := [m | some m in data.same; m.id == input.x]",
		"replaced data":        `main := [r, x] if x := r with data.same as data.list` + "\nr := [m | some m in data.same; m.id == input.x]",
		"replaced part":        `main := [r, x] if x := r with data.same as {"9": {"id": "a"}}` + "\nr := [i | data.same[i].id == input.x]",
		"with in the body":     `main := [x | some m in data.same; x := r with input.x as m.id; m.id == "a"]` + "\nr := input.x",
		"partial rule":         `main contains m.n if { some m in data.same; m.id == input.x }`,
		"partial object":       `main[m.n] := m if { some m in data.same; m.id == input.x }`,
		"walk":                 `main := [p | walk(data.same, [p, v]); v == input.x]`,
		"undefined collection": `main := [m | some m in data.none; m.id == input.x]`,
		"rules and data":       `main := [i | data.p.q[i].id == input.x]` + "\nq := data.same",
	} {
		t.Run(name, func(t *testing.T) {
			checkAgree(t, "package p\n"+rules, data, inputs)
		})
	}
}

// TestJoin_FewSteps counts the steps of loops of which a table leaves out nearly all.
func TestJoin_FewSteps(t *testing.T) {
	var list []string
	for i := range 1000 {
		list = append(list, fmt.Sprintf(`{"id": "%d", "n": %d}`, i, i))
	}
	all := "[" + strings.Join(list, ",") + "]"
	input := ast.MustParseTerm(`{"x": "7", "list": ` + all + `}`).Value
	data := ast.MustParseTerm(`{"list": ` + all + `}`).Value
	for name, c := range map[string]struct {
		rules string
		steps int // no more than
	}{
		"data":          {`main := [m | some m in data.list; m.id == input.x]`, 20},
		"by reference":  {`main := [i | data.list[i].id == input.x]`, 20},
		"rule":          {`main := [m | some m in data.list; m.id == r]` + "\nr := input.x", 20},
		"function":      {`main := [f(input.x), f("8"), f("9")]` + "\nf(x) := [m | some m in data.list; m.id == x]", 20},
		"data joined":   {`main := [ms | some u in input.list; ms := [m | some m in data.list; m.n == u.n]]`, 3000},
		"input joined":  {`main := [ms | some u in input.list; ms := [m | some m in input.list; m.id == u.id]]`, 5000},
		"by first part": {`main := [m | some m in data.list; m.n == 8; m.id == input.x]`, 20},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := newEvaluators(t.Context(), map[string]string{"p.rego": "package p\n" + c.rules}, data, map[string]Options{"all": {}})
			if err != nil {
				t.Fatal(err)
			}
			var n looks
			r, err := e.programs["all"].Eval(t.Context(), &Call{Input: input, Cancel: &n})
			if err != nil || len(r.Values) != 1 {
				t.Fatal(r, err)
			}
			if steps := int(n.n) * pollEvery; steps > c.steps {
				t.Errorf("about %d steps, want at most %d", steps, c.steps)
			}
		})
	}
}

// TestJoin_Slots checks that a loop does not read the parts of the input around the one that it compares: they would be built.
func TestJoin_Slots(t *testing.T) {
	for rule, want := range map[string]string{
		`q if { some m in data.list; m.id == input.a.b }`:                    "[[a b]]",
		`q if { some m in data.list; m.id == input.a.b[0] }`:                 "[[a b]]",
		`q if { some x in input.l; some m in data.list; m.id == x }`:         "[[l]]",
		`q if { some m in data.list; regex.match(m.id, input.a.b) }`:         "[[a b]]",
		`q if { some m in data.list; some x in input.l; x.id == input.a.b }`: "[[l] [a b]]",
	} {
		data := ast.MustParseTerm(`{"list": [{"id": "1"}, {"id": "2"}]}`).Value
		e, err := newEvaluators(t.Context(), map[string]string{"p.rego": "package p\nmain := q\n" + rule}, data, modes)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(e.programs["all"].Slots()); got != want {
			t.Errorf("%s: slots %s, want %s", rule, got, want)
		}
	}
}

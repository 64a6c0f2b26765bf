package rego

import "testing"

// TestWalk_AsOPA compares both evaluators where a loop may leave out a node.
func TestWalk_AsOPA(t *testing.T) {
	data := `{"tree": {"a": {"b": "leaf", "1": "x", "c": [{"id": 1}, {"id": 1.0}, [2, "leaf"], null]}, "1": "leaf", "s": "leaf", "leaf": "a"}}`
	inputs := []string{
		`{}`, `{"x": "a", "v": "leaf"}`, `{"x": "1", "v": "x"}`, `{"x": 1, "v": 1}`, `{"x": 1.0, "v": 1.0}`, `{"x": "c", "i": 2, "v": null}`, `{"x": ["a"], "v": ["a"]}`,
		`{"x": "s", "t": {"s": {"k", ["k"]}, "t": "k"}, "v": "k"}`, `{"x": "k", "t": [[["k"]]], "v": "k"}`, `{"t": "k", "v": "k"}`, `{"t": 7}`,
		`{"t": {1.0: "k", 2: "k"}, "v": "k"}`, `{"t": {1.0, "k"}, "v": "k"}`, `{"t": ["a", "k"], "v": "k"}`,
	}
	for name, rules := range map[string]string{
		"all":                    `main := [[p, v] | walk(data.tree, [p, v])]`,
		"all of the input":       `main := [[p, v] | walk(input.t, [p, v])]`,
		"pairs":                  `main := [x | walk(input.t, x)]`,
		"values":                 `main := [v | walk(data.tree, [_, v])]`,
		"paths":                  `main := [p | walk(data.tree, [p, _])]`,
		"one value":              `main := [p | walk(data.tree, [p, "leaf"])]`,
		"value from the input":   `main := [p | walk(data.tree, [p, v]); v == input.v]`,
		"value in the input":     `main := [p | walk(input.t, [p, input.v])]`,
		"a path":                 `main := [v | walk(data.tree, [["a", "b"], v])]`,
		"a path with a variable": `main := [[x, v] | walk(data.tree, [["a", x], v])]`,
		"a gap":                  `main := [[x, v] | walk(data.tree, [["a", x, 0, "id"], v])]`,
		"path from the input":    `main := [v | walk(data.tree, [[input.x, "b"], v])]`,
		"part of a path":         `main := [v | walk(data.tree, [p, v]); p[0] == input.x; p[1] == "c"]`,
		"last of a path":         `main := [v | walk(data.tree, [p, v]); p[count(p) - 1] == input.x]`,
		"second of a path":       `main := [[p, v] | walk(data.tree, [p, v]); p[1] == input.x]`,
		"item":                   `main := [v | walk(data.tree, [["a", "c", input.i], v])]`,
		"item, other number":     `main := [v | walk(data.tree, [["a", "c", 2.0], v])]`,
		"text for an item":       `main := [v | walk(data.tree, [["a", "c", "2"], v])]`,
		"negative position":      `main := [v | i := -1; walk(data.tree, [p, v]); p[i] == "a"]`,
		"position that is text":  `main := [v | walk(data.tree, [p, v]); p[data.tree.s] == "a"]`,
		"number of a member":     `main := [[p, v] | walk(input.t, [p, v]); p[0] == 1]`,
		"of a rule":              `main := [v | walk(data.tree, [[r, "b"], v])]` + "\nr := input.x",
		"of a failing rule":      `main := [v | walk(data.tree, [[r, "b"], v])]` + "\nr := to_number(input.x)",
		"both":                   `main if walk(data.tree, [["a", "b"], "leaf"])`,
		"first":                  `main if { walk(data.tree, [_, v]); v == input.v }`,
		"negated":                `main if not walk(data.tree, [[input.x, "b"], "leaf"])`,
		"nested":                 `main := [[p, q] | walk(data.tree, [p, v]); walk(v, [q, input.v])]`,
		"in a set":               `main := {p | walk(input.t, [p, v]); is_string(v)}`,
		"undefined":              `main := [p | walk(input.none, [p, v])]`,
		"replaced input":         `main := [r, x] if x := r with input.x as "s"` + "\nr := [v | walk(data.tree, [[input.x], v])]",
		"every":                  `main if every p in [x | walk(data.tree, [x, _])] { count(p) < 5 }`,
		"in a function":          `main := [f(x) | some x in [input.t, data.tree, input.x]]` + "\nf(x) := [p | walk(x, [p, y]); y == input.v]",
	} {
		t.Run(name, func(t *testing.T) {
			checkAgree(t, "package p\n"+rules, data, inputs)
		})
	}
}

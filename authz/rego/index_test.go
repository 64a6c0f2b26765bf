package rego

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// indexedRules are rules that an index finds, each for 20 numbers N.
var indexedRules = map[string]string{
	// equality
	"text":                        `q contains N if input.x == "N"`,
	"text on the left":            `q contains N if "N" == input.x`,
	"number":                      `q contains N if input.x == N`,
	"deep":                        `q contains N if input.x.y == "N"`,
	"in an array of the input":    `q contains N if input.x[0] == "N"`,
	"deep in an array":            `q contains N if input.x[0].y == "N"`,
	"after an array in the input": `q contains N if { input.x[0].z == "a"; input.x[0].y == "N" }`,
	"pattern of an array":         `q contains [N, y] if { input.x = ["N", y] }`,
	"nested pattern":              `q contains [N, y] if { input.x = [["N"], {"y": y}] }`,
	"item":                        `q contains N if input.l[0] == "N"`,
	"array":                       `q contains N if ["N", y] = input.l`,
	"scalars": `q contains N if input.x == "N"
		q contains 30 if input.x == null
		q contains 31 if input.x == true
		q contains 32 if input.x == [3]
		q contains 33 if input.x == 3`,
	"in a set":    `q contains N if input.x in {"N", "3N", N}`,
	"in an array": `q contains N if input.x in ["N", "N", true]`,
	"constant from data": `q contains N if input.x == data.k.kN
		q contains 60 if input.x == data.k.kz`,

	// beginnings and ends
	"begins": `q contains N if startswith(input.x, "/N")
		q contains 20 if startswith(input.x, "")`,
	"begins, of two lengths": `q contains N if startswith(input.x, "/N/")
		q contains 20 if startswith(input.x, "/")`,
	"ends": `q contains N if endswith(input.x, "N")
		q contains 20 if endswith(input.x, input.y)`,
	"begins and ends": `q contains N if { startswith(input.x, "/"); endswith(input.x, "N"); not startswith(input.x, "/3") }`,
	"begins or equals": `q contains N if startswith(input.x, "/N")
		q contains 1N if input.x == "/N/v"`,
	"begins, argument": `f(x) := N if startswith(x, "/N/")
		q := [f(x) | some x in [input.x, input.y]]`,
	"begins, nested": `q contains N if startswith(input.x, "N")
		q contains 30 if startswith(input.x, "")`,
	"begins, same value":   `q if startswith(input.x, "N")`,
	"ends, of a member":    `q contains N if endswith(input.x[0], "N")`,
	"one of two":           `q contains N if strings.any_prefix_match(input.x, ["N", "aN"])`,
	"one of two that nest": `q contains N if strings.any_prefix_match(input.x, ["N", "Na", "N", "a"])`,
	"one of a set":         `q contains N if strings.any_prefix_match(input.x, {"N", "aN"})`,
	"one of none": `q contains N if strings.any_prefix_match(input.x, [])
		q contains 31 if strings.any_prefix_match(input.x, "3")`,
	"one of two ends": `q contains N if strings.any_suffix_match(input.x, ["N", "Na"])`,

	// globs
	"globs":            `q contains N if glob.match("/N/*", ["/"], input.x)`,
	"globs, segment":   `q contains N if glob.match("*/N/?", ["/"], input.x)`,
	"globs, end":       `q contains N if glob.match("**/v/N", ["/"], input.x)`,
	"globs, dots":      `q contains N if glob.match("*.N", [], input.x)`,
	"globs, literal":   `q contains N if glob.match("/N/v", ["/"], input.x)`,
	"globs, both ends": `q contains N if glob.match("/v1/N/**/aN", ["/"], input.x)`,
	"globs, escaped":   `q contains N if glob.match("/\\N/v", ["/"], input.x)`,

	// members
	"has":                    `q contains N if "N" in input.x`,
	"has number":             `q contains N if N in input.x`,
	"has, by underscore":     `q contains N if input.x[_] == "N"`,
	"has, by some":           `q contains [i, N] if { some i, v in input.x; v == "N" }`,
	"has, more conditions":   `q contains N if { input.x[_] == "N"; input.y[_] == "z" }`,
	"has, after a condition": `q contains N if { input.y == "z"; input.x[_] == "N" }`,
	"has and begins": `q contains N if { "N" in input.x; startswith(input.y, "z") }
		q contains 1N if startswith(input.y, "N")`,
	"has, value":  `q := N if "N" in input.x`,
	"has, object": `q["kN"] := N if "N" in input.x`,

	// several conditions
	"two":       `q contains N if { input.x == "N"; input.y == "z" }`,
	"few first": `q contains N if { input.y == "z"; input.x == "N" }`,
	"another for some": `q contains N if input.x == "N"
		q contains 1N if input.y == "N"`,
	"the same twice": `q contains N if { input.x == "N"; input.x == "3" }`,
	"same key in many": `q contains N if input.x == "3"
		q contains 1N if input.x == "N"`,
	"without": `q contains N if input.x == "N"
		q contains 40
		q contains 41 if input.y`,
	"after a failure": `q contains N if { to_number(input.x) > 0; input.y == "N" }`,
	"loop after":      `q contains [N, i] if { input.x == "N"; some i in [1, 2, N] }`,

	// kinds of rules, and arguments
	"item of an argument": `f(x) := N if x[0] == "N"
		q := f(input.l)`,
	"array of an argument": `f(["v", x, "N"]) := N
		q := f(input.l)`,
	"value": `q := N if input.x == "N"`,
	"value, default": `q := N if input.x == "N"
		default q := -1`,
	"same value": `q if input.x == "N"
		q if input.y == "z"`,
	"conflict": `q := N if input.x in {"N", "3"}`,
	"object":   `q["kN"] := N if input.x == "N"`,
	"argument": `f("N", y) := N
		q := f(input.x, 1)`,
	"argument, in body": `f(x, y) := N if { x == "N"; y == 1 }
		q := f(input.x, 1)`,
	"part of an argument": `f(x) := N if x.y == "N"
		q := f(input.x)`,
	"argument, default": `f(x) := N if x == "N"
		default f(_) := 9
		q := f(input.x)`,
	"argument of many": `f(x) := N if x == "N"
		q := [f(i) | some i in ["1", 2, input.x, input.y]]`,
	"array as argument": `f([x, "N"]) := N
		q := f([1, input.x])`,
	"failure in the value": `q := to_number(input.y) if input.x == "N"
		q := 9 if input.x == "none"`,
	"array of the replaced input": `r contains N if input.x[0] == "N"
		q := [r, x] if x := r with input.x as ["4"]`,
	"else": `q := N if input.x == "N"
		q := 50 if input.y == "z" else := 51 if input.y == "3" else := 52`,
	"replaced input": `r contains N if input.x == "N"
		q := [r, x, y] if { x := r with input.x as "4"; y := r with input as {"x": "5"} }`,
}

// triedRules are rules that are tried one after the other.
var triedRules = map[string]string{
	// equality
	"other numbers": `q contains N if input.x == N.0
		q contains 7 if input.x == 1e20`,
	"in a mixed array": `q contains N if input.x in ["N", ["N"]]`,
	"in an object":     `q contains N if input.x in {"a": "N"}`,
	"not in":           `q contains N if not input.x in {"N", "3N"}`,
	"not":              `q contains N if not input.x == "N"`,
	"not equal":        `q contains N if input.x != "N"`,
	"value of a rule": `q contains N if r == "N"
		r := input.x`,

	// beginnings and ends
	"begins, negated": `q contains N if not startswith(input.x, "/N")`,
	"begins, data": `q contains N if startswith(input.x, data.k.kN)
		q contains 60 if startswith(input.x, data.k.kz)`,
	"begins, value": `q contains startswith(input.x, "N") if true`,

	// globs
	"globs, no delimiters":      `q contains N if glob.match("*N*", null, input.x)`,
	"globs, two delimiters":     `q contains N if glob.match("*/N/?", ["/", "."], input.x)`,
	"globs, alternatives":       `q contains N if glob.match("{/a,/N}/v", ["/"], input.x)`,
	"globs, not":                `q contains N if glob.match("[!N]/v", ["/"], input.x)`,
	"globs, invalid":            `q contains N if glob.match("/N/[", ["/"], input.x)`,
	"globs, any depth":          `q contains N if glob.match("**/N/*", ["/"], input.x)`,
	"globs, class":              `q contains N if glob.match("[!N]*", ["/"], input.x)`,
	"globs, class last":         `q contains N if glob.match("*[!N]", ["/"], input.x)`,
	"globs, braces last":        `q contains N if glob.match("*/{a,N}", ["/"], input.x)`,
	"globs, alternatives first": `q contains N if glob.match("/v1/{N,1N}/z*", null, input.x)`,

	// members
	"has no more than others": `q contains N if { input.x[_] != "N" }`,
	"has key":                 `q contains N if { some i, v in input.x; i == "N" }`,
	"has, not":                `q contains N if not "N" in input.x`,
	"has, every":              `q contains N if every v in input.x { v == "N" }`,

	// several conditions
	"after a loop": `q contains N if { some i in [1, 2, N]; input.x == "N" }`,

	// kinds of rules, and arguments
	"else of all": `q := N if input.x == "N" else := 3 if input.y == "3"`,
	"replaced data": `r contains N if input.x == data.k.kN
		q := [r, x] if x := r with data.k as {"k1": "3"}`,
}

// guardInputs are inputs for both, such as make some of the conditions hold, fail or undefined.
var guardInputs = []string{
	`{}`, `7`,
	`{"x": "3"}`, `{"x": 3}`, `{"x": 3.0}`, `{"x": 0.3e1}`, `{"x": true}`, `{"x": null}`, `{"x": ""}`, `{"x": 1e20}`, `{"x": 100000000000000000001}`,
	`{"y": "3"}`, `{"x": "3", "y": "3"}`, `{"x": "3", "y": "z"}`, `{"x": "none", "y": "3"}`, `{"x": 3, "y": 3}`, `{"x": "33", "y": "1"}`,

	// beginnings, ends and segments
	`{"x": "3a"}`, `{"x": "a3"}`, `{"x": "13a"}`, `{"x": "a13"}`, `{"x": "ab"}`, `{"x": "a"}`, `{"x": "a.3"}`, `{"x": "a.b.3"}`,
	`{"x": "/"}`, `{"x": "/3"}`, `{"x": "/3/"}`, `{"x": "/3/v"}`, `{"x": "/a/v"}`, `{"x": "/v/3"}`, `{"x": "/v/3/a"}`, `{"x": "/a/b/v/17"}`,
	`{"x": "a/3"}`, `{"x": "a/v"}`, `{"x": "a/3/b"}`, `{"x": "a/b/3"}`, `{"x": "ü/3/é", "y": "/3/"}`, `{"x": "/13/v/3", "y": "3"}`,
	`{"x": "/v1/3/z"}`, `{"x": "/v1/z/3"}`, `{"x": "/v1/13/z/a3"}`,

	// collections
	`{"x": [3]}`, `{"x": ["3"]}`, `{"x": ["3", 1]}`, `{"x": [3.0, "4"]}`, `{"x": ["3", "3", "13", 3]}`, `{"x": [true, null, "none"]}`,
	`{"x": [["3"], {"y": 2}]}`, `{"x": [["3"], {"a": "3"}, "5"]}`, `{"x": [{"y": "3", "z": "a"}]}`, `{"x": ["3"], "y": "z"}`,
	`{"x": ["4", "5", "x"], "y": ["3"]}`, `{"x": [` + strings.Repeat(`"3", "7", `, 100) + `"9"]}`,
	`{"x": {"0": "3"}}`, `{"x": {"y": "3"}}`, `{"x": {"3": "z"}}`, `{"x": {"a": "3", "b": "13", "3": 1}}`, `{"x": {"3", "z", true}}`,
	`{"l": []}`, `{"l": ["3"]}`, `{"l": ["3", 1]}`, `{"l": ["v", 1, "3"]}`, `{"l": {"0": "3"}}`, `{"l": {"3"}}`,
}

// TestIndex_Rules compares both evaluators where an index may leave out a rule that holds.
func TestIndex_Rules(t *testing.T) {
	for name, rules := range indexedRules {
		t.Run(name, func(t *testing.T) {
			if n := mostBlocks(t, rules); n >= rulesOfMany {
				t.Errorf("%d blocks, so the rules are tried", n)
			}
		})
	}
	for name, rules := range triedRules {
		t.Run(name, func(t *testing.T) {
			if n := mostBlocks(t, rules); n < rulesOfMany {
				t.Errorf("%d blocks, so the rules are behind an index", n)
			}
		})
	}
}

// mostBlocks compares the evaluators and returns how many blocks the largest function has. An index is one block.
func mostBlocks(t *testing.T, rules string) (n int) {
	const data = `{"k": {"k1": "1", "k2": "3", "k3": "3", "k4": 3, "k5": "5", "k6": "6", "k7": true, "k8": [3], "kz": "3"}}`
	e := checkAgree(t, many(rules)+"main := q", data, guardInputs)
	for _, f := range e.programs["all"].funcs {
		n = max(n, len(f.blocks))
	}
	return n
}

const rulesOfMany = 20

// many returns a module in which each line with an N stands once for each number.
func many(lines string) string {
	var text strings.Builder
	text.WriteString("package p\n")
	for line := range strings.Lines(lines + "\n") {
		n := 1
		if strings.Contains(line, "N") {
			n = rulesOfMany
		}
		for i := range n {
			text.WriteString(strings.ReplaceAll(line, "N", fmt.Sprint(i)))
		}
	}
	return text.String()
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

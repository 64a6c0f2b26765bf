package rego

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// generator writes policies. Its rules refer only to rules before them, so that none is recursive.
type generator struct {
	*rand.Rand
	rules     []string // references to rules that a body may name
	tables    []string // those of them that are objects
	functions []string // functions with one argument
	vars      []string // variables that are bound here
	fresh     int      // the number of variables so far
	trees     bool     // bodies may name packages by variables
}

func newGenerator(seed uint64) *generator { return &generator{Rand: rand.New(rand.NewPCG(seed, 15))} }

func (g *generator) pick(list ...string) string { return list[g.IntN(len(list))] }

// modules returns the modules of a policy, whose query is data.p.main.
func (g *generator) modules() map[string]string {
	out := map[string]string{"b.rego": g.module("a.b"), "c.rego": g.module("a.c"), "d.rego": g.module("a.c.d")}
	g.trees = true
	text := g.module("p")
	for i, r := range g.rules {
		text += fmt.Sprintf("main contains [%d, x] if x := %s\n", i, r)
	}
	text += "main contains [\"a\", x] if x := data.a\n"
	out["p.rego"] = text
	return out
}

func (g *generator) module(path string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "package %s\n\n", path)
	for i := range 1 + g.IntN(3) {
		if g.IntN(4) == 0 {
			name := fmt.Sprintf("f%d", i)
			g.function(&b, name)
			g.functions = append(g.functions, "data."+path+"."+name)
			continue
		}
		name := fmt.Sprintf("q%d", i)
		if g.rule(&b, name) >= 3 {
			g.tables = append(g.tables, "data."+path+"."+name)
		}
		g.rules = append(g.rules, "data."+path+"."+name)
	}
	return b.String()
}

// rule writes the rules of a name and returns their kind: complete, set or object.
func (g *generator) rule(b *strings.Builder, name string) int {
	kind := g.IntN(6)
	if kind == 0 && g.IntN(2) == 0 {
		fmt.Fprintf(b, "default %s := %s\n", name, g.constant())
	}
	value := ""
	if g.IntN(2) == 0 {
		value = g.scalar()
	}
	for range 1 + g.IntN(2) {
		g.vars = nil
		body := g.body(1+g.IntN(2), 1)
		switch v := value; kind {
		case 0, 1:
			if v == "" {
				v = g.term(1)
			}
			fmt.Fprintf(b, "%s := %s if %s", name, v, body)
			for g.IntN(3) == 0 {
				g.vars = nil
				body := g.body(1, 1)
				fmt.Fprintf(b, " else := %s if %s", g.term(1), body)
			}
		case 2:
			fmt.Fprintf(b, "%s contains %s if %s", name, g.term(1), body)
		case 3:
			fmt.Fprintf(b, "%s[%s] := %s if %s", name, g.headKey(), g.term(1), body)
		case 4:
			fmt.Fprintf(b, "%s[%s].%s := %s if %s", name, g.headKey(), g.field(), g.term(1), body)
		case 5:
			fmt.Fprintf(b, "%s.%s[%s] contains %s if %s", name, g.field(), g.headKey(), g.term(0), body)
		}
		b.WriteString("\n")
	}
	return kind
}

func (g *generator) function(b *strings.Builder, name string) {
	if g.IntN(4) == 0 {
		fmt.Fprintf(b, "default %s(_) := %s\n", name, g.scalar())
	}
	for range 1 + g.IntN(3) {
		g.vars = nil
		var arg string
		switch g.IntN(4) {
		case 0:
			arg = g.scalar()
		case 1:
			arg = "[" + g.bind() + ", " + g.bind() + "]"
		default:
			arg = g.bind()
		}
		body := g.body(1+g.IntN(2), 1)
		fmt.Fprintf(b, "%s(%s) := %s if %s\n", name, arg, g.term(1), body)
	}
}

// bind returns a new variable, which is bound from here on.
func (g *generator) bind() string {
	g.fresh++
	v := fmt.Sprintf("v%d", g.fresh)
	g.vars = append(g.vars, v)
	return v
}

// inner writes something in which more variables are bound.
func (g *generator) inner(write func() string) string {
	before := len(g.vars)
	out := write()
	g.vars = g.vars[:before:before]
	return out
}

func (g *generator) body(n, depth int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = g.literal(depth)
	}
	return "{ " + strings.Join(list, "; ") + " }"
}

func (g *generator) literal(depth int) string {
	switch g.IntN(16) {
	case 0, 1:
		t := g.term(depth)
		return g.bind() + " := " + t
	case 2:
		t := g.term(depth)
		v := g.bind()
		return "some " + v + " in " + t + "; " + v + " != 7" // a declared variable must be used
	case 3:
		t := g.collection()
		k, v := g.bind(), g.bind()
		return "some " + k + ", " + v + " in " + t + "; [" + k + ", " + v + "] != 7"
	case 4, 5:
		return g.term(depth) + g.pick(" == ", " != ", " < ", " >= ") + g.untyped()
	case 6:
		return "not " + g.pick(g.term(depth), g.term(0)+" == "+g.untyped(), g.reference())
	case 7:
		return "not " + g.reference() + g.with()
	case 8:
		return g.inner(func() string {
			t := g.collection()
			v := g.bind()
			return "every " + v + " in " + t + " { " + v + g.pick(" != ", " == ", " > ") + g.untyped() + "; " + g.literal(0) + " }"
		})
	case 9:
		t := g.term(0)
		return "walk(" + t + ", [" + g.bind() + ", " + g.bind() + "])"
	case 10:
		t := g.untyped()
		return "[" + g.bind() + ", " + g.bind() + "] = " + t
	case 11:
		t := g.untyped()
		return "{\"x\": " + g.bind() + "} = " + t
	case 12:
		t := g.pick(g.term(depth), g.rule1()) + g.with()
		return g.bind() + " := " + t
	case 13:
		r := g.pick(g.table(), "data.base."+g.field(), "input", "input."+g.field())
		g.fresh++
		k := fmt.Sprintf("v%d", g.fresh)
		g.vars = append(g.vars, k)
		return "some " + k + "; " + g.bind() + " = " + r + "[" + k + "]"
	case 14:
		return g.reference() + g.with()
	}
	return g.reference()
}

func (g *generator) with() string {
	switch g.IntN(10) {
	case 0:
		return " with input as " + g.constant()
	case 1, 2:
		return " with input." + g.field() + " as " + g.term(0)
	case 3, 8:
		return " with data.base." + g.field() + " as " + g.term(0)
	case 4:
		return " with " + g.rule1() + " as " + g.constant()
	case 5:
		return " with count as " + g.scalar()
	case 6:
		return " with time.now_ns as " + g.term(0)
	case 7:
		if len(g.functions) > 0 {
			return " with " + g.pick(g.functions...) + " as " + g.pick(append(g.functions, g.scalar())...)
		}
	}
	return " with input." + g.field() + " as " + g.constant() + " with input." + g.field() + "." + g.field() + " as " + g.term(0)
}

// untyped is a term of which OPA's type checker does not know the type.
func (g *generator) untyped() string {
	switch g.IntN(4) {
	case 0:
		return fmt.Sprintf("data.k.c%d", g.IntN(8))
	case 1:
		return "object.get({1: " + g.reference() + "}, 1, 0)"
	}
	return g.pick("input."+g.field(), "input."+g.field()+"."+g.field(), "data.base."+g.field(), "input["+g.key()+"]")
}

// table is a reference to a rule that has members.
func (g *generator) table() string {
	if len(g.tables) == 0 {
		return "data.base"
	}
	return g.pick(g.tables...)
}

// rule1 is a reference to a rule.
func (g *generator) rule1() string {
	if len(g.rules) == 0 {
		return "data.base"
	}
	return g.pick(g.rules...)
}

func (g *generator) variable() string {
	if len(g.vars) == 0 {
		return g.scalar()
	}
	return g.pick(g.vars...)
}

func (g *generator) field() string { return g.pick("x", "y", "z") }

// key is the name of a member.
func (g *generator) key() string {
	return g.pick(g.variable(), g.variable(), `"`+g.field()+`"`, "input."+g.field(), "input."+g.field(), "data.k.c0")
}

// headKey is the name of a member in the head of a rule. It is no array or set: OPA's evaluator loses members whose names have the same
// hash, as "x" and ["x"] have.
func (g *generator) headKey() string {
	return g.pick("\""+g.field()+"\"", "data.k.c0", "sprintf(\"%v\", ["+g.pick(g.variable(), "input."+g.field())+"])")
}

// reference is a reference to the input, to data, to rules or to a variable.
func (g *generator) reference() string {
	switch g.IntN(10) {
	case 0, 1:
		return "input." + g.field()
	case 2:
		return "input." + g.field() + "." + g.field()
	case 3:
		return "input[" + g.key() + "]"
	case 4:
		return "data.base." + g.field()
	case 5:
		return "data.base." + g.field() + "[" + g.key() + "]"
	case 6:
		if g.trees {
			return g.pick("data.a["+g.key()+"]", "data.a.c["+g.key()+"]", "data.a["+g.key()+"]."+g.pick("q0", "x"), "data.a["+g.key()+"]["+g.key()+"]",
				"data.a.c."+g.key1(), "data.a.b[\"q\"]", "data.a[input.x][input.y]", "data.base", "input")
		}
	case 7:
		return g.table() + "[" + g.key() + "]"
	case 8:
		if len(g.vars) > 0 {
			return g.pick(g.vars...)
		}
	}
	return g.rule1()
}

func (g *generator) key1() string { return g.pick("x", "d", "q0", "q1", "d.q0") }

func (g *generator) scalar() string {
	return g.pick("1", "2", "0", `"x"`, `"y"`, `"b"`, `"q0"`, "true", "false", "null", "1.5", `"1"`)
}

func (g *generator) constant() string {
	return g.pick(g.scalar(), "[]", "{}", `[1, "x"]`, `{"x": 1, "y": {"x": 2}}`, `{"x", 1}`, "set()", `{"x": {"y": "x"}}`, `[["x", 1], ["y", 2]]`)
}

// collection is a term that probably has members.
func (g *generator) collection() string {
	return g.pick(g.reference(), g.rule1(), "data.base."+g.field(), "input."+g.field(), g.comprehension(0), g.constant())
}

func (g *generator) comprehension(depth int) string {
	return g.inner(func() string {
		body := g.body(1+g.IntN(2), depth)
		body = strings.TrimSuffix(strings.TrimPrefix(body, "{ "), " }")
		switch g.IntN(3) {
		case 0:
			return "[" + g.variable() + " | " + body + "]"
		case 1:
			return "{" + g.variable() + " | " + body + "}"
		}
		return "{" + g.variable() + ": " + g.variable() + " | " + body + "}"
	})
}

// term is an expression that has a value.
func (g *generator) term(depth int) string {
	if depth <= 0 {
		return g.pick(g.constant(), g.reference(), g.reference(), g.variable())
	}
	switch g.IntN(12) {
	case 0:
		return g.comprehension(depth - 1)
	case 1:
		return g.call(depth - 1)
	case 2:
		if len(g.functions) > 0 {
			return g.pick(g.functions...) + "(" + g.pick(g.untyped(), "["+g.untyped()+", "+g.untyped()+"]") + ")"
		}
	case 3:
		return "[" + g.term(depth-1) + ", " + g.term(0) + "]"
	case 4:
		return "{\"x\": " + g.term(depth-1) + ", " + g.key() + ": " + g.term(0) + "}"
	case 5:
		return "{" + g.term(depth-1) + ", " + g.term(0) + "}"
	case 6:
		return g.constant()
	case 7, 8, 9:
		return g.variable()
	}
	return g.reference()
}

// call is the call of a builtin function, which may fail.
func (g *generator) call(depth int) string {
	r := g.untyped()
	switch g.IntN(14) {
	case 0:
		return "count(" + r + ")"
	case 1:
		return "to_number(" + r + ")"
	case 2:
		return "1 / " + r
	case 3:
		return r + " + " + g.pick("1", g.untyped())
	case 4:
		return "concat(\"-\", " + r + ")"
	case 5:
		return "object.get(" + r + ", " + g.key() + ", " + g.term(depth) + ")"
	case 6:
		return "upper(" + r + ")"
	case 7:
		return "startswith(" + r + ", " + g.pick(`"x"`, g.untyped()) + ")"
	case 8:
		return "time.now_ns()"
	case 9:
		return "rand.intn(" + r + ", 1)"
	case 10:
		return "sum(" + r + ")"
	case 11:
		return r + " - " + g.untyped()
	case 12:
		return "json.unmarshal(" + r + ")"
	}
	return "regex.match(" + r + ", \"x\")"
}

// data is base data.
func (g *generator) data() ast.Value {
	return ast.MustParseTerm(fmt.Sprintf(`{"k": {"c0": 1, "c1": "x", "c2": [], "c3": {}, "c4": [1, "x"], "c5": {"x": {"x": 2}}, "c6": false, "c7": "q0"}, "base": %s, "a": {"x": %s, "z": {"q0": %s}, "c": {"y": %s}}}`, g.object(3), g.value(2), g.value(0), g.value(1))).Value
}

// object is the text of a JSON object, and value that of a JSON value.
func (g *generator) object(depth int) string {
	var fields []string
	for _, k := range []string{"x", "y", "z", "1"} {
		if g.IntN(4) > 0 {
			fields = append(fields, fmt.Sprintf("%q: %s", k, g.value(depth-1)))
		}
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func (g *generator) value(depth int) string {
	switch {
	case depth > 0 && g.IntN(3) > 0:
		if g.IntN(2) == 0 {
			return g.object(depth)
		}
		items := make([]string, g.IntN(4))
		for i := range items {
			items[i] = g.value(depth - 1)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return g.scalar()
}

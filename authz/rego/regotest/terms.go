package regotest

import (
	"fmt"
	"strings"
)

func (g *generator) body(n, depth int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = g.literal(depth)
	}
	return "{ " + strings.Join(list, "; ") + " }"
}

// literal is an expression of a body.
func (g *generator) literal(depth int) string {
	switch g.IntN(19) {
	case 0, 1:
		t := g.term(depth)
		return g.bind() + " := " + t
	case 2:
		t := g.collection()
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
		t := g.pick(g.untyped(), g.anyRule(), g.variable())
		return "walk(" + t + ", [" + g.bind() + ", " + g.bind() + "])"
	case 10:
		t := g.untyped()
		return "[" + g.bind() + ", " + g.bind() + "] = " + t
	case 11:
		t := g.untyped()
		return "{\"x\": " + g.bind() + "} = " + t
	case 12:
		t := g.pick(g.term(depth), g.anyRule()) + g.with()
		return g.bind() + " := " + t
	case 13:
		r := g.pick(g.objectRule(), "data.base."+g.field(), g.root, g.at(g.field()))
		k := g.bind()
		return "some " + k + "; " + g.bind() + " = " + r + "[" + k + "]"
	case 14:
		return g.reference() + g.with()
	case 15, 16:
		return g.guard()
	case 17:
		t := g.joined()
		return g.bind() + " := " + t
	}
	return g.reference()
}

// with replaces one thing, or several.
func (g *generator) with() string {
	if g.one(6) {
		return g.replacement() + g.replacement()
	}
	return g.replacement()
}

func (g *generator) replacement() string {
	switch g.IntN(11) {
	case 0:
		return " with " + g.root + " as " + g.constant()
	case 1, 2:
		return " with " + g.at(g.field()) + " as " + g.pick(g.term(0), g.guardValue())
	case 3, 8:
		return " with data.base." + g.field() + " as " + g.noObject()
	case 4:
		return " with " + g.anyRule() + " as " + g.noObject()
	case 5:
		return " with count as " + g.scalar()
	case 6:
		return " with time.now_ns as " + g.term(0)
	case 7:
		if len(g.functions) > 0 {
			return " with " + g.pick(g.functions...) + " as " + g.pick(append(g.functions, g.scalar())...)
		}
	case 9:
		return " with data.groups as " + g.pick(g.constant(), g.untyped(), `[{"user": 1, "name": "x"}]`)
	}
	return " with " + g.at(g.field()) + " as " + g.constant() + " with " + g.at(g.field(), g.field()) + " as " + g.term(0)
}

// noObject is rarely an object, which programs refuse where a rule reads the whole.
func (g *generator) noObject() string {
	if g.one(8) {
		return g.term(0)
	}
	return g.pick(g.scalar(), "[]", `[1, "x"]`, `{"x", 1}`, "set()", `[["x", 1], ["y", 2]]`)
}

// at is a part of the input.
func (g *generator) at(names ...string) string { return g.root + "." + strings.Join(names, ".") }

// untyped is a term of which OPA's type checker does not know the type.
func (g *generator) untyped() string {
	switch g.IntN(4) {
	case 0:
		return fmt.Sprintf("data.k.c%d", g.IntN(8))
	case 1:
		return "object.get({1: " + g.reference() + "}, 1, 0)"
	}
	return g.pick(g.at(g.field()), g.at(g.field(), g.field()), "data.base."+g.field(), g.root+"["+g.key()+"]")
}

// objectRule is a reference to a rule that is an object.
func (g *generator) objectRule() string {
	if len(g.objects) == 0 {
		return "data.base"
	}
	return g.pick(g.objects...)
}

// setRule is a reference to a rule that is a set.
func (g *generator) setRule() string {
	if len(g.sets) == 0 {
		return "data.members"
	}
	return g.pick(g.sets...)
}

// anyRule is a reference to a rule.
func (g *generator) anyRule() string {
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
	return g.pick(g.variable(), g.variable(), `"`+g.field()+`"`, g.at(g.field()), g.at(g.field()), "data.k.c0")
}

// headKey is the name of a member in the head of a rule. It is no array or set: OPA's evaluator loses members whose names have the same
// hash, as "x" and ["x"] have.
func (g *generator) headKey() string {
	return g.pick("\""+g.field()+"\"", "data.k.c0", "sprintf(\"%v\", ["+g.pick(g.variable(), g.at(g.field()))+"])")
}

// reference is a reference to the input, to data, to rules or to a variable.
func (g *generator) reference() string {
	switch g.IntN(10) {
	case 0, 1:
		return g.at(g.field())
	case 2:
		return g.at(g.field(), g.field())
	case 3:
		return g.root + "[" + g.key() + "]"
	case 4:
		return "data.base." + g.field()
	case 5:
		return "data.base." + g.field() + "[" + g.key() + "]"
	case 6:
		if g.trees {
			return g.pick("data.a["+g.key()+"]", "data.a.c["+g.key()+"]", "data.a["+g.key()+"]."+g.pick("q0", "x"), "data.a["+g.key()+"]["+g.key()+"]",
				"data.a.c."+g.pick("x", "d", "q0", "q1", "d.q0"), "data.a.b[\"q\"]", "data.a["+g.at("x")+"]["+g.at("y")+"]", "data.base", g.root)
		}
	case 7:
		return g.pick(g.objectRule(), g.objectRule(), g.objectRule(), g.setRule()) + "[" + g.key() + "]"
	case 8:
		if len(g.vars) > 0 {
			return g.pick(g.vars...)
		}
	}
	return g.anyRule()
}

func (g *generator) scalar() string {
	return g.pick("1", "2", "0", `"x"`, `"y"`, `"b"`, `"q0"`, "true", "false", "null", "1.5", `"1"`, "1.0")
}

func (g *generator) constant() string { return g.pick(g.scalar(), g.composite()) }

// composite is a constant that is an array, an object or a set.
func (g *generator) composite() string {
	return g.pick("[]", "{}", `[1, "x"]`, `{"x": 1, "y": {"x": 2}}`, `{"x", 1}`, "set()", `{"x": {"y": "x"}}`, `[["x", 1], ["y", 2]]`)
}

// collection is a term that probably has members. It is no scalar, which OPA's planner refuses here.
func (g *generator) collection() string {
	return g.pick("data.base."+g.field(), g.at(g.field()), g.objectRule(), g.setRule(), g.comprehension(0), g.composite(), g.at("list"), "data.groups")
}

func (g *generator) comprehension(depth int) string {
	return g.inner(func() string {
		body := g.body(1+g.IntN(2), depth)
		body = strings.TrimSuffix(strings.TrimPrefix(body, "{ "), " }")
		switch g.IntN(4) {
		case 0:
			return "[" + g.variable() + " | " + body + "]"
		case 1:
			return "{" + g.variable() + " | " + body + "}"
		case 2:
			inside := g.inner(func() string { return "{" + g.variable() + " | " + g.literal(0) + "}" })
			return "[" + inside + " | " + body + "]"
		}
		return "{" + g.variable() + ": " + g.variable() + " | " + body + "}"
	})
}

// term is an expression that has a value.
func (g *generator) term(depth int) string {
	if depth <= 0 {
		return g.pick(g.constant(), g.reference(), g.reference(), g.variable())
	}
	switch g.IntN(13) {
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
	case 10:
		return `$"` + g.field() + "{" + g.untyped() + `}"`
	}
	return g.reference()
}

// call is the call of a builtin function, which may fail.
func (g *generator) call(depth int) string {
	r := g.untyped()
	switch g.IntN(16) {
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
		return g.pick("upper", "lower", "trim_space", "object.keys") + "(" + r + ")"
	case 7:
		return g.pick("startswith(", "endswith(", "contains(", "trim_prefix(") + r + ", " + g.pick(`"x"`, g.untyped()) + ")"
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
	case 13:
		return "split(" + r + ", \"x\")"
	case 14:
		return g.pick("glob.match("+g.pattern("glob")+", [], "+r+")", "regex.replace("+r+", "+g.pattern("regex")+`, "-")`)
	}
	return "regex.match(" + g.pattern("regex") + ", " + r + ")"
}

// pattern is a constant pattern, or one that is known only later and may be wrong.
func (g *generator) pattern(kind string) string {
	if g.one(5) {
		return g.untyped()
	}
	if kind == "glob" {
		return g.pick(`"x*"`, `"*"`, `"{x,y}"`, `"q?"`, `"[x-z]"`, `""`)
	}
	return g.pick(`"^x"`, `"x"`, `"^[a-z]+$"`, `"^(x|y)$"`, `"("`, `""`)
}

package regotest

import (
	"fmt"
	"strings"
)

// join writes rules that look for members of a collection with a value that is known before.
func (g *generator) join(b *strings.Builder, name string) {
	for range 1 + g.IntN(2) {
		g.vars = nil
		var before string
		switch g.IntN(4) {
		case 0: // the value changes with every round of a loop around it
			before = "some " + g.bind() + " in " + g.pick(g.at("list"), g.at(g.field()), "data.groups") + "; "
		case 1:
			v := g.pick(g.at(g.field()), "data.base."+g.field())
			before = g.bind() + " := " + v + "; "
		}
		fmt.Fprintf(b, "%s contains [%s, x] if { %sx := %s%s }\n", name, g.variable(), before, g.joined(), g.pick("", "", g.with()))
	}
	if g.one(3) {
		g.vars = nil
		fmt.Fprintf(b, "%s contains x if { some x in %s; %s; %s }\n", name, g.scanned(), g.condition("x", ""), g.literal(0))
	}
}

// scanned is what a join looks through.
func (g *generator) scanned() string {
	return g.pick("data.groups", "data.groups", "data.named", "data.members", "data.none", "data.k.c1", "data.base."+g.field(),
		g.at("list"), g.at(g.field()), "object.get({1: "+g.anyRule()+"}, 1, 0)")
}

// joined is a comprehension over the members for which a condition holds.
func (g *generator) joined() string {
	return g.inner(func() string {
		from := g.scanned()
		v := g.bind()
		k, scan := v, "some "+v+" in "+from
		switch g.IntN(4) {
		case 0:
			scan = v + " := " + from + "[_]"
		case 1:
			k = g.bind()
			scan = "some " + k + "; " + v + " := " + from + "[" + k + "]"
		case 2:
			k = g.bind()
			scan = "some " + k + ", " + v + " in " + from
		}
		body := scan + "; " + g.condition(v, k)
		if g.one(3) {
			body += "; " + g.condition(v, k)
		}
		if g.one(5) {
			body += "; " + g.literal(0)
		}
		if k == v {
			return g.pick("["+v+" | "+body+"]", "{"+v+" | "+body+"}")
		}
		if g.one(2) {
			return "[[" + k + ", " + v + "] | " + body + "]"
		}
		return "{" + k + ": " + v + " | " + body + "}"
	})
}

// condition is a condition on a member of a collection and its key, which may be empty.
func (g *generator) condition(v, k string) string {
	field := v + "." + g.pick("user", "user", "user", "name", "id.x", "x", "missing")
	if g.one(8) {
		field = g.pick(v, v+"[0]", v+`["user"]`)
	}
	value := g.pick(g.at(g.field()), g.at(g.field()), g.at(g.field(), g.field()), g.variable(), g.guardValue(),
		"data.base."+g.field(), v+".name", "data.k.c1")
	if k != "" && g.one(4) {
		field = k
	}
	switch g.IntN(8) {
	case 0:
		return value + " == " + field
	case 1:
		return field + " = " + value
	case 2:
		return g.pick("not "+field+" == "+value, field+" != "+value, field+" in "+g.at("list"))
	}
	return field + " == " + value
}

// data is base data.
func (g *generator) data() string {
	const constants = `{"c0": 1, "c1": "x", "c2": [], "c3": {}, "c4": [1, "x"], "c5": {"x": {"x": 2}}, "c6": false, "c7": "q0"}`
	fields := []string{
		`"k": ` + constants,
		`"base": ` + g.object(3),
		`"a": ` + fmt.Sprintf(`{"x": %s, "z": {"q0": %s}, "c": {"y": %s}}`, g.value(2), g.value(0), g.value(1)), // beside the packages
		`"groups": [` + g.groups() + "]",
		`"named": ` + fmt.Sprintf(`{"x": %s, "1": %s, "y": %s}`, g.group(), g.group(), g.group()),
		`"members": ` + fmt.Sprintf(`[1, "x", "1", null, %s]`, g.group()),
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

func (g *generator) groups() string {
	list := make([]string, g.IntN(6))
	for i := range list {
		list[i] = g.group()
	}
	return strings.Join(list, ", ")
}

// group is a member of a collection: mostly an object with fields of all types, some of which are missing.
func (g *generator) group() string {
	if g.one(8) {
		return g.jsonValue()
	}
	var fields []string
	for _, name := range []string{"user", "name", "x"} {
		if !g.one(5) {
			fields = append(fields, fmt.Sprintf("%q: %s", name, g.jsonValue()))
		}
	}
	if g.one(3) {
		fields = append(fields, `"id": {"x": `+g.jsonValue()+"}")
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// jsonValue is a guardValue that is JSON.
func (g *generator) jsonValue() string {
	return g.pick("1", "1.0", `"1"`, "1e0", "100", "1e2", "0", "-0", `"x"`, `"y"`, `"q0"`, `""`, "true", "false", "null",
		`[1, "x"]`, `["w"]`, `{"x": 1}`, "[]", "{}")
}

// input is an input that makes some conditions hold.
func (g *generator) input() string {
	var fields []string
	for _, name := range []string{"x", "y", "z", "1"} {
		switch g.IntN(5) {
		case 0:
		case 1, 2:
			fields = append(fields, fmt.Sprintf("%q: %s", name, g.value(2)))
		default:
			fields = append(fields, fmt.Sprintf("%q: %s", name, g.jsonValue()))
		}
	}
	if !g.one(4) {
		fields = append(fields, `"list": `+g.pick("["+g.groups()+"]", `{"x": `+g.group()+`, "1": `+g.group()+"}", g.jsonValue()))
	}
	return "{" + strings.Join(fields, ", ") + "}"
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
	if depth > 0 && g.IntN(3) > 0 {
		if g.one(2) {
			return g.object(depth)
		}
		items := make([]string, g.IntN(4))
		for i := range items {
			items[i] = g.value(depth - 1)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return g.jsonValue()
}

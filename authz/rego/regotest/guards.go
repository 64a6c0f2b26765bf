package regotest

import (
	"fmt"
	"strings"
)

// guarded writes many rules of one name, each with conditions on the input or on data, as an index of rules expects them: also twice the
// same condition, several for one rule, after expressions that fail, negated, and on parts that do not exist.
//
// It returns the kind of the rules, as rule does.
func (g *generator) guarded(b *strings.Builder, name string) int {
	kind, value := g.IntN(5), g.pick("true", "1", `"x"`)
	if kind == 0 && g.one(2) {
		fmt.Fprintf(b, "default %s := %s\n", name, g.scalar())
	}
	own := g.pick(g.at(g.field()), g.at(g.field()), g.at(g.field(), g.field()), "data.base."+g.field()) // what most rules of the name look at
	for i := range 2 + g.IntN(5) {
		g.vars = nil
		body := g.guards(own)
		switch {
		case kind == 0: // one value, so the first rule that holds is enough
			fmt.Fprintf(b, "%s := %s if %s\n", name, value, body)
		case kind == 1: // different values, which conflict if two rules hold
			fmt.Fprintf(b, "%s := %d if %s", name, i, body)
			for g.one(3) {
				g.vars = nil
				fmt.Fprintf(b, " else := %s if %s", g.scalar(), g.guards(own))
			}
			b.WriteString("\n")
		case kind == 2:
			fmt.Fprintf(b, "%s contains %s if %s\n", name, g.pick(fmt.Sprint(i), g.at(g.field())), body)
		case kind == 3:
			fmt.Fprintf(b, "%s[\"%d\"] := %s if %s\n", name, i, g.term(0), body)
		default:
			g.byArgument(b, name, i)
		}
	}
	if kind == 4 {
		g.vars = nil
		fmt.Fprintf(b, "%s contains x if x := %s_f(%s, %s)\n", name, name, g.at(g.field()), g.untyped())
		fmt.Fprintf(b, "%s contains [x, y] if { some y in %s; x := %s_f(y, %s) }\n", name, g.collection(), name, g.untyped())
		return 2
	}
	return kind
}

// byArgument writes a function whose rules are chosen by constant arguments.
func (g *generator) byArgument(b *strings.Builder, name string, i int) {
	a, c := g.guardValue(), g.guardValue()
	switch g.IntN(5) {
	case 0:
		fmt.Fprintf(b, "%s_f(x, _) := %d if x == %s\n", name, i%2, a)
	case 1:
		fmt.Fprintf(b, "%s_f(%s, y) := %d if y == %s\n", name, a, i%2, c)
	case 2:
		fmt.Fprintf(b, "%s_f(x, y) := %d if { %s == x; x == y }\n", name, i%2, a)
	case 3:
		fmt.Fprintf(b, "%s_f(x, [y, %s]) := %d if { x == y }\n", name, a, i%2)
	default:
		fmt.Fprintf(b, "%s_f(%s, %s) := %d\n", name, a, c, i%2)
	}
}

// guards is the body of a guarded rule.
func (g *generator) guards(own string) string {
	var list []string
	if g.one(4) {
		list = append(list, g.literal(1))
	}
	if g.one(6) {
		call := g.call(0)
		list = append(list, g.bind()+" := "+call)
	}
	if !g.one(6) {
		list = append(list, g.guardOf(own))
	}
	for g.one(3) {
		list = append(list, g.guard())
	}
	if len(list) == 0 || g.one(4) {
		list = append(list, g.literal(0))
	}
	return "{ " + strings.Join(list, "; ") + " }"
}

// guard is a condition that an index may look up.
func (g *generator) guard() string {
	return g.guardOf(g.pick(g.at(g.field()), g.at(g.field()), g.at(g.field()), g.at(g.field(), g.field()), g.root+`["`+g.field()+`"]`,
		"data.base."+g.field(), g.untyped()))
}

func (g *generator) guardOf(r string) string {
	c := g.guardValue()
	switch g.IntN(20) {
	case 0, 1, 2, 3, 4:
		return r + " == " + c
	case 5:
		return c + " == " + r
	case 6:
		return r + " = " + c
	case 7, 8:
		return r + " in " + g.pick("{"+c+", "+g.guardValue()+"}", "["+c+", "+g.guardValue()+"]", "data.k.c4", g.at(g.field()))
	case 9:
		return "glob.match(" + g.pick(`"x*"`, `"{x,y}"`, `"q?"`) + ", " + g.pick("[]", `["/"]`, "null") + ", " + r + ")"
	case 10:
		return "regex.match(" + g.pick(`"^x"`, `"^(x|y)$"`, `"1"`) + ", " + r + ")"
	case 11:
		return "not " + r + " == " + c
	case 12:
		return r + " != " + c
	case 13:
		return g.pick("", "not ") + r
	case 14:
		return g.pick(r+" == "+c+"; "+r+" == "+g.guardValue(), r+" == "+g.untyped())
	case 15:
		v := g.bind()
		return v + " := " + r + "; " + v + " == " + c
	case 16:
		v := g.bind()
		return "some " + v + " in " + g.pick("["+r+"]", "{"+c+", "+g.guardValue()+"}") + "; " + v + " == " + g.pick(c, r)
	case 17:
		return "[" + r + ", 1] == [" + c + ", " + g.pick("1", g.untyped()) + "]"
	case 18:
		return r + " == " + c + g.with()
	}
	return g.pick(`startswith(`+r+`, "x")`, "is_string("+r+")", "count("+r+") == 1", r+" > 0", r+" == "+r)
}

// guardValue is a constant that inputs often have: equal numbers in several forms, and texts that look like them.
func (g *generator) guardValue() string {
	return g.pick("1", "1.0", `"1"`, "1e0", "100", "1e2", "0", "-0", `"x"`, `"y"`, `"q0"`, `""`, "true", "false", "null",
		`[1, "x"]`, `["w"]`, `{"x": 1}`, "[]", "{}", `{1}`)
}

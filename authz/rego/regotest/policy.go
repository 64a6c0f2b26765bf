package regotest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Policy is a generated policy. Its query is data.p.main.
type Policy struct {
	Modules map[string]string // by file name
	Data    string            // a JSON object
	// Inputs are JSON objects, or what stands at the root that New was given. Many make conditions of the rules hold.
	Inputs []string
}

// New returns the policy of a seed, always the same one. Its rules read what stands at root: input, or a part of it.
//
// About one policy in seven does not compile, because it mixes types that OPA knows to differ.
func New(seed uint64, root string) *Policy {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 15)), root: root}
	p := &Policy{Modules: g.modules(), Data: g.data()}
	for range 8 {
		p.Inputs = append(p.Inputs, g.input())
	}
	return p
}

// String is the policy as one text.
func (p *Policy) String() string {
	var b strings.Builder
	for _, name := range []string{"b.rego", "c.rego", "d.rego", "p.rego"} {
		b.WriteString(p.Modules[name] + "\n")
	}
	return b.String() + "data: " + p.Data
}

// generator writes policies. Its rules refer only to rules before them, so that none is recursive.
type generator struct {
	*rand.Rand
	root      string
	rules     []string // references to rules that a body may name
	objects   []string // those of them that are objects
	sets      []string // those of them that are sets
	functions []string // functions with one argument
	vars      []string // variables that are bound here
	fresh     int      // the number of variables so far
	trees     bool     // bodies may name packages by variables
}

func (g *generator) pick(list ...string) string { return list[g.IntN(len(list))] }

// one reports true once in n times.
func (g *generator) one(n int) bool { return g.IntN(n) == 0 }

// modules returns the modules of a policy. Half of the policies mix the whole language, the others are for indexes.
func (g *generator) modules() map[string]string {
	out := map[string]string{"b.rego": g.module("a.b"), "c.rego": g.module("a.c"), "d.rego": g.module("a.c.d")}
	g.trees = true
	text := g.module("p")
	g.vars = nil
	for i, r := range g.rules {
		text += fmt.Sprintf("main contains [%d, x] if x := %s%s\n", i, r, g.pick("", "", "", g.with()))
	}
	text += "main contains [\"a\", x] if x := data.a\n"
	out["p.rego"] = text
	return out
}

func (g *generator) module(path string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "package %s\n\n", path)
	for i := range 1 + g.IntN(2) {
		name, kind := fmt.Sprintf("q%d", i), 0
		switch g.IntN(8) {
		case 0, 1:
			name = fmt.Sprintf("f%d", i)
			g.function(&b, name)
			g.functions = append(g.functions, "data."+path+"."+name)
			continue
		case 2, 3:
			kind = g.guarded(&b, name)
		case 4:
			g.join(&b, name)
			kind = 2
		default:
			kind = g.rule(&b, name)
		}
		switch {
		case kind == 2:
			g.sets = append(g.sets, "data."+path+"."+name)
		case kind > 2:
			g.objects = append(g.objects, "data."+path+"."+name)
		}
		g.rules = append(g.rules, "data."+path+"."+name)
	}
	return b.String()
}

// rule writes the rules of a name and returns their kind: complete, set or object.
func (g *generator) rule(b *strings.Builder, name string) int {
	kind := g.IntN(6)
	if kind == 0 && g.one(2) {
		fmt.Fprintf(b, "default %s := %s\n", name, g.constant())
	}
	value := ""
	if g.one(2) {
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
			fmt.Fprintf(b, "%s := %s if %s%s", name, v, body, g.otherwise())
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

// otherwise are the parts of a rule after else.
func (g *generator) otherwise() (out string) {
	for g.one(3) {
		g.vars = nil
		body := g.body(1, 1)
		out += " else := " + g.term(1) + " if " + body
	}
	return out
}

func (g *generator) function(b *strings.Builder, name string) {
	if g.one(4) {
		fmt.Fprintf(b, "default %s(_) := %s\n", name, g.scalar())
	}
	for range 1 + g.IntN(3) {
		g.vars = nil
		var arg string
		switch g.IntN(5) {
		case 0:
			arg = g.guardValue()
		case 1:
			arg = "[" + g.bind() + ", " + g.bind() + "]"
		default:
			arg = g.bind()
		}
		argument := g.vars
		body := g.body(1+g.IntN(2), 1)
		fmt.Fprintf(b, "%s(%s) := %s if %s", name, arg, g.term(1), body)
		for g.one(4) {
			g.vars = argument
			body := g.body(1, 1)
			fmt.Fprintf(b, " else := %s if %s", g.term(1), body)
		}
		b.WriteString("\n")
	}
}

// bind returns a new variable, which is bound from here on.
func (g *generator) bind() string {
	g.fresh++
	v := fmt.Sprintf("v%d", g.fresh)
	g.vars = append(g.vars[:len(g.vars):len(g.vars)], v)
	return v
}

// inner writes something in which more variables are bound.
func (g *generator) inner(write func() string) string {
	before := len(g.vars)
	out := write()
	g.vars = g.vars[:before:before]
	return out
}

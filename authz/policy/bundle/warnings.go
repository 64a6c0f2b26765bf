package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"
)

// Codes of warnings.
const (
	warnPackage = "unasked_package"
	warnRule    = "unasked_rule"
	warnData    = "unasked_data"
)

// unasked finds rules that take no part in any decision and look as if they were meant to: a misspelt package, a
// package beside the query, a rule beside those that are asked for. Libraries of which only some rules are used, tests,
// and packages that hold nothing but constants are left alone.
type unasked struct {
	query   ast.Ref
	reached map[*ast.Rule]bool
	asked   map[string]ast.Ref // what the rules that are reached ask for, as far as it is constant
	there   map[string]bool    // the names of all rules
	base    map[string]any
}

// reachedFrom are the rules that the query may ask for, the branches of an else among them.
func reachedFrom(c *ast.Compiler, query ast.Ref) map[*ast.Rule]bool {
	reached := make(map[*ast.Rule]bool)
	var visit func(r *ast.Rule)
	visit = func(r *ast.Rule) {
		for ; r != nil && !reached[r]; r = r.Else {
			reached[r] = true
			for next := range c.Graph.Dependencies(r) {
				visit(next.(*ast.Rule))
			}
		}
	}
	for _, r := range c.GetRules(query) {
		visit(r)
	}
	return reached
}

// warningsOf says what is probably not meant, sorted by place.
func warningsOf(c *ast.Compiler, query ast.Ref, reached map[*ast.Rule]bool, base map[string]any) []Fault {
	u := &unasked{query: query, reached: reached, base: base, asked: make(map[string]ast.Ref), there: make(map[string]bool)}
	for r := range reached {
		u.note(r)
	}
	packages := make(map[string][]*ast.Rule)
	for _, name := range sortedKeys(c.Modules) {
		m := c.Modules[name]
		for _, r := range m.Rules {
			u.there[nameOf(r).String()] = true
		}
		path := m.Package.Path.String()
		packages[path] = append(packages[path], m.Rules...)
	}
	var out []Fault
	for _, path := range sortedKeys(packages) {
		out = append(out, u.inPackage(packages[path])...)
	}
	return append(out, u.inData()...)
}

// note notes what a rule asks for.
func (u *unasked) note(r *ast.Rule) {
	visit := func(t *ast.Term) bool {
		if ref, ok := t.Value.(ast.Ref); ok && ref.HasPrefix(ast.DefaultRootRef) {
			ref = ref.ConstantPrefix()
			u.asked[ref.String()] = ref
		}
		return false
	}
	ast.WalkTerms(r.Head, visit)
	ast.WalkTerms(r.Body, visit)
}

// inPackage says which rules of one package are not asked for.
func (u *unasked) inPackage(rules []*ast.Rule) []Fault {
	if len(rules) == 0 || ofTests(rules[0].Module.Package.Path) {
		return nil
	}
	path := rules[0].Module.Package.Path
	if !slices.ContainsFunc(rules, u.isReached) && !u.asks(path) {
		near := u.near(path)
		if near == "" && !slices.ContainsFunc(rules, func(r *ast.Rule) bool { return !isConstant(r) }) {
			return nil
		}
		text := fmt.Sprintf("package %s is not asked for by %s: its rules decide nothing", inWords(path), u.query)
		if near != "" {
			text += ": did you mean package " + near + "?"
		}
		at := rules[0].Module.Package.Location
		return []Fault{{File: at.File, Line: at.Row, Column: at.Col, Code: warnPackage, Text: text}}
	}
	var out []Fault
	said := make(map[string]bool)
	for _, r := range rules {
		name := nameOf(r)
		if said[name.String()] || slices.ContainsFunc(rules, func(o *ast.Rule) bool { return u.isReached(o) && nameOf(o).Equal(name) }) {
			continue
		}
		said[name.String()] = true
		if f := u.rule(r, path, name); f != nil {
			out = append(out, *f)
		}
	}
	return out
}

// rule says that a rule is not asked for, nil where it may be a library's.
func (u *unasked) rule(r *ast.Rule, path, name ast.Ref) *Fault {
	last := strings.Trim(name[len(name)-1].Value.String(), `"`)
	if strings.HasPrefix(last, "test_") || strings.HasPrefix(last, "todo_test_") {
		return nil
	}
	near := u.near(name)
	if near == "" && !u.query.HasPrefix(path) && !customDeny.HasPrefix(path) {
		return nil
	}
	text := fmt.Sprintf("rule %s of package %s is not asked for by %s: it decides nothing", last, inWords(path), u.query)
	switch {
	case near != "":
		text += ": did you mean " + near + "?"
	case customDeny.HasPrefix(path):
		text += ": the shipped policies ask for deny only"
	}
	at := r.Location
	return &Fault{File: at.File, Line: at.Row, Column: at.Col, Code: warnRule, Text: text}
}

func (u *unasked) isReached(r *ast.Rule) bool { return u.reached[r] }

// asks reports whether something in that package is asked for, whether it is there or not.
func (u *unasked) asks(path ast.Ref) bool {
	for _, ref := range u.asked {
		if ref.HasPrefix(path) {
			return true
		}
	}
	return u.query.HasPrefix(path)
}

// near is a name that is asked for, is not there, and differs from this one by a letter or two: "" if there is none.
func (u *unasked) near(name ast.Ref) string {
	for _, asked := range sortedKeys(u.asked) {
		ref := u.asked[asked]
		if len(ref) < len(name) || u.isThere(ref) {
			continue
		}
		if start := ref[:len(name)]; alike(start, name) {
			return inWords(start)
		}
	}
	return ""
}

// isThere reports whether rules or data stand where a reference points.
func (u *unasked) isThere(ref ast.Ref) bool {
	path := make([]string, 0, len(ref))
	for i := 1; i < len(ref); i++ {
		s, ok := ref[i].Value.(ast.String)
		if u.there[ref[:i+1].String()] || !ok {
			return true
		}
		path = append(path, string(s))
	}
	_, ok := lookup(u.base, path)
	return ok
}

// inData says which data has a name that is nearly one that is asked for.
func (u *unasked) inData() []Fault {
	var out []Fault
	for _, asked := range sortedKeys(u.asked) {
		ref := u.asked[asked]
		if u.isThere(ref) {
			continue
		}
		here := ast.Ref{ast.DefaultRootDocument}
		var at any = u.base
		for _, part := range ref[1:] {
			names, _ := at.(map[string]any)
			next, ok := names[string(part.Value.(ast.String))]
			if !ok {
				for _, name := range sortedKeys(names) {
					given, want := here.Append(ast.StringTerm(name)), here.Append(part)
					if alike(given, want) && !u.asks(given) {
						out = append(out, Fault{Code: warnData, Text: fmt.Sprintf("%s is not asked for by %s: did you mean %s?", given, u.query, want)})
					}
				}
				break
			}
			here, at = here.Append(part), next
		}
	}
	return slices.Compact(out)
}

// alike reports whether two names of equal length differ in one part, by a letter or two.
func alike(a, b ast.Ref) bool {
	different := 0
	for i := range a {
		if a[i].Equal(b[i]) {
			continue
		}
		x, y := strings.ToLower(a[i].Value.String()), strings.ToLower(b[i].Value.String())
		if d := levenshtein.ComputeDistance(x, y); d > 2 || d > (len(x)-2)/3 {
			return false
		}
		different++
	}
	return different == 1
}

// nameOf is the name of a rule without what is variable in it.
func nameOf(r *ast.Rule) ast.Ref {
	path := r.Module.Package.Path
	return path.Append(ast.StringTerm(r.Head.Ref()[0].Value.String()))
}

// inWords is a path without the leading data.
func inWords(path ast.Ref) string { return strings.TrimPrefix(path.String(), "data.") }

// isConstant reports whether a rule is a value that is written out.
func isConstant(r *ast.Rule) bool {
	return len(r.Head.Args) == 0 && r.Else == nil && r.Head.Value != nil && r.Head.Value.IsGround() &&
		r.Body.Equal(ast.NewBody(ast.NewExpr(ast.BooleanTerm(true))))
}

// ofTests reports whether a package is one of tests, or of what tests share.
func ofTests(path ast.Ref) bool {
	for _, part := range path[1:] {
		s, _ := part.Value.(ast.String)
		if name := string(s); strings.HasSuffix(name, "_test") || strings.HasPrefix(name, "test_") || slices.Contains([]string{"test", "tests", "fixtures"}, name) {
			return true
		}
	}
	return false
}

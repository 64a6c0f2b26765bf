package bundle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"
)

// Codes of warnings.
const (
	warnPackage  = "unasked_package"
	warnRule     = "unasked_rule"
	warnData     = "unasked_data"
	warnDocument = "unasked_document"
)

// usage finds rules that no decision uses, probably by mistake: rules in a misspelt package, in a package next to the query, or
// next to rules that are used. It does not report partly used libraries, tests, or packages of constants.
type usage struct {
	query   ast.Ref
	reached map[*ast.Rule]bool
	refs    map[string]ast.Ref // references of the reached rules into data, up to the first variable
	defined map[string]bool    // the names of all rules
	data    map[string]any
}

// reachedFrom returns the rules that the query may use, and their else branches.
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

func usageOf(c *ast.Compiler, query ast.Ref, reached map[*ast.Rule]bool, data map[string]any) *usage {
	u := &usage{query: query, reached: reached, data: data, refs: make(map[string]ast.Ref), defined: make(map[string]bool)}
	for r := range reached {
		eachRef(r, func(ref ast.Ref, _ *ast.Location) {
			if ref.HasPrefix(ast.DefaultRootRef) {
				u.refs[ref.String()] = ref
			}
		})
	}
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			u.defined[nameOf(r).String()] = true
		}
	}
	return u
}

// warnings returns the warnings about a compiled policy, sorted by package.
func (u *usage) warnings(c *ast.Compiler) []Fault {
	packages := make(map[string][]*ast.Rule)
	for _, name := range sortedKeys(c.Modules) {
		m := c.Modules[name]
		path := m.Package.Path.String()
		packages[path] = append(packages[path], m.Rules...)
	}
	var out []Fault
	for _, path := range sortedKeys(packages) {
		out = append(out, u.inPackage(packages[path])...)
	}
	return append(out, u.inData()...)
}

// eachRef calls visit for the references of a rule, up to their first variable.
func eachRef(r *ast.Rule, visit func(ast.Ref, *ast.Location)) {
	terms := func(t *ast.Term) bool {
		if ref, ok := t.Value.(ast.Ref); ok {
			visit(ref.ConstantPrefix(), cmp.Or(t.Location, r.Location))
		}
		return false
	}
	ast.WalkTerms(r.Head, terms)
	ast.WalkTerms(r.Body, terms)
}

// inPackage warns about the rules of one package.
func (u *usage) inPackage(rules []*ast.Rule) []Fault {
	if len(rules) == 0 || ofTests(rules[0].Module.Package.Path) {
		return nil
	}
	path := rules[0].Module.Package.Path
	if !slices.ContainsFunc(rules, u.isReached) && !u.uses(path) {
		near := u.near(path)
		if near == "" && !slices.ContainsFunc(rules, func(r *ast.Rule) bool { return !isConstant(r) }) {
			return nil
		}
		text := fmt.Sprintf("package %s is not used by %s: its rules decide nothing", inWords(path), u.query)
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

// rule warns about an unused rule. It returns nil if the rule may belong to a library.
func (u *usage) rule(r *ast.Rule, path, name ast.Ref) *Fault {
	last := strings.Trim(name[len(name)-1].Value.String(), `"`)
	if strings.HasPrefix(last, "test_") || strings.HasPrefix(last, "todo_test_") {
		return nil
	}
	near := u.near(name)
	if near == "" && !u.query.HasPrefix(path) && !customDeny.HasPrefix(path) {
		return nil
	}
	text := fmt.Sprintf("rule %s of package %s is not used by %s: it decides nothing", last, inWords(path), u.query)
	switch {
	case near != "":
		text += ": did you mean " + near + "?"
	case customDeny.HasPrefix(path):
		text += ": the shipped policies read only deny"
	}
	at := r.Location
	return &Fault{File: at.File, Line: at.Row, Column: at.Col, Code: warnRule, Text: text}
}

func (u *usage) isReached(r *ast.Rule) bool { return u.reached[r] }

// uses reports whether a reached rule refers into that package, whether the package exists or not.
func (u *usage) uses(path ast.Ref) bool {
	for _, ref := range u.refs {
		if ref.HasPrefix(path) {
			return true
		}
	}
	return u.query.HasPrefix(path)
}

// near finds an undefined name that a reached rule refers to and that differs from this one by one or two letters. It returns ""
// if there is none.
func (u *usage) near(name ast.Ref) string {
	for _, key := range sortedKeys(u.refs) {
		ref := u.refs[key]
		if len(ref) < len(name) || u.isDefined(ref) {
			continue
		}
		if start := ref[:len(name)]; alike(start, name) {
			return inWords(start)
		}
	}
	return ""
}

// isDefined reports whether a reference points to rules or data.
func (u *usage) isDefined(ref ast.Ref) bool {
	path := make([]string, 0, len(ref))
	for i := 1; i < len(ref); i++ {
		s, ok := ref[i].Value.(ast.String)
		if u.defined[ref[:i+1].String()] || !ok {
			return true
		}
		path = append(path, string(s))
	}
	_, ok := lookup(u.data, path)
	return ok
}

// inData warns about data whose name is similar to one that a rule refers to.
func (u *usage) inData() []Fault {
	var out []Fault
	for _, key := range sortedKeys(u.refs) {
		if ref := u.refs[key]; !u.isDefined(ref) {
			out = append(out, u.nearData(ref)...)
		}
	}
	return slices.Compact(out)
}

// nearData follows a reference into the data as far as it exists, and warns about names there that are similar to the next part
// of the reference.
func (u *usage) nearData(ref ast.Ref) []Fault {
	var out []Fault
	here := ast.Ref{ast.DefaultRootDocument}
	var at any = u.data
	for _, part := range ref[1:] {
		names, _ := at.(map[string]any)
		next, ok := names[string(part.Value.(ast.String))]
		if ok {
			here, at = here.Append(part), next
			continue
		}
		for _, name := range sortedKeys(names) {
			given, want := here.Append(ast.StringTerm(name)), here.Append(part)
			if alike(given, want) && !u.uses(given) {
				out = append(out, Fault{Code: warnData, Text: fmt.Sprintf("%s is not used by %s: did you mean %s?", given, u.query, want)})
			}
		}
		break
	}
	return out
}

// alike reports whether two paths of equal length differ only in one part, by one or two letters.
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

// nameOf is the name of a rule, without the variable part.
func nameOf(r *ast.Rule) ast.Ref {
	path := r.Module.Package.Path
	return path.Append(ast.StringTerm(r.Head.Ref()[0].Value.String()))
}

// inWords writes a path without the leading data.
func inWords(path ast.Ref) string { return strings.TrimPrefix(path.String(), "data.") }

// isConstant reports whether a rule only names a constant value.
func isConstant(r *ast.Rule) bool {
	return len(r.Head.Args) == 0 && r.Else == nil && r.Head.Value != nil && r.Head.Value.IsGround() &&
		r.Body.Equal(ast.NewBody(ast.NewExpr(ast.BooleanTerm(true))))
}

// ofTests reports whether a package holds tests, or fixtures for tests.
func ofTests(path ast.Ref) bool {
	for _, part := range path[1:] {
		s, _ := part.Value.(ast.String)
		if name := string(s); strings.HasSuffix(name, "_test") || strings.HasPrefix(name, "test_") || slices.Contains([]string{"test", "tests", "fixtures"}, name) {
			return true
		}
	}
	return false
}

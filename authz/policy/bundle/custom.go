package bundle

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// customDeny is the rule that the shipped policies ask operators' own rules by.
var customDeny = ast.MustParseRef("data.tollkeeper.custom.deny")

// What the server and the shipped rules read as data, in data.tollkeeper.
var (
	dataPackage = customDeny[:2]
	dataOnly    = map[string]bool{"plans": true, "routes": true, "reasons": true, "precedence": true, "profile": true}
)

// customRulesPackage is the package of custom_rules.rego, which reads them. Its metadata says why the name is not that of the file.
var customRulesPackage = ast.MustParseRef("data.tollkeeper.hook")

// customFaults says where an operator's rules have a form that the compiler would refuse with words about the shipped rule
// that reads them, or with a place in one file of two.
func customFaults(modules map[string]*ast.Module) []Fault {
	var first *ast.Rule
	var faults []Fault
	for _, name := range sortedKeys(modules) {
		m := modules[name]
		for _, r := range m.Rules {
			if rule := r.Head.Ref()[0].Value.String(); m.Package.Path.Equal(dataPackage) && dataOnly[rule] {
				faults = append(faults, formFault(r, rule+" is a rule here, and is read as data: write it into a .yaml or .json file"))
			}
		}
		if !m.Package.Path.Equal(customDeny[:len(customDeny)-1]) {
			continue
		}
		for _, r := range m.Rules {
			switch {
			case !r.Head.Ref()[0].Equal(ast.VarTerm("deny")):
			case len(r.Head.Args) > 0:
				faults = append(faults, formFault(r, "deny is a function here, which is never called: write deny contains … if …"))
			case first == nil:
				first = r
			case formOf(r) != formOf(first):
				faults = append(faults, formFault(r, fmt.Sprintf("deny is written as %q here and as %q in %s:%d: write all of them with contains",
					formOf(r), formOf(first), first.Location.File, first.Location.Row)))
			}
		}
	}
	return faults
}

// formOf is how a rule is written. Rules of one name have to be of one form.
func formOf(r *ast.Rule) string {
	switch {
	case r.Head.RuleKind() == ast.MultiValue:
		return "deny contains …"
	case len(r.Head.Ref()) > 1:
		return "deny[…]"
	}
	return "deny := …"
}

func formFault(r *ast.Rule, text string) Fault {
	return Fault{File: r.Location.File, Line: r.Location.Row, Column: r.Location.Col, Code: ast.TypeErr, Text: text}
}

// isShipped reports whether it is the shipped rules that decide, changed or not: those that ask operators' own.
func isShipped(reached map[*ast.Rule]bool) bool {
	for r := range reached {
		if r.Module.Package.Path.Equal(customRulesPackage) {
			return true
		}
	}
	return false
}

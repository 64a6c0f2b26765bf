package bundle

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// customDeny is the rule with which operators' own rules deny. custom_rules.rego reads it.
var customDeny = ast.MustParseRef("data.tollkeeper.custom.deny")

// The server and the shipped rules read these names in data.tollkeeper as data.
var (
	dataPackage = customDeny[:2]
	dataOnly    = map[string]bool{
		"plans": true, "routes": true, "paths": true, "unmatched": true, "reasons": true, "precedence": true, "profile": true,
	}
)

// customRulesPackage is the package of custom_rules.rego. That file says why the names differ.
var customRulesPackage = ast.MustParseRef("data.tollkeeper.hook")

// customFaults finds operators' rules whose form cannot work. The compiler would report the shipped rule that reads them, or
// name only one of two files.
func customFaults(modules map[string]*ast.Module) []Fault {
	var first *ast.Rule
	var faults []Fault
	for _, name := range sortedKeys(modules) {
		m := modules[name]
		for _, r := range m.Rules {
			if rule := nameOf(r); rule.HasPrefix(dataPackage) && dataOnly[strings.Trim(rule[len(dataPackage)].String(), `"`)] {
				faults = append(faults, formFault(r, inWords(rule)+" is a rule here but is read as data: move it to a .yaml or .json file"))
			}
		}
		if !m.Package.Path.Equal(customDeny[:len(customDeny)-1]) {
			continue
		}
		for _, r := range m.Rules {
			switch {
			case !r.Head.Ref()[0].Equal(ast.VarTerm("deny")):
			case len(r.Head.Args) > 0:
				faults = append(faults, formFault(r, "deny is a function here, and no rule calls it: write deny contains … if …"))
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

// formOf returns the form of a rule. Rules of one name must have one form.
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

// isShipped reports whether the shipped rules decide, perhaps with changes: only those ask operators' own rules.
func isShipped(reached map[*ast.Rule]bool) bool {
	for r := range reached {
		if r.Module.Package.Path.Equal(customRulesPackage) {
			return true
		}
	}
	return false
}

package policy

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// Mentions finds a string in the rules, such as a reason code, and returns its place as file:line.
func (p *Policy) Mentions(text string) (place string, ok bool) {
	for _, m := range p.bundle.Modules() {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			if s, isText := t.Value.(ast.String); isText && string(s) == text && t.Location != nil && !ok {
				place, ok = fmt.Sprintf("%s:%d", t.Location.File, t.Location.Row), true
			}
			return ok
		})
	}
	return place, ok
}

// routeRule is the rule of the shipped policies that picks the entry of routes.yaml.
var routeRule = ast.MustParseRef("data.tollkeeper.route.rule")

// routeOf returns the entry of routes.yaml that applies, as JSON. It is nil if the policy has no such rule, or the rule has
// no value.
func (p *Policy) routeOf(ctx context.Context, input ast.Value) []byte {
	if len(p.bundle.Compiler.GetRules(routeRule)) == 0 {
		return nil
	}
	results, err := rego.New(append(p.queryOptions(routeRule), rego.ParsedInput(input))...).Eval(ctx)
	if err != nil || len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil
	}
	v, ok := results[0].Expressions[0].Value.(ast.Value)
	if !ok {
		return nil
	}
	return []byte(jsonOf(v))
}

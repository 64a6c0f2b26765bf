package policy

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
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

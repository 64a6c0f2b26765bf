package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// looksAtClock are functions whose result may change, but OPA does not mark them as nondeterministic.
var looksAtClock = map[string]bool{
	"io.jwt.decode_verify":                                   true,
	"crypto.x509.parse_and_verify_certificates":              true,
	"crypto.x509.parse_and_verify_certificates_with_options": true,
}

// nondeterminism lists calls in the rules that prevent caching, with their places.
type nondeterminism struct {
	always    []string // the evaluator does not record these, so one of them turns the cache off
	sometimes []string // the evaluator records these, so only decisions with such a call are not cached
}

func nondeterminismOf(modules []*ast.Module) nondeterminism {
	var out nondeterminism
	for _, m := range modules {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			ref, ok := t.Value.(ast.Ref)
			if !ok {
				return false
			}
			name := ref.String()
			b := ast.BuiltinMap[name]
			switch {
			case name == ast.InternalPrint.Name:
				out.sometimes = append(out.sometimes, placeOf("print", t))
			case looksAtClock[name]:
				out.always = append(out.always, placeOf(name, t))
			case b != nil && b.Nondeterministic:
				out.sometimes = append(out.sometimes, placeOf(name, t))
			}
			return false
		})
	}
	return out
}

func placeOf(call string, t *ast.Term) string {
	if t.Location == nil {
		return call
	}
	return fmt.Sprintf("%s (%s:%d)", call, t.Location.File, t.Location.Row)
}

// Caching describes whether verdicts are cached.
func (p *Policy) Caching() string {
	cache := p.now.Load().cache
	switch {
	case cache == nil && len(p.nondeterminism.always) > 0:
		return "off, because of " + strings.Join(p.nondeterminism.always, ", ")
	case cache == nil:
		return "off"
	case len(p.nondeterminism.sometimes) > 0:
		return "on, except for decisions that call " + strings.Join(slices.Compact(p.nondeterminism.sometimes), ", ")
	}
	return "on"
}

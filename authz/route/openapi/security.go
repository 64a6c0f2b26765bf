package openapi

import (
	"maps"
	"slices"
	"strings"
)

// scopes returns the scopes that an operation asks for, nil if none. A requirement asks for the scopes of all its schemes together.
// OpenAPI says of a list of requirements that one is enough, but the scopes of a route are all needed. So a document
// must name one set of scopes. Requirements without scopes, such as that of an API key, may stand beside it: the scopes are
// asked of keys, too.
//
// What x-tollkeeper says further out must not take away what the operation's own security asks for, so the author has to decide.
func (r *reader) scopes(o *object, ext extension) []any {
	own, has := o.fields["security"]
	if !has {
		own = r.defaults.security
	}
	sets, ok := r.requirements(own)
	if !ok {
		return nil
	}
	given, isGiven := ext["scopes"]
	switch {
	case ext.is("public") && has && len(sets) > 0 && ext["public"].level < atOperation:
		r.fault(own, "security: it asks for scopes (%s), and x-tollkeeper further out, in line %d, makes this public: say which with x-tollkeeper: {public: ...} here",
			list(sets), ext["public"].at.line())
	case ext.is("public"):
	case isGiven && (!has || given.level == atOperation || len(sets) == 0):
	case isGiven && len(sets) == 1 && slices.Equal(sets[0], sorted(given.value)):
	case isGiven:
		r.fault(own, "security: it asks for other scopes (%s) than x-tollkeeper further out, in line %d: say which with x-tollkeeper: {scopes: [...]} here",
			list(sets), given.at.line())
	case len(sets) > 1:
		r.fault(own, "security: the alternatives ask for different scopes (%s), and a route has one set: say which with x-tollkeeper: {scopes: [...]}", list(sets))
	case len(sets) == 1:
		out := make([]any, len(sets[0]))
		for i, s := range sets[0] {
			out[i] = s
		}
		return out
	}
	return nil
}

func sorted(v any) (out []string) {
	items, _ := v.([]any)
	for _, item := range items {
		s, _ := item.(string)
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func list(sets [][]string) string {
	out := make([]string, len(sets))
	for i, s := range sets {
		out[i] = strings.Join(s, " ")
	}
	return strings.Join(out, "; ")
}

// requirements returns the different sets of scopes in a list of requirements, without empty ones. The kind of a scheme does not
// matter: OpenAPI 3.0 allows scopes for OAuth 2.0 and OpenID Connect alone, but a document that has them elsewhere means them.
func (r *reader) requirements(at value) (sets [][]string, ok bool) {
	if at.missing() {
		return nil, true
	}
	if known, done := r.security[at.node]; done {
		return known, true
	}
	items, ok := at.items()
	if !ok {
		r.fault(at, "security: want a list of requirements")
		return nil, false
	}
	for _, item := range items {
		set, good := r.requirement(item)
		if ok = ok && good; good && len(set) > 0 && !slices.ContainsFunc(sets, func(s []string) bool { return slices.Equal(s, set) }) {
			sets = append(sets, set)
		}
	}
	if ok {
		r.security[at.node] = sets
	}
	return sets, ok
}

// requirement returns the scopes of a requirement, in order.
func (r *reader) requirement(at value) (scopes []string, ok bool) {
	o := r.object(at)
	if o == nil {
		return nil, false
	}
	found := make(map[string]bool)
	for _, scheme := range o.names {
		v := o.fields[scheme]
		if _, defined := r.schemes[scheme]; !defined {
			r.fault(v, "security: components.securitySchemes has no %q", scheme)
			return nil, false
		}
		items, isList := v.items()
		if !isList {
			r.fault(v, "security: %s: want a list of scopes", scheme)
			return nil, false
		}
		for _, item := range items {
			scope, isText := item.text()
			if !isText || scope == "" {
				r.fault(item, "security: %s: want a list of scopes, each a text", scheme)
				return nil, false
			}
			found[scope] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), true
}

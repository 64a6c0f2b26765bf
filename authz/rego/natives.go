package rego

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// native is a builtin function of this package. It returns false for values that it leaves to OPA's function: those that fail, and
// those that are rare. Without a result it is undefined.
type native func(args []*ast.Term) (*ast.Term, bool)

// natives are the builtin functions that policies call most. They save the allocations of a call of OPA's functions, and nothing
// else: OPA's function gives the same result for everything that they accept.
var natives = map[string]native{
	"internal.member_2": member2,
	"internal.member_3": member3,
	"count":             countOf,
	"startswith":        ofTexts(func(a, b string) *ast.Term { return truth(strings.HasPrefix(a, b)) }),
	"endswith":          ofTexts(func(a, b string) *ast.Term { return truth(strings.HasSuffix(a, b)) }),
	"contains":          ofTexts(func(a, b string) *ast.Term { return truth(strings.Contains(a, b)) }),
	"trim_prefix":       ofTexts(func(a, b string) *ast.Term { return ast.StringTerm(strings.TrimPrefix(a, b)) }),
	"trim_suffix":       ofTexts(func(a, b string) *ast.Term { return ast.StringTerm(strings.TrimSuffix(a, b)) }),
	"lower":             ofText(func(a string) *ast.Term { return ast.StringTerm(strings.ToLower(a)) }),
	"upper":             ofText(func(a string) *ast.Term { return ast.StringTerm(strings.ToUpper(a)) }),
	"equal":             compared(func(c int) bool { return c == 0 }),
	"neq":               compared(func(c int) bool { return c != 0 }),
	"lt":                compared(func(c int) bool { return c < 0 }),
	"lte":               compared(func(c int) bool { return c <= 0 }),
	"gt":                compared(func(c int) bool { return c > 0 }),
	"gte":               compared(func(c int) bool { return c >= 0 }),
	"object.get":        objectGet,
	"object.keys":       objectKeys,
	"minus":             minus,
	"is_string":         typed[ast.String],
	"is_number":         typed[ast.Number],
	"is_boolean":        typed[ast.Boolean],
	"is_array":          typed[*ast.Array],
	"is_object":         typed[ast.Object],
	"is_set":            typed[ast.Set],
	"is_null":           typed[ast.Null],
	"concat":            concat,
}

func truth(b bool) *ast.Term { return ast.InternedTerm(b) }

func ofText(f func(a string) *ast.Term) native {
	return func(args []*ast.Term) (*ast.Term, bool) {
		a, ok := args[0].Value.(ast.String)
		if !ok {
			return nil, false
		}
		return f(string(a)), true
	}
}

func ofTexts(f func(a, b string) *ast.Term) native {
	return func(args []*ast.Term) (*ast.Term, bool) {
		a, ok := args[0].Value.(ast.String)
		b, both := args[1].Value.(ast.String)
		if !ok || !both {
			return nil, false
		}
		return f(string(a), string(b)), true
	}
}

func compared(holds func(c int) bool) native {
	return func(args []*ast.Term) (*ast.Term, bool) {
		return truth(holds(args[0].Value.Compare(args[1].Value))), true
	}
}

func typed[T ast.Value](args []*ast.Term) (*ast.Term, bool) {
	_, ok := args[0].Value.(T)
	return truth(ok), true
}

func member2(args []*ast.Term) (*ast.Term, bool) {
	switch v := args[1].Value.(type) {
	case ast.Set:
		return truth(v.Contains(args[0])), true
	case *ast.Array:
		for i := range v.Len() {
			if equal(v.Elem(i), args[0]) {
				return truth(true), true
			}
		}
		return truth(false), true
	}
	return nil, false
}

func member3(args []*ast.Term) (*ast.Term, bool) {
	switch v := args[2].Value.(type) {
	case ast.Object:
		t := v.Get(args[0])
		return truth(t != nil && equal(t, args[1])), true
	case *ast.Array:
		t := v.Get(args[0])
		return truth(t != nil && equal(t, args[1])), true
	}
	return nil, false
}

func countOf(args []*ast.Term) (*ast.Term, bool) {
	n, ok := size(args[0])
	if !ok {
		return nil, false
	}
	return ast.InternedTerm(n), true
}

func objectGet(args []*ast.Term) (*ast.Term, bool) {
	o, ok := args[0].Value.(ast.Object)
	if !ok {
		return nil, false
	}
	if _, isPath := args[1].Value.(*ast.Array); isPath {
		return nil, false
	}
	if v := o.Get(args[1]); v != nil {
		return v, true
	}
	return args[2], true
}

func objectKeys(args []*ast.Term) (*ast.Term, bool) {
	o, ok := args[0].Value.(ast.Object)
	if !ok {
		return nil, false
	}
	return ast.SetTerm(o.Keys()...), true
}

// minus is the difference of two sets. Numbers are left to OPA.
func minus(args []*ast.Term) (*ast.Term, bool) {
	a, ok := args[0].Value.(ast.Set)
	b, both := args[1].Value.(ast.Set)
	if !ok || !both {
		return nil, false
	}
	return ast.NewTerm(a.Diff(b)), true
}

func concat(args []*ast.Term) (*ast.Term, bool) {
	between, ok := args[0].Value.(ast.String)
	list, isArray := args[1].Value.(*ast.Array)
	if !ok || !isArray {
		return nil, false
	}
	parts := make([]string, list.Len())
	for i := range parts {
		s, ok := list.Elem(i).Value.(ast.String)
		if !ok {
			return nil, false
		}
		parts[i] = string(s)
	}
	return ast.StringTerm(strings.Join(parts, string(between))), true
}

package rego

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

// TestNatives_EqualOPA compares each function of this package with OPA's: on random values of the types that it is declared with, and of
// all others. A function for which no good values are drawn fails.
func TestNatives_EqualOPA(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(natives)) {
		t.Run(name, func(t *testing.T) {
			d := draw{rand.New(rand.NewPCG(15, 1))}
			theirs, declared := topdown.GetBuiltin(name), ast.BuiltinMap[name].Decl.FuncArgs().Args
			accepted, left, results := 0, 0, make(map[string]bool)
			for range 20_000 {
				args := d.arguments(declared)
				before := ast.NewTerm(ast.NewArray(args...)).String()
				got, ok := natives[name](args)
				if after := ast.NewTerm(ast.NewArray(args...)).String(); after != before {
					t.Fatalf("%s(%s) has changed its arguments to %s", name, before, after)
				}
				if !ok {
					left++
					continue
				}
				accepted++
				var want *ast.Term
				err := theirs(topdown.BuiltinContext{}, args, func(v *ast.Term) error { want = v; return nil })
				// Equal numbers may have different texts.
				if err != nil || (got == nil) != (want == nil) || got != nil && (got.Value.Compare(want.Value) != 0 || got.String() != want.String()) {
					t.Fatalf("%s(%s) is %v, want %v, %v", name, before, got, want, err)
				}
				if got != nil {
					results[got.String()] = true
				}
			}
			if accepted < 1000 || len(results) < 2 {
				t.Errorf("%d calls with %d results, and %d were left to OPA", accepted, len(results), left)
			}
		})
	}
}

// draw draws values.
type draw struct{ *rand.Rand }

// arguments are arguments of a function, mostly of the types that it is declared with. Sometimes one is a part of another.
func (d draw) arguments(declared []types.Type) []*ast.Term {
	args := make([]*ast.Term, len(declared))
	for i, want := range declared {
		switch d.IntN(8) {
		case 0:
			args[i] = d.term(2)
		case 1, 2:
			args[i] = d.part(args[d.IntN(len(args))])
		}
		if args[i] == nil {
			args[i] = d.of(want)
		}
	}
	for i := range args { // the first arguments, too, are parts of later ones
		p := d.part(args[d.IntN(len(args))])
		if p != nil && d.IntN(4) == 0 && ast.ValueName(p.Value) == ast.ValueName(args[i].Value) {
			args[i] = p
		}
	}
	return args
}

// of draws a value of a type.
func (d draw) of(want types.Type) *ast.Term {
	if named, ok := want.(*types.NamedType); ok {
		want = named.Type
	}
	switch want := want.(type) {
	case types.Any:
		if len(want) > 0 {
			return d.of(want[d.IntN(len(want))])
		}
	case types.String:
		return d.text()
	case types.Number:
		return d.number()
	case *types.Array:
		if want.Len() > 0 || want.Dynamic() == nil {
			break
		}
		items := make([]*ast.Term, d.IntN(4))
		for i := range items {
			items[i] = d.of(want.Dynamic())
		}
		return ast.ArrayTerm(items...)
	case *types.Set:
		items := make([]*ast.Term, d.IntN(4))
		for i := range items {
			items[i] = d.of(want.Of())
		}
		return ast.SetTerm(items...)
	case *types.Object:
		return d.object(2)
	}
	return d.term(2)
}

// part is a member of a collection, a key of an object or a piece of a text. It is nil for other values.
func (d draw) part(t *ast.Term) *ast.Term {
	if t == nil {
		return nil
	}
	switch v := t.Value.(type) {
	case ast.String:
		if runes := []rune(string(v)); len(runes) > 0 {
			from := d.IntN(len(runes))
			return ast.StringTerm(string(runes[from : from+d.IntN(len(runes)-from+1)]))
		}
	case *ast.Array:
		if v.Len() > 0 {
			return v.Elem(d.IntN(v.Len()))
		}
	case ast.Set:
		if v.Len() > 0 {
			return v.Slice()[d.IntN(v.Len())]
		}
	case ast.Object:
		if keys := v.Keys(); len(keys) > 0 {
			return keys[d.IntN(len(keys))]
		}
	}
	return nil
}

func (d draw) text() *ast.Term {
	pieces := []string{"", "a", "A", "b", "ab", "ÄÖ", "äö", "ß", "ẞ", "İ", "ı", "K", "ﬀ", "日本", "e\u0301", "\xff", "\x00", "1", ".", "/", "-", " ", "€", "a.b"}
	var text strings.Builder
	for range d.IntN(4) {
		text.WriteString(pieces[d.IntN(len(pieces))])
	}
	return ast.StringTerm(text.String())
}

func (d draw) number() *ast.Term {
	forms := []string{
		"0", "-0", "0.0", "1", "1.0", "1e0", "10e-1", "-1", "2", "1.5", "15e-1", "100", "1e2", "1E2", "1e3", "1000", "0.1", "1e-1",
		"12345678901234567890123", "12345678901234567890123.0", "9007199254740993", "9007199254740992", "9223372036854775807", "1e400", "-1e400", "1e-400",
	}
	return ast.NumberTerm(jsonNumber(forms[d.IntN(len(forms))]))
}

func (d draw) object(depth int) *ast.Term {
	o := ast.NewObject()
	for range d.IntN(4) {
		o.Insert(d.term(0), d.term(depth-1))
	}
	return ast.NewTerm(o)
}

// term draws a value of any type.
func (d draw) term(depth int) *ast.Term {
	kinds := 5
	if depth > 0 {
		kinds = 8
	}
	switch d.IntN(kinds) {
	case 0:
		return ast.NullTerm()
	case 1:
		return ast.BooleanTerm(d.IntN(2) == 0)
	case 2, 3:
		return d.text()
	case 4:
		return d.number()
	case 5:
		return d.object(depth)
	}
	items := make([]*ast.Term, d.IntN(4))
	for i := range items {
		items[i] = d.term(depth - 1)
	}
	if d.IntN(2) == 0 {
		return ast.SetTerm(items...)
	}
	return ast.ArrayTerm(items...)
}

package rego

import (
	"encoding/json"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

type jsonNumber = json.Number

func jsonInt(n int64) jsonNumber { return jsonNumber(strconv.FormatInt(n, 10)) }

func equal(a, b *ast.Term) bool {
	return a == b || a != nil && b != nil && a.Value.Compare(b.Value) == 0
}

// key returns a form of a value that has the same bits for equal values. Only few values have one: there are many ways to write a
// number, and collections are too long.
func key(t *ast.Term) (ast.Value, bool) {
	switch v := t.Value.(type) {
	case ast.String, ast.Boolean, ast.Null:
		return v, true
	case ast.Number:
		return v, isPlain(string(v))
	}
	return nil, false
}

// isPlain reports whether a number is a whole number that cannot be written in another plain way. OPA compares longer numbers by
// value, shorter ones are equal if their texts are.
func isPlain(n string) bool {
	const longest = 15
	if len(n) == 0 || len(n) > longest || n[0] == '0' && n != "0" {
		return false
	}
	for i := range len(n) {
		if n[i] < '0' || n[i] > '9' {
			return false
		}
	}
	return true
}

// size is the number of members of a collection, and false for other values and nil.
func size(t *ast.Term) (n int, ok bool) {
	if t == nil {
		return 0, false
	}
	switch c := t.Value.(type) {
	case *ast.Array:
		return c.Len(), true
	case ast.Object:
		return c.Len(), true
	case ast.Set:
		return c.Len(), true
	}
	return 0, false
}

// each visits the members of a collection in order, until visit returns something else than next.
func each(t *ast.Term, visit func(k, v *ast.Term) int) int {
	switch c := t.Value.(type) {
	case *ast.Array:
		for i := range c.Len() {
			if end := visit(ast.InternedTerm(i), c.Elem(i)); end != next {
				return end
			}
		}
	case ast.Object:
		for _, k := range c.Keys() {
			if end := visit(k, c.Get(k)); end != next {
				return end
			}
		}
	case ast.Set:
		for _, k := range c.Slice() {
			if end := visit(k, k); end != next {
				return end
			}
		}
	}
	return next
}

// member returns a member of an object, an array or a set, nil if there is none.
func member(from, key *ast.Term) *ast.Term {
	if from == nil || key == nil {
		return nil
	}
	switch v := from.Value.(type) {
	case ast.Object:
		return v.Get(key)
	case *ast.Array:
		return v.Get(key)
	case ast.Set:
		if v.Contains(key) {
			return key
		}
	}
	return nil
}

// stored returns a member of base data whose name in the data has another type than the key. OPA looks base data up by paths of
// texts, so the number in data.x[1] and the text in data.x["1"] both stand for a field "1" or for the second item of an array.
func stored(from, key *ast.Term) *ast.Term {
	if from == nil || key == nil {
		return nil
	}
	var name string
	switch k := key.Value.(type) {
	case ast.String:
		name = string(k)
	case ast.Number:
		name = k.String()
	default:
		return nil
	}
	switch v := from.Value.(type) {
	case ast.Object:
		return v.Get(ast.StringTerm(name))
	case *ast.Array:
		if i, ok := util.Atoi(name); ok && 0 <= i && i < v.Len() {
			return v.Elem(i)
		}
	}
	return nil
}

// part returns a part of a value, nil if there is none.
func part(t *ast.Term, path []*ast.Term) *ast.Term {
	for _, name := range path {
		t = member(t, name)
	}
	return t
}

// merge returns the members of base data and of rules at one path. Where both have a member, objects are merged, and otherwise the
// base data counts.
func merge(a, b *ast.Term) *ast.Term {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	x, ok := a.Value.(ast.Object)
	y, both := b.Value.(ast.Object)
	if !ok || !both {
		return a
	}
	out := ast.NewObject()
	x.Foreach(func(k, v *ast.Term) { out.Insert(k, v) })
	y.Foreach(func(k, v *ast.Term) { out.Insert(k, merge(out.Get(k), v)) })
	return ast.NewTerm(out)
}

// put gives a field of an object a value, and returns the object. OPA's Insert loses a field if it replaces the value of another one
// with the same hash, and "x" and ["x"] have the same hash. Then put returns a copy.
func put(t, key, value *ast.Term) *ast.Term {
	o := t.Value.(ast.Object)
	if o.Get(key) == nil || !o.Until(func(k, _ *ast.Term) bool { return k.Hash() == key.Hash() && !equal(k, key) }) {
		o.Insert(key, value)
		return t
	}
	out := ast.NewObject([2]*ast.Term{key, value})
	o.Foreach(func(k, v *ast.Term) {
		if !equal(k, key) {
			out.Insert(k, v)
		}
	})
	return ast.NewTerm(out)
}

package input

import (
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Refs are the references of some rules into the input, as a tree of field names. Rules can see only these parts. A tree never
// changes after RefsOf has returned it. A nil *Refs refers to nothing.
type Refs struct {
	all    bool // the whole value
	fields map[string]*Refs
	any    *Refs // the references into fields that a variable names, as in input.quota[name].state

	// The same fields, sorted by name:
	order []string
	parts []*Refs
}

var everything = &Refs{all: true}

// Everything refers to the whole input.
func Everything() *Refs { return everything }

// RefsOf finds the references in the compiled modules. It may find too many: rules that no decision uses count too.
func RefsOf(modules []*ast.Module) *Refs {
	root := &Refs{}
	var visit func(t *ast.Term) bool
	visit = func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Var: // today the compiler turns a bare input into a reference; if that changes, everything is read
			if v.Equal(ast.InputRootDocument.Value) {
				root.all = true
			}
		case ast.Ref:
			if v.HasPrefix(ast.InputRootRef) {
				root.add(v[1:])
				v = v[1:]
			}
			for _, part := range v {
				ast.WalkTerms(part, visit)
			}
			return true
		}
		return false
	}
	for _, m := range modules {
		ast.WalkTerms(m, visit)
	}
	root.settle()
	return root
}

// add adds a path. A part that is not a constant means every possible name.
func (r *Refs) add(path []*ast.Term) {
	for _, part := range path {
		if name, ok := part.Value.(ast.String); ok {
			r = r.make(string(name))
		} else {
			r = r.makeAny()
		}
	}
	r.all = true
}

// make returns the references into a field, and adds the field if it is new.
func (r *Refs) make(name string) *Refs {
	if r.fields == nil {
		r.fields = make(map[string]*Refs)
	}
	if r.fields[name] == nil {
		r.fields[name] = &Refs{}
	}
	return r.fields[name]
}

func (r *Refs) makeAny() *Refs {
	if r.any == nil {
		r.any = &Refs{}
	}
	return r.any
}

// settle adds the references into any field to every named field.
func (r *Refs) settle() {
	if r == nil {
		return
	}
	for _, next := range r.fields {
		next.merge(r.any)
		next.settle()
	}
	r.any.settle()
	r.order = slices.Sorted(maps.Keys(r.fields))
	r.parts = make([]*Refs, len(r.order))
	for i, name := range r.order {
		r.parts[i] = r.fields[name]
	}
}

// merge adds the references of another tree.
func (r *Refs) merge(o *Refs) {
	if o == nil {
		return
	}
	r.all = r.all || o.all
	for name, theirs := range o.fields {
		r.make(name).merge(theirs)
	}
	if o.any != nil {
		r.makeAny().merge(o.any)
	}
}

// field returns the references into a field, nil for none.
func (r *Refs) field(name string) *Refs {
	if r == nil || r.all {
		return r
	}
	if len(r.order) > 16 {
		if i, ok := slices.BinarySearch(r.order, name); ok {
			return r.parts[i]
		}
		return r.any
	}
	for i := range r.order { // most nodes have few names, so this is faster than a map or a binary search
		if r.order[i] == name {
			return r.parts[i]
		}
	}
	return r.any
}

// open reports whether rules read fields whose names are variables.
func (r *Refs) open() bool { return r.all || r.any != nil }

// Whole reports whether the rules read the input as one value.
func (r *Refs) Whole() bool { return r.all }

// Reads reports whether the rules may read a part of the input, or something in it.
func (r *Refs) Reads(path ...string) bool {
	for _, name := range path {
		r = r.field(name)
	}
	return r != nil
}

// size returns how many of n fields are read at most.
func (r *Refs) size(n int) int {
	switch {
	case r == nil:
		return 0
	case r.open():
		return n
	}
	return min(n, len(r.fields))
}

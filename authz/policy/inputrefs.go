package policy

import (
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// reads is the part of the input that some rule names, as a tree of field names. Only that part is built for a
// decision: what no rule names, no rule can see. It never changes after refsOf returned it.
//
// A nil *inputRefs reads nothing.
type inputRefs struct {
	all   bool // everything from here on
	names map[string]*inputRefs
	any   *inputRefs   // of fields whose names stand nowhere, as in input.quota[name].state
	order []string     // the names, sorted
	parts []*inputRefs // what is read of each of them, in that order
}

// everything reads the whole input.
func everything() *inputRefs { return &inputRefs{all: true} }

// refsOf finds what the compiled rules read. It errs on the side of more: rules that are never asked count.
func refsOf(c *ast.Compiler) *inputRefs {
	root := &inputRefs{}
	var visit func(t *ast.Term) bool
	visit = func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Var: // the compiler makes references of these today; should it stop, all is read
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
	for _, m := range c.Modules {
		ast.WalkTerms(m, visit)
	}
	root.settle()
	return root
}

// add notes a path. A part that is not a constant name stands for every name that there may be.
func (r *inputRefs) add(path []*ast.Term) {
	for _, part := range path {
		name, ok := part.Value.(ast.String)
		if !ok {
			if r.any == nil {
				r.any = &inputRefs{}
			}
			r = r.any
			continue
		}
		if r.names == nil {
			r.names = make(map[string]*inputRefs)
		}
		next := r.names[string(name)]
		if next == nil {
			next = &inputRefs{}
			r.names[string(name)] = next
		}
		r = next
	}
	r.all = true
}

// settle makes every name that is there read what is read of any name, too.
func (r *inputRefs) settle() {
	if r == nil {
		return
	}
	for _, next := range r.names {
		next.merge(r.any)
		next.settle()
	}
	r.any.settle()
	r.order = slices.Sorted(maps.Keys(r.names))
	r.parts = make([]*inputRefs, len(r.order))
	for i, name := range r.order {
		r.parts[i] = r.names[name]
	}
}

// merge reads what another one does besides.
func (r *inputRefs) merge(o *inputRefs) {
	if o == nil {
		return
	}
	r.all = r.all || o.all
	for name, theirs := range o.names {
		if r.names == nil {
			r.names = make(map[string]*inputRefs)
		}
		mine := r.names[name]
		if mine == nil {
			mine = &inputRefs{}
			r.names[name] = mine
		}
		mine.merge(theirs)
	}
	if o.any != nil {
		if r.any == nil {
			r.any = &inputRefs{}
		}
		r.any.merge(o.any)
	}
}

// field is what is read of the field of that name, nil for nothing.
func (r *inputRefs) field(name string) *inputRefs {
	if r == nil || r.all {
		return r
	}
	if i, ok := slices.BinarySearch(r.order, name); ok { // most have few names, among which this beats the map
		return r.parts[i]
	}
	return r.any
}

// open reports whether fields are read whose names stand nowhere.
func (r *inputRefs) open() bool { return r.all || r.any != nil }

// size is how many of n fields are read at most.
func (r *inputRefs) size(n int) int {
	switch {
	case r == nil:
		return 0
	case r.open():
		return n
	}
	return min(n, len(r.names))
}

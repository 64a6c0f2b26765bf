package policy

import "github.com/open-policy-agent/opa/v1/ast"

// reads is the part of the input that some rule names, as a tree of field names. Only that part is built for a
// decision: what no rule names, no rule can see. It never changes after readsOf returned it.
//
// A nil *reads reads nothing.
type reads struct {
	all   bool // everything from here on
	names map[string]*reads
}

// everything reads the whole input.
func everything() *reads { return &reads{all: true} }

// readsOf finds what the compiled rules read. It errs on the side of more: rules that are never asked count, and a
// path counts only as far as it is constant.
func readsOf(c *ast.Compiler) *reads {
	root := &reads{}
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
	return root
}

// add notes a path up to its first part that is not a constant name.
func (r *reads) add(path []*ast.Term) {
	for _, part := range path {
		name, ok := part.Value.(ast.String)
		if !ok {
			break
		}
		if r.names == nil {
			r.names = make(map[string]*reads)
		}
		next := r.names[string(name)]
		if next == nil {
			next = &reads{}
			r.names[string(name)] = next
		}
		r = next
	}
	r.all = true
}

// field is what is read of the field of that name, nil for nothing.
func (r *reads) field(name string) *reads {
	if r == nil || r.all {
		return r
	}
	return r.names[name]
}

// size is how many of n fields are read at most.
func (r *reads) size(n int) int {
	switch {
	case r == nil:
		return 0
	case r.all:
		return n
	}
	return min(n, len(r.names))
}

package rego

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// A plan calls walk for a list of all nodes of a value with their paths, and then loops over the list. The compiler makes one loop of
// both, which leaves out nodes that the body compares with other paths or values, and ends as early as the body ends it.

// isWalk reports whether a call of walk and a loop over its result follow each other.
func isWalk(s, following ir.Stmt) (call *ir.CallStmt, loop *ir.ScanStmt, ok bool) {
	call, isCall := s.(*ir.CallStmt)
	loop, isLoop := following.(*ir.ScanStmt)
	return call, loop, isCall && isLoop && call.Func == ast.WalkBuiltin.Name && loop.Source == call.Result
}

// walker visits the nodes of a value in the order of OPA's function.
type walker struct {
	path  []*ast.Term // the names of the members that nodes are below, nil for all
	value *ast.Term   // of the nodes, nil for all
	visit func(path []*ast.Term, t *ast.Term) int
}

func (c *compiler) walk(call *ir.CallStmt, s *ir.ScanStmt) (step, error) {
	root, pair, nodes := c.operand(call.Args[0]), c.use(s.Value), c.wanted(s)
	c.known.forget(call, s)
	body, err := c.inner(s.Block)
	if err != nil {
		return nil, err
	}
	return func(f *frame) int {
		t := root(f)
		if t == nil {
			return undef
		}
		w, ok := nodes.walker(f)
		switch {
		case f.err != nil:
			return abort
		case !ok:
			return next
		}
		w.visit = func(path []*ast.Term, t *ast.Term) int {
			f.locals[pair] = ast.ArrayTerm(ast.ArrayTerm(slices.Clone(path)...), t)
			return body.runInside(f)
		}
		return w.walk(f, nil, t)
	}, nil
}

func (w *walker) walk(f *frame, path []*ast.Term, t *ast.Term) int {
	if f.interrupted() {
		return abort
	}
	depth := len(path)
	if depth < len(w.path) && w.path[depth] != nil {
		if name := w.path[depth]; isName(t, name) {
			if t = member(t, name); t == nil {
				return next
			}
			return w.walk(f, append(path, name), t)
		}
	}
	if depth >= len(w.path) && (w.value == nil || equal(t, w.value)) {
		if end := w.visit(path, t); end != next {
			return end
		}
	}
	return each(t, func(name, t *ast.Term) int { return w.walk(f, append(path, name), t) })
}

// isName reports whether a member with an equal name has the same name. The names of objects and sets that are numbers can be written in
// different ways.
func isName(t, name *ast.Term) bool {
	_, isArray := t.Value.(*ast.Array)
	_, isNumber := name.Value.(ast.Number)
	return isArray || !isNumber
}

// wanted is which nodes the body of a loop needs, by the comparisons with which it begins.
type wanted struct {
	path  []read // what nodes are below, by the position in their path; nil: no matter what
	value read   // what nodes are; nil: no matter what
}

// maxPath is the longest path that is compared.
const maxPath = 64

// wanted reads the comparisons of a loop over pairs of a path, pair[0], and a node, pair[1].
func (c *compiler) wanted(s *ir.ScanStmt) (out wanted) {
	for _, found := range c.comparisons(s) {
		switch at := found.part.path; {
		case found.part.key:
		case len(at) == 1 && isNumber(at[0], 1):
			out.value = found.value
		case len(at) == 2 && isNumber(at[0], 0):
			number, _ := at[1].Value.(ast.Number)
			i, ok := number.Int()
			if !ok || i < 0 || i > maxPath {
				continue
			}
			for len(out.path) <= i {
				out.path = append(out.path, nil)
			}
			out.path[i] = found.value
		}
	}
	return out
}

func isNumber(t *ast.Term, n int) bool {
	number, ok := t.Value.(ast.Number)
	i, whole := number.Int()
	return ok && whole && i == n
}

// walker evaluates what nodes are compared with. It returns false if that is undefined, so that the loop needs no node.
func (w *wanted) walker(f *frame) (out walker, ok bool) {
	if out.value, ok = wantedValue(f, w.value); !ok {
		return out, false
	}
	if len(w.path) > 0 {
		out.path = make([]*ast.Term, len(w.path))
	}
	for i, name := range w.path {
		if out.path[i], ok = wantedValue(f, name); !ok {
			return out, false
		}
	}
	return out, true
}

// wantedValue reads a value, and returns false if it is undefined. It returns nil for a value without a key: the body compares it.
func wantedValue(f *frame, value read) (*ast.Term, bool) {
	if value == nil {
		return nil, true
	}
	v := value(f)
	if v == nil {
		return nil, false
	}
	if _, hasKey := key(v); !hasKey {
		return nil, true
	}
	return v, true
}

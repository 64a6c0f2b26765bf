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
	root, pair, wanted := c.operand(call.Args[0]), c.use(s.Value), c.walked(s)
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
		w, ok := wanted.walker(f)
		switch {
		case f.err != nil:
			return abort
		case !ok:
			return next
		}
		w.visit = func(path []*ast.Term, t *ast.Term) int {
			f.locals[pair] = ast.ArrayTerm(ast.ArrayTerm(slices.Clone(path)...), t)
			if end := body.run(f); end > undef {
				return outer(end)
			}
			return next
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

// walked are the conditions with which the body of a loop over nodes begins.
type walked struct {
	path  []read // by the position in the path, nil for none
	value read   // nil for none
}

func (c *compiler) walked(s *ir.ScanStmt) (out walked) {
	for _, found := range c.conditions(s) {
		switch at := found.of.path; {
		case found.of.key:
		case len(at) == 1 && isNumber(at[0], 1):
			out.value = found.value
		case len(at) == 2 && isNumber(at[0], 0):
			number, _ := at[1].Value.(ast.Number)
			i, ok := number.Int()
			if !ok || i < 0 || i > maxWalked {
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

// maxWalked is the longest path that is looked for.
const maxWalked = 64

func isNumber(t *ast.Term, n int) bool {
	number, ok := t.Value.(ast.Number)
	i, whole := number.Int()
	return ok && whole && i == n
}

// walker evaluates the conditions. It returns false if no node fulfils them. Values without a key are left to the body.
func (w *walked) walker(f *frame) (out walker, ok bool) {
	lookup := func(of read) (*ast.Term, bool) {
		v := of(f)
		if v == nil {
			return nil, false
		}
		if _, ok := key(v); !ok {
			return nil, true
		}
		return v, true
	}
	if w.value != nil {
		if out.value, ok = lookup(w.value); !ok {
			return out, false
		}
	}
	if len(w.path) > 0 {
		out.path = make([]*ast.Term, len(w.path))
	}
	for i, of := range w.path {
		if of == nil {
			continue
		}
		if out.path[i], ok = lookup(of); !ok {
			return out, false
		}
	}
	return out, true
}

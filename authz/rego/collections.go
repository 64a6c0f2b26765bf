package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// growing is an array that statements still append to. OPA's arrays are copied with each append.
type growing struct {
	*ast.Array
	items []*ast.Term
}

// finished returns the local, after an array in it is complete.
func finished(f *frame, i int) *ast.Term {
	t := f.locals[i]
	if t == nil {
		return nil
	}
	if g, ok := t.Value.(*growing); ok {
		t = ast.NewTerm(ast.NewArray(g.items...))
		f.locals[i] = t
	}
	return t
}

// emptySet is every set that nothing was added to. Most rules that collect objections find none.
var emptySet = ast.NewTerm(ast.NewSet())

// collection compiles statements that build arrays, objects and sets.
func (c *compiler) collection(s ir.Stmt) (out step, known bool) {
	switch s := s.(type) {
	case *ir.MakeArrayStmt:
		return c.makeArray(s), true
	case *ir.ArrayAppendStmt:
		value, to := c.operand(s.Value), c.useRead(s.Array)
		return func(f *frame) int { appendTo(f, to, value(f)); return next }, true
	case *ir.MakeObjectStmt:
		to := c.use(s.Target)
		return func(f *frame) int { f.locals[to] = ast.NewTerm(ast.NewObject()); return next }, true
	case *ir.ObjectInsertStmt:
		object, key, value := c.useRead(s.Object), c.operand(s.Key), c.operand(s.Value)
		return func(f *frame) int { f.locals[object] = put(f.locals[object], key(f), value(f)); return next }, true
	case *ir.ObjectInsertOnceStmt:
		return c.insertOnce(s), true
	case *ir.ObjectMergeStmt:
		a, b, to := c.local(s.A), c.local(s.B), c.use(s.Target)
		return func(f *frame) int { f.locals[to] = merge(a(f), b(f)); return next }, true
	case *ir.MakeSetStmt:
		to := c.use(s.Target)
		return func(f *frame) int { f.locals[to] = emptySet; return next }, true
	case *ir.SetAddStmt:
		set, value := c.useRead(s.Set), c.operand(s.Value)
		return func(f *frame) int {
			if f.locals[set] == emptySet {
				f.locals[set] = ast.NewTerm(ast.NewSet())
			}
			f.locals[set].Value.(ast.Set).Add(value(f))
			return next
		}, true
	}
	return nil, false
}

func (c *compiler) makeArray(s *ir.MakeArrayStmt) step {
	if !c.appended[s.Target] {
		return c.constant(s.Target, ast.ArrayTerm())
	}
	to, size := c.use(s.Target), s.Capacity
	return func(f *frame) int {
		f.locals[to] = ast.NewTerm(&growing{items: make([]*ast.Term, 0, size)})
		return next
	}
}

// appendTo appends to the array in a local.
func appendTo(f *frame, i int, v *ast.Term) {
	g, ok := f.locals[i].Value.(*growing)
	if !ok { // it was read before
		old := f.locals[i].Value.(*ast.Array)
		g = &growing{items: make([]*ast.Term, 0, old.Len()+1)}
		for j := range old.Len() {
			g.items = append(g.items, old.Elem(j))
		}
		f.locals[i] = ast.NewTerm(g)
	}
	g.items = append(g.items, v)
}

func (c *compiler) insertOnce(s *ir.ObjectInsertOnceStmt) step {
	object, key, value := c.useRead(s.Object), c.operand(s.Key), c.operand(s.Value)
	conflict := &topdown.Error{Code: topdown.ConflictErr, Location: c.location(&s.Location), Message: "object keys must be unique"}
	return func(f *frame) int {
		o, k, v := f.locals[object].Value.(ast.Object), key(f), value(f)
		if old := o.Get(k); old != nil {
			if !equal(old, v) {
				return f.fail(conflict)
			}
			return next
		}
		o.Insert(k, v)
		return next
	}
}

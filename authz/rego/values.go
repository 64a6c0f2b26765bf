package rego

import (
	"encoding/json"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/util"
)

type jsonNumber = json.Number

// read reads an operand. The result is nil if it is undefined.
type read func(f *frame) *ast.Term

// use makes room for a local.
func (c *compiler) use(l ir.Local) int {
	c.locals = max(c.locals, int(l)+1)
	return int(l)
}

// dynamic makes room for a local whose value is read at run time.
func (c *compiler) dynamic(l ir.Local) int {
	c.reading[c.place(l)] = true
	return c.use(l)
}

// place is a local of a rule. The locals of a rule are its own: another rule uses the same numbers for others.
type place struct {
	rule  int // its number; -1 for arguments and results, which all rules share
	local ir.Local
}

func (c *compiler) place(l ir.Local) place {
	if l <= c.shared {
		return place{-1, l}
	}
	return place{c.at, l}
}

// isRead reports whether the value of a local is read at run time.
func (c *compiler) isRead(l ir.Local) bool { return c.read == nil || c.read[c.place(l)] }

func (c *compiler) local(l ir.Local) read {
	if t := c.known[l].value; t != nil {
		return func(*frame) *ast.Term { return t }
	}
	if s := c.known[l].slot; s != nil {
		number := c.numberOf(s)
		return func(f *frame) *ast.Term { return f.slots[number] }
	}
	i := c.dynamic(l)
	if c.arrays[l] {
		return func(f *frame) *ast.Term { return finished(f, i) }
	}
	return func(f *frame) *ast.Term { return f.locals[i] }
}

func (c *compiler) operand(o ir.Operand) read {
	switch v := o.Value.(type) {
	case ir.Local:
		return c.local(v)
	case ir.StringIndex:
		term := c.strings[v]
		return func(*frame) *ast.Term { return term }
	case ir.Bool:
		term := ast.InternedTerm(bool(v))
		return func(*frame) *ast.Term { return term }
	}
	return func(*frame) *ast.Term { return nil }
}

// assignment compiles statements that give a local a value.
func (c *compiler) assignment(s ir.Stmt) (out step, known bool) {
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		if v := c.value(s.Source); v != nil {
			return c.constant(s.Target, v), true
		}
		if c.slotOf(s.Source) != nil && !c.isRead(s.Target) {
			return nil, true
		}
		source, to := c.operand(s.Source), c.use(s.Target)
		return func(f *frame) int { f.locals[to] = source(f); return next }, true
	case *ir.AssignVarOnceStmt:
		return c.assignOnce(s), true
	case *ir.ResetLocalStmt:
		return c.constant(s.Target, nil), true
	case *ir.MakeNullStmt, *ir.MakeNumberIntStmt, *ir.MakeNumberRefStmt, *ir.AssignIntStmt:
		return c.constant(targets(s)[0], c.scalar(s)), true
	}
	return nil, false
}

// constant compiles the assignment of a constant. It returns nil if nobody reads the local at run time.
func (c *compiler) constant(l ir.Local, value *ast.Term) step {
	if !c.isRead(l) {
		return nil
	}
	to := c.use(l)
	return func(f *frame) int { f.locals[to] = value; return next }
}

// assignOnce compiles the assignment of a rule's value. Two different ones are a conflict.
func (c *compiler) assignOnce(s *ir.AssignVarOnceStmt) step {
	source, to, conflict, end := c.operand(s.Source), c.dynamic(s.Target), c.conflict(s), c.exit(s)
	return func(f *frame) int {
		v := source(f)
		switch old := f.locals[to]; {
		case old == nil:
			f.locals[to] = v
		case !equal(old, v):
			return f.fail(conflict)
		} // of equal numbers such as 1 and 1.0, the first counts
		return end
	}
}

func equal(a, b *ast.Term) bool {
	return a == b || a != nil && b != nil && a.Value.Compare(b.Value) == 0
}

// condition compiles statements that are undefined if a condition does not hold.
func (c *compiler) condition(s ir.Stmt) (out step, known bool) {
	var holds func(f *frame) bool
	switch s := s.(type) {
	case *ir.EqualStmt:
		if a, b := c.value(s.A), c.value(s.B); a != nil && b != nil {
			return always(equal(a, b)), true
		}
		c.noteEqual(s)
		holds = equality(c.operand(s.A), c.operand(s.B), c.value(s.A), c.value(s.B))
	case *ir.NotEqualStmt:
		if a, b := c.value(s.A), c.value(s.B); a != nil && b != nil {
			return always(!equal(a, b)), true
		}
		a, b := c.operand(s.A), c.operand(s.B)
		holds = func(f *frame) bool { return !equal(a(f), b(f)) }
	case *ir.IsDefinedStmt:
		source := c.local(s.Source)
		holds = func(f *frame) bool { return source(f) != nil }
	case *ir.IsUndefinedStmt:
		source := c.local(s.Source)
		holds = func(f *frame) bool { return source(f) == nil }
	case *ir.IsArrayStmt:
		holds = isA[*ast.Array](c.operand(s.Source))
	case *ir.IsObjectStmt:
		holds = isA[ast.Object](c.operand(s.Source))
	case *ir.IsSetStmt:
		holds = isA[ast.Set](c.operand(s.Source))
	default:
		return nil, false
	}
	return func(f *frame) int {
		if holds(f) {
			return next
		}
		return undef
	}, true
}

// always compiles a condition whose truth is known.
func always(holds bool) step {
	if holds {
		return nil
	}
	return func(*frame) int { return undef }
}

// equality compares two operands, of which one may be known.
func equality(a, b read, knownA, knownB *ast.Term) func(f *frame) bool {
	if knownA != nil {
		a, knownB = b, knownA
	}
	if knownB == nil {
		return func(f *frame) bool { return equal(a(f), b(f)) }
	}
	if text, ok := knownB.Value.(ast.String); ok {
		return func(f *frame) bool {
			t := a(f)
			if t == nil {
				return false
			}
			s, ok := t.Value.(ast.String)
			return ok && s == text
		}
	}
	return func(f *frame) bool { return equal(a(f), knownB) }
}

func isA[T ast.Value](source read) func(f *frame) bool {
	return func(f *frame) bool {
		t := source(f)
		if t == nil {
			return false
		}
		_, ok := t.Value.(T)
		return ok
	}
}

// dot compiles the lookup of a member.
func (c *compiler) dot(s *ir.DotStmt, following ir.Stmt) step {
	if to := c.slotAfter(s); to != nil {
		return c.dotSlot(s, to, following)
	}
	// OPA's evaluator has an index of rules, which does not find base data under a name of another type.
	condition := c.truths[s.Target]
	if v := c.foldedDot(s); v != nil {
		if condition && member(c.value(s.Source), c.value(s.Key)) == nil {
			return func(f *frame) int { return f.fail(ErrUnsure) }
		}
		return c.constant(s.Target, v)
	}
	source, key, to := c.operand(s.Source), c.operand(s.Key), c.use(s.Target)
	if !c.isBase(s.Source) {
		return func(f *frame) int {
			v := member(source(f), key(f))
			f.locals[to] = v
			if v == nil {
				return undef
			}
			return next
		}
	}
	return func(f *frame) int {
		from, k := source(f), key(f)
		v := member(from, k)
		if v == nil {
			if v = stored(from, k); v != nil && (condition || f.locals[ir.Data] != f.program.data) {
				return f.fail(ErrUnsure) // whether this part of the data is replaced is not known here
			}
		}
		f.locals[to] = v
		if v == nil {
			return undef
		}
		return next
	}
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

func (c *compiler) length(s *ir.LenStmt) step {
	source, to := c.operand(s.Source), c.use(s.Target)
	return func(f *frame) int {
		t := source(f)
		if t == nil {
			return undef
		}
		switch v := t.Value.(type) {
		case *ast.Array:
			f.locals[to] = ast.InternedTerm(v.Len())
		case ast.Object:
			f.locals[to] = ast.InternedTerm(v.Len())
		case ast.Set:
			f.locals[to] = ast.InternedTerm(v.Len())
		default:
			return undef
		}
		return next
	}
}

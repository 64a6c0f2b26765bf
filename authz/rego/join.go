package rego

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// A loop that begins with a condition such as x.id == y, where x is a member of a collection and y comes from outside, only needs the
// members for which it holds. A table finds them. It is made at load if the collection is base data, and otherwise when one evaluation
// loops over the same collection a second time, as a join of two collections does. OPA's evaluator has something like it for
// comprehensions.

// join is the conditions with which the body of a loop begins. Only what nobody notices stands before them.
type join struct {
	number     int // among those that make tables in an evaluation
	conditions []condition
	tables     []table // by condition, nil if there is none; nil if the collection is not known
}

// condition is a comparison of a part of a member with a value from outside the loop.
type condition struct {
	of    memberPart
	value read
}

// memberPart is a part of each member of a collection.
type memberPart struct {
	key  bool // of its key, in place of its value
	path []*ast.Term
}

func (p memberPart) after(name *ast.Term) memberPart {
	return memberPart{p.key, append(p.path[:len(p.path):len(p.path)], name)}
}

func (p memberPart) of(k, v *ast.Term) *ast.Term {
	if p.key {
		return part(k, p.path)
	}
	return part(v, p.path)
}

// table has the members of a collection by a part of them.
type table map[ast.Value][]item

type item struct{ key, value *ast.Term }

// fewMembers are tried one after the other in about the time that a lookup takes.
const fewMembers = 8

// tableOf returns the members of a collection by a part of them. It returns nil if one of the parts has no key. A member without the
// part fulfils no condition on it.
func tableOf(t *ast.Term, of memberPart) table {
	out, whole := make(table), true
	each(t, func(k, v *ast.Term) int {
		p := of.of(k, v)
		if p == nil {
			whole = whole && !convertible(k, v, of)
			return next
		}
		name, ok := key(p)
		if !ok {
			whole = false
			return abort
		}
		out[name] = append(out[name], item{k, v})
		return next
	})
	if !whole {
		return nil
	}
	return out
}

// convertible reports whether base data may have a part under a name of another type: see stored.
func convertible(k, v *ast.Term, of memberPart) bool {
	if of.key {
		return false
	}
	for _, name := range of.path {
		w := member(v, name)
		if w == nil {
			return stored(v, name) != nil
		}
		v = w
	}
	return false
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

// size is the number of members of a collection.
func size(t *ast.Term) int {
	switch c := t.Value.(type) {
	case *ast.Array:
		return c.Len()
	case ast.Object:
		return c.Len()
	case ast.Set:
		return c.Len()
	}
	return 0
}

// joinOf returns the conditions with which the body of a loop begins, nil if there are none that a table is good for. What is known is
// what is known before the loop.
func (c *compiler) joinOf(s *ir.ScanStmt) *join {
	if c.options.noIndexes {
		return nil
	}
	j := &join{number: c.joins, conditions: c.conditions(s)}
	if len(j.conditions) == 0 {
		return nil
	}
	from := c.known[s.Source].value
	if from == nil {
		if c.counting {
			c.joins++
		}
		return j
	}
	if size(from) <= fewMembers || !c.counting {
		return nil
	}
	j.tables = make([]table, len(j.conditions))
	found := false
	for i := range j.conditions {
		j.tables[i] = c.table(from, j.conditions[i].of)
		found = found || j.tables[i] != nil
	}
	if !found {
		return nil
	}
	return j
}

// table returns the table of base data, which all loops over it share.
func (c *compiler) table(t *ast.Term, of memberPart) table {
	id := fmt.Sprintf("%p %v %v", t, of.key, of.path)
	out, ok := c.tables[id]
	if !ok {
		out = tableOf(t, of)
		c.tables[id] = out
	}
	return out
}

// prefix is what is known at a statement of the body of a loop before which nothing happens that can be noticed.
type prefix struct {
	*compiler
	members map[ir.Local]memberPart
	outside map[ir.Local]read // values that are the same for all members
	changed map[ir.Local]bool // locals that the body assigns somewhere
}

// conditions finds comparisons of a part of a member with a value from outside in the body of a loop.
func (c *compiler) conditions(s *ir.ScanStmt) (found []condition) {
	saved := c.known
	defer func() { c.known = saved }()
	p := prefix{c, map[ir.Local]memberPart{s.Key: {key: true}, s.Value: {}}, make(map[ir.Local]read), make(map[ir.Local]bool)}
	p.known = make(knowledge)
	for l, f := range saved {
		p.known[l] = f
	}
	p.known.forget(s)
	walkBlocks([]*ir.Block{{Stmts: []ir.Stmt{s}}}, func(s ir.Stmt) {
		for _, l := range targets(s) {
			p.changed[l] = true
		}
	})
	for _, s := range s.Block.Stmts {
		if equal, ok := s.(*ir.EqualStmt); ok {
			if f, ok := p.condition(equal); ok {
				found = append(found, f)
			}
			continue
		}
		if !p.follow(s) {
			break
		}
	}
	return found
}

func (p *prefix) condition(s *ir.EqualStmt) (condition, bool) {
	for _, side := range [][2]ir.Operand{{s.A, s.B}, {s.B, s.A}} {
		l, ok := side[0].Value.(ir.Local)
		if !ok {
			continue
		}
		if of, ok := p.members[l]; ok {
			if value := p.fromOutside(side[1]); value != nil {
				return condition{of, value}, true
			}
		}
	}
	return condition{}, false
}

// fromOutside reads an operand whose value is the same for all members. It is nil for others.
func (p *prefix) fromOutside(o ir.Operand) read {
	l, isLocal := o.Value.(ir.Local)
	switch {
	case p.value(o) != nil, p.slotOf(o) != nil:
		return p.operand(o)
	case !isLocal:
		return nil
	case p.outside[l] != nil:
		return p.outside[l]
	case p.changed[l]:
		return nil
	}
	return p.local(l)
}

// follow goes on behind a statement. It returns false if the statement may do something that can be noticed.
func (p *prefix) follow(s ir.Stmt) bool {
	var of memberPart
	var isMember bool
	var value read
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		of, isMember = p.memberPart(s.Source)
		if p.slotOf(s.Source) == nil {
			value = p.fromOutside(s.Source)
		}
	case *ir.DotStmt:
		name := p.value(s.Key)
		if of, isMember = p.memberPart(s.Source); isMember {
			isMember = name != nil
			if isMember {
				of = of.after(name)
			}
		} else if name == nil || p.isBase(s.Source) || p.slotAfter(s) != nil {
			break // a slot is read where it is compared: what it is in need not be built
		} else if from := p.fromOutside(s.Source); from != nil {
			value = func(f *frame) *ast.Term { return member(from(f), name) }
		}
	case *ir.CallStmt:
		if value = p.ruleOf(s); value == nil {
			return false
		}
	case *ir.NopStmt, *ir.NotEqualStmt, *ir.IsDefinedStmt, *ir.IsUndefinedStmt, *ir.IsArrayStmt, *ir.IsObjectStmt, *ir.IsSetStmt,
		*ir.ResetLocalStmt, *ir.AssignIntStmt, *ir.MakeNullStmt, *ir.MakeNumberIntStmt, *ir.MakeNumberRefStmt, *ir.LenStmt:
	default:
		return false
	}
	p.learn(s)
	for _, l := range targets(s) {
		delete(p.members, l)
		delete(p.outside, l)
		if isMember {
			p.members[l] = of
		}
		if value != nil {
			p.outside[l] = value
		}
	}
	return true
}

// memberPart returns the part of a member that an operand is.
func (p *prefix) memberPart(o ir.Operand) (memberPart, bool) {
	l, ok := o.Value.(ir.Local)
	if !ok {
		return memberPart{}, false
	}
	of, ok := p.members[l]
	return of, ok
}

// ruleOf reads the value of a rule without arguments, which is the same for all members. To evaluate it before the first member needs
// it may fail for nothing: then the evaluation is one of which the caller is not sure. It returns nil for other calls.
func (p *prefix) ruleOf(s *ir.CallStmt) read {
	number, ok := p.numbers[s.Func]
	if !ok || len(s.Args) > implicit {
		return nil
	}
	fn, args := p.funcs[number], [2]read{p.inputArgument(s.Args[0]), p.operand(s.Args[1])}
	return func(f *frame) *ast.Term { return fn.apply(f.run, []*ast.Term{args[0](f), args[1](f)}) }
}

// candidates returns the members for which the conditions may hold, and false if there is no table to tell.
func (j *join) candidates(f *frame, from *ast.Term) (best []item, ok bool) {
	tables := j.tables
	if tables == nil {
		if tables = f.tables(j, from); tables == nil {
			return nil, false
		}
	}
	for i := range j.conditions {
		if tables[i] == nil {
			continue
		}
		v := j.conditions[i].value(f)
		if v == nil {
			return nil, true // the comparison is undefined for every member
		}
		k, hasKey := key(v)
		if !hasKey {
			continue
		}
		if list := tables[i][k]; !ok || len(list) < len(best) {
			best, ok = list, true
		}
	}
	return best, ok
}

// joined is what an evaluation knows about a loop.
type joined struct {
	from   *ast.Term // the collection of the last time
	tables []table   // nil the first time
}

// tables returns the tables of a collection the second time that an evaluation loops over it, and nil the first time.
func (r *run) tables(j *join, from *ast.Term) []table {
	if size(from) <= fewMembers {
		return nil
	}
	if r.joins == nil {
		r.joins = make([]joined, r.program.joins)
	}
	known := &r.joins[j.number]
	if known.from != from {
		*known = joined{from: from}
		return nil
	}
	if known.tables == nil {
		known.tables = make([]table, len(j.conditions))
		for i := range j.conditions {
			known.tables[i] = tableOf(from, j.conditions[i].of)
		}
	}
	return known.tables
}

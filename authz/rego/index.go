package rego

import (
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// Of a thousand rules that each begin with input.x == "…", at most a few can hold. A plan tries them one after the other. The compiler
// puts them behind an index instead, as OPA's evaluator does: it looks the value up, and runs the rules that it may be right for.
//
// The order of rules then differs from the plan. It matters to no value, because all rules of a name give the same one, or add to it.

// guard is a condition of a rule: a value is one of some constants. A rule changes its result after all of its conditions, so it does
// nothing if one of them does not hold.
type guard struct {
	id       string // of the value
	value    read
	accepted []ast.Value // keys
}

// origin is an argument of a function, a part of one, or a part of a slot.
type origin struct {
	argument ir.Local
	slot     *slot // not nil: instead of the argument
	path     []*ast.Term
}

// after returns the part with that name.
func (o *origin) after(name *ast.Term) *origin {
	return &origin{o.argument, o.slot, append(o.path[:len(o.path):len(o.path)], name)}
}

// originOf returns the argument, or the part of one, that an operand is, nil for others.
func (c *compiler) originOf(o ir.Operand) *origin {
	if l, ok := o.Value.(ir.Local); ok {
		return c.known[l].origin
	}
	return nil
}

// originAfter returns the part of an argument that a statement looks up, or the part of a slot that is no slot. It is nil for others.
func (c *compiler) originAfter(s *ir.DotStmt) *origin {
	from, name := c.originOf(s.Source), c.value(s.Key)
	if in := c.slotOf(s.Source); in != nil && c.slotAfter(s) == nil {
		from = &origin{slot: in}
	}
	if from == nil || name == nil {
		return nil
	}
	return from.after(name)
}

// reader returns a name for a value that is known when a function is called, and its reader. The reader is nil for other values.
func (c *compiler) reader(known fact) (id string, value read) {
	s, o := known.slot, known.origin
	if s == nil && o == nil {
		return "", nil
	}
	var path []*ast.Term
	if s == nil {
		s, path = o.slot, o.path
	}
	if s == nil {
		argument := o.argument
		return fmt.Sprint(argument, path), func(f *frame) *ast.Term { return part(f.locals[argument], path) }
	}
	number := c.numberOf(s)
	return fmt.Sprint("slot ", number, path), func(f *frame) *ast.Term { return part(f.slots[number], path) }
}

// part returns a part of a value, nil if there is none.
func part(t *ast.Term, path []*ast.Term) *ast.Term {
	for _, name := range path {
		t = member(t, name)
	}
	return t
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

// noteEqual notes the guard that a comparison is.
func (c *compiler) noteEqual(s *ir.EqualStmt) {
	if v := c.value(s.B); v != nil {
		c.note(s.A, v)
	} else if v := c.value(s.A); v != nil {
		c.note(s.B, v)
	}
}

// noteMember notes the guard that x in {constants} is, which a plan expresses by a call and a comparison of its result.
func (c *compiler) noteMember(s *ir.CallStmt, following ir.Stmt) {
	test, ok := following.(*ir.NotEqualStmt)
	if !ok || s.Func != "internal.member_2" || test.A.Value != s.Result || test.B.Value != ir.Bool(false) {
		return
	}
	collection := c.value(s.Args[1])
	if collection == nil {
		return
	}
	switch v := collection.Value.(type) {
	case ast.Set:
		c.note(s.Args[0], v.Slice()...)
	case *ast.Array:
		items := make([]*ast.Term, v.Len())
		for i := range items {
			items[i] = v.Elem(i)
		}
		c.note(s.Args[0], items...)
	}
}

// note notes a guard, if the condition is a statement of a rule itself, and if its value is known when the function is called.
func (c *compiler) note(o ir.Operand, constants ...*ast.Term) {
	l, ok := o.Value.(ir.Local)
	if !ok || c.depth != ruleDepth {
		return
	}
	var g guard
	if g.id, g.value = c.reader(c.known[l]); g.value == nil {
		return
	}
	for _, t := range constants {
		k, ok := key(t)
		if !ok {
			return
		}
		if !slices.Contains(g.accepted, k) {
			g.accepted = append(g.accepted, k)
		}
	}
	if !slices.ContainsFunc(c.guards, func(other guard) bool { return other.id == g.id }) {
		c.guards = append(c.guards, g)
	}
}

// rule is the blocks of one rule, and its guards.
type rule struct {
	blocks []block
	guards []guard
}

// indexed returns the blocks of a function with its rules behind indexes. A rule is a block that begins by resetting its value, and
// the block after it that makes the value the function's. Other blocks begin or end the function, or are rules with else.
func indexed(plan []*ir.Block, blocks []block, guards [][]guard) []block {
	out, rules := make([]block, 0, len(blocks)), []rule(nil)
	flush := func() {
		out = append(out, index(rules, 0)...)
		rules = nil
	}
	for i, b := range plan {
		var first ir.Stmt
		if len(b.Stmts) > 0 {
			first = b.Stmts[0]
		}
		switch first.(type) {
		case *ir.ResetLocalStmt:
			rules = append(rules, rule{blocks[i : i+1], guards[i]})
			continue
		case *ir.IsDefinedStmt:
			if n := len(rules); n > 0 {
				last := &rules[n-1]
				last.blocks = blocks[i-len(last.blocks) : i+1]
				continue
			}
		}
		flush()
		out = append(out, blocks[i])
	}
	flush()
	return out
}

const (
	fewRules   = 6 // as many rules are tried in the time of a lookup
	maxIndexes = 3 // one inside another
	// maxAccepted bounds the size of an index: a rule with x in {…} is in it once for each constant.
	maxAccepted = 8 // times the number of rules
)

// ruleIndex finds rules by the value of which they have a guard.
type ruleIndex struct {
	value read
	rules map[ast.Value][]block
	rest  []block // rules without a guard
	all   []block // for values without a key
}

// index returns blocks that run those rules that can hold.
func index(rules []rule, depth int) []block {
	var all []block
	for i := range rules {
		all = append(all, rules[i].blocks...)
	}
	g := selective(rules)
	if g == nil || depth == maxIndexes {
		return all
	}
	var rest []rule
	byKey := make(map[ast.Value][]rule)
	for _, r := range rules {
		at := slices.IndexFunc(r.guards, func(other guard) bool { return other.id == g.id })
		if at < 0 {
			rest = append(rest, r)
			continue
		}
		others := slices.Delete(slices.Clone(r.guards), at, at+1)
		for _, k := range r.guards[at].accepted {
			byKey[k] = append(byKey[k], rule{r.blocks, others})
		}
	}
	x := &ruleIndex{value: g.value, rules: make(map[ast.Value][]block, len(byKey)), rest: index(rest, depth), all: all}
	for k, some := range byKey {
		x.rules[k] = index(some, depth+1)
	}
	return []block{{x.run}}
}

// selective returns the guard that leaves the fewest rules to try, nil if none is worth an index.
func selective(rules []rule) *guard {
	type count struct {
		guard           *guard
		rules, accepted int
		values          map[ast.Value]bool
	}
	counts := make(map[string]*count)
	var best *count
	for i := range rules {
		for j := range rules[i].guards {
			g := &rules[i].guards[j]
			n := counts[g.id]
			if n == nil {
				n = &count{guard: g, values: make(map[ast.Value]bool)}
				counts[g.id] = n
			}
			n.rules++
			n.accepted += len(g.accepted)
			for _, k := range g.accepted {
				n.values[k] = true
			}
		}
	}
	// tried is about how many rules are tried for a value.
	tried := func(n *count) int { return len(rules) - n.rules + n.accepted/len(n.values) }
	for _, n := range counts {
		if len(n.values) == 0 || n.rules < fewRules || n.accepted > maxAccepted*len(rules) || tried(n) > len(rules)*3/4 {
			continue
		}
		if best == nil || tried(n) < tried(best) || tried(n) == tried(best) && n.guard.id < best.guard.id {
			best = n
		}
	}
	if best == nil {
		return nil
	}
	return best.guard
}

// run runs the rules that can hold. A guard does not hold if its value is undefined.
func (x *ruleIndex) run(f *frame) int {
	if v := x.value(f); v != nil {
		k, ok := key(v)
		if !ok {
			return runAll(x.all, f)
		}
		if end := runAll(x.rules[k], f); end != next {
			return end
		}
	}
	return runAll(x.rest, f)
}

// runAll runs blocks of a function, until one ends the function.
func runAll(blocks []block, f *frame) int {
	for _, b := range blocks {
		if end := b.run(f); end >= abort {
			return end
		}
	}
	return next
}

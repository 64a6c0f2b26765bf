package rego

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// guard is a condition of a rule: a value passes a test with one of some constants. A rule changes its result after all of its
// conditions, so it does nothing if one of them does not hold.
type guard struct {
	id       string // of the value and the test
	value    read
	test     test
	accepted []ast.Value // keys
}

// test is how a value is compared with a constant.
type test struct {
	kind testKind
	// For hasSegment: the value is cut at a delimiter, and the segment with this number is the constant.
	delimiter byte
	segment   int
}

type testKind int

const (
	equals testKind = iota
	begins
	ends
	hasSegment
)

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

// noteEqual notes the guard that a comparison is.
func (c *compiler) noteEqual(s *ir.EqualStmt) {
	if v := c.value(s.B); v != nil {
		c.note(s.A, test{}, v)
	} else if v := c.value(s.A); v != nil {
		c.note(s.B, test{}, v)
	}
}

// noteCall notes the guards that the call of a function is, whose result the following statement requires.
func (c *compiler) noteCall(s *ir.CallStmt, following ir.Stmt) {
	required, ok := following.(*ir.NotEqualStmt)
	if !ok || c.depth != ruleDepth || required.A.Value != s.Result || required.B.Value != ir.Bool(false) {
		return
	}
	switch s.Func {
	case ast.Member.Name:
		c.noteMember(s)
	case ast.StartsWith.Name:
		c.noteText(s.Args[0], test{kind: begins}, c.value(s.Args[1]))
	case ast.EndsWith.Name:
		c.noteText(s.Args[0], test{kind: ends}, c.value(s.Args[1]))
	case ast.GlobMatch.Name:
		c.noteGlob(s)
	}
}

// noteMember notes the guard that x in {constants} is.
func (c *compiler) noteMember(s *ir.CallStmt) {
	collection := c.value(s.Args[1])
	if collection == nil || size(collection) > maxConstants {
		return
	}
	var items []*ast.Term
	switch collection.Value.(type) {
	case ast.Set, *ast.Array:
		each(collection, func(_, v *ast.Term) int { items = append(items, v); return next })
		c.note(s.Args[0], test{}, items...)
	}
}

// maxConstants is the number of constants that are worth an index.
const maxConstants = 256

// noteText notes the guard that a value begins or ends with a constant, unless all texts do.
func (c *compiler) noteText(o ir.Operand, t test, constant *ast.Term) {
	if constant == nil {
		return
	}
	if s, ok := constant.Value.(ast.String); ok && s != "" {
		c.note(o, t, constant)
	}
}

// noteGlob notes what each text has in common that a glob matches: how it begins and ends, and segments between delimiters.
func (c *compiler) noteGlob(s *ir.CallStmt) {
	pattern, delimiters := c.value(s.Args[0]), c.value(s.Args[1])
	if pattern == nil || !isGlob(pattern, delimiters) {
		return
	}
	text := string(pattern.Value.(ast.String))
	const special = `*?[]{}\!,`
	if i := strings.IndexAny(text, special); i > 0 {
		c.note(s.Args[2], test{kind: begins}, ast.StringTerm(text[:i]))
	}
	if i := strings.LastIndexAny(text, special); i >= 0 && i+1 < len(text) {
		c.note(s.Args[2], test{kind: ends}, ast.StringTerm(text[i+1:]))
	}
	separators, _ := delimitersOf(delimiters)
	if len(separators) != 1 || separators[0] >= utf8.RuneSelf {
		return
	}
	for i, segment := range strings.Split(text, string(separators)) {
		switch {
		case strings.Contains(segment, "**"), strings.ContainsAny(segment, `[]{}\!,`):
			return // it may stand for several segments
		case segment != "" && !strings.ContainsAny(segment, special):
			c.note(s.Args[2], test{hasSegment, byte(separators[0]), i}, ast.StringTerm(segment))
		}
	}
}

// note notes a guard, if the condition is a statement of a rule itself, and if its value is known when the function is called.
func (c *compiler) note(o ir.Operand, t test, constants ...*ast.Term) {
	l, ok := o.Value.(ir.Local)
	if !ok || c.depth != ruleDepth {
		return
	}
	g := guard{test: t}
	if g.id, g.value = c.reader(c.known[l]); g.value == nil {
		return
	}
	g.id = fmt.Sprint(g.id, t)
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

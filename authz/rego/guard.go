package rego

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// guard is a condition of a rule: a test of a value accepts one of some constants. A rule does nothing before all of its conditions hold,
// so it can be left out if one does not.
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
	has // the value is a collection, and the constant a member
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

// originAfter returns the part of an argument that a statement looks up, or the part of a slot that is no slot. It is nil for others.
func (c *compiler) originAfter(s *ir.DotStmt) *origin {
	from, name := c.factOf(s.Source).origin, c.value(s.Key)
	if in := c.factOf(s.Source).slot; in != nil && c.slotAfter(s) == nil {
		from = &origin{slot: in}
	}
	if from == nil || name == nil {
		return nil
	}
	return from.after(name)
}

// reader reads a value that is there when a function is called: a slot, an argument, or a part of one. The id is the same for the same
// value. The reader is nil for other values.
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

// note notes a guard if the condition is a statement of the rule itself, not of a block inside it, and if its value has a reader.
func (c *compiler) note(o ir.Operand, t test, constants ...*ast.Term) {
	if c.depth != ruleDepth {
		return
	}
	g := guard{test: t}
	if g.id, g.value = c.reader(c.factOf(o)); g.value == nil {
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
	case ast.StartsWith.Name, ast.AnyPrefixMatch.Name:
		c.noteTexts(s.Args[0], test{kind: begins}, c.value(s.Args[1]))
	case ast.EndsWith.Name, ast.AnySuffixMatch.Name:
		c.noteTexts(s.Args[0], test{kind: ends}, c.value(s.Args[1]))
	case ast.GlobMatch.Name:
		c.noteGlob(s)
	}
}

// noteMember notes the guards that x in {constants} and constant in x are.
func (c *compiler) noteMember(s *ir.CallStmt) {
	if v := c.value(s.Args[0]); v != nil {
		c.note(s.Args[1], test{kind: has}, v)
	} else if list, ok := constantsIn(c.value(s.Args[1])); ok {
		c.note(s.Args[0], test{}, list...)
	}
}

// constantsIn returns the members of a constant array or set, and false for other values and for more members than are worth an index.
func constantsIn(t *ast.Term) (out []*ast.Term, ok bool) {
	const most = 256
	if n, _ := size(t); n > most || !isList(t) {
		return nil, false
	}
	each(t, func(_, v *ast.Term) int { out = append(out, v); return next })
	return out, true
}

func isList(t *ast.Term) bool {
	if t == nil {
		return false
	}
	switch t.Value.(type) {
	case ast.Set, *ast.Array:
		return true
	}
	return false
}

// noteTexts notes the guard that a value begins or ends with a constant or with one of several, unless all texts do.
func (c *compiler) noteTexts(o ir.Operand, t test, constant *ast.Term) {
	list, several := constantsIn(constant)
	if !several && constant != nil {
		list = []*ast.Term{constant}
	}
	for _, one := range list {
		if s, ok := one.Value.(ast.String); !ok || s == "" {
			return
		}
	}
	if several || constant != nil {
		c.note(o, t, list...)
	}
}

// noteScan notes the guard that the last statement of a rule is, if it is a loop whose body begins by comparing a member with a constant.
func (c *compiler) noteScan(s *ir.ScanStmt) {
	members := map[ir.Local]bool{s.Value: true}
	isMember := func(o ir.Operand) bool { l, ok := o.Value.(ir.Local); return ok && members[l] }
	for _, first := range s.Block.Stmts {
		switch first := first.(type) {
		case *ir.NopStmt:
		case *ir.AssignVarStmt:
			members[first.Target] = isMember(first.Source)
		case *ir.EqualStmt:
			if v := c.text(first.B); v != nil && isMember(first.A) {
				c.note(ir.Operand{Value: s.Source}, test{kind: has}, v)
			} else if v := c.text(first.A); v != nil && isMember(first.B) {
				c.note(ir.Operand{Value: s.Source}, test{kind: has}, v)
			}
			return
		default:
			return
		}
	}
}

// text returns an operand that is a constant text, nil for others.
func (c *compiler) text(o ir.Operand) *ast.Term {
	if i, ok := o.Value.(ir.StringIndex); ok {
		return c.strings[i]
	}
	return nil
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

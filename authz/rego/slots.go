package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// slot is a part of the input that statements refer to by constant names, such as input.key.status. Statements read it by its
// number, so the input need not be built as a document.
type slot struct {
	path   []string
	number int // -1 until a statement reads it
	next   map[string]*slot
}

func newSlot(path []string) *slot { return &slot{path: path, number: -1, next: make(map[string]*slot)} }

// after returns the part with that name.
func (s *slot) after(name string) *slot {
	if s.next[name] == nil {
		s.next[name] = newSlot(append(s.path[:len(s.path):len(s.path)], name))
	}
	return s.next[name]
}

// numberOf gives a slot a number, by which it is read.
func (c *compiler) numberOf(s *slot) int {
	if s.number < 0 && c.final {
		s.number = len(c.slots)
		c.slots = append(c.slots, s.path)
	}
	return s.number
}

// slotAfter returns the part of the input that a statement looks up, nil for others.
func (c *compiler) slotAfter(s *ir.DotStmt) *slot {
	from, key := c.factOf(s.Source).slot, c.value(s.Key)
	if from == nil || key == nil {
		return nil
	}
	if name, ok := key.Value.(ast.String); ok {
		return from.after(string(name))
	}
	return nil
}

// dotSlot compiles the lookup of a part of the input. If the next statement looks further into it, that one finds out whether it
// exists.
func (c *compiler) dotSlot(s *ir.DotStmt, to *slot, following ir.Stmt) step {
	stored := c.isRead(s.Target)
	if d, ok := following.(*ir.DotStmt); ok && !stored && c.value(d.Key) != nil {
		if l, isLocal := d.Source.Value.(ir.Local); isLocal && l == s.Target {
			if _, isName := c.value(d.Key).Value.(ast.String); isName {
				return nil
			}
		}
	}
	number, target := c.numberOf(to), c.use(s.Target)
	if !stored {
		return func(f *frame) int {
			if f.slots[number] == nil {
				return undef
			}
			return next
		}
	}
	return func(f *frame) int { return f.set(target, f.slots[number]) }
}

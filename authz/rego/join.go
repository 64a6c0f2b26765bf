package rego

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// A loop that begins with a comparison such as x.id == y, where x is a member of a collection and y comes from outside, only needs the
// members for which it holds. A table finds them. It is made at load if the collection is base data, and otherwise when one evaluation
// loops over the same collection a second time, as a join of two collections does. OPA's evaluator has something like it for
// comprehensions.

// join looks up the members that a loop needs, by the comparisons with which its body begins: see prefix.
type join struct {
	number      int // among those that make tables in an evaluation
	comparisons []comparison
	tables      []table // by comparison, nil if there is none; nil if the collection is not known at load
}

// comparison is that of a part of a member with a value from outside the loop.
type comparison struct {
	part  memberPart
	value read
}

// table has the members of a collection by the key of a part of them.
type table map[ast.Value][]entry

// entry is a member of a collection: a field of an object, or an item of an array and its position.
type entry struct{ key, value *ast.Term }

// isFew reports whether the members are tried one after the other in about the time that a lookup takes.
func isFew(from *ast.Term) bool {
	const few = 8
	n, _ := size(from)
	return n <= few
}

// newJoin returns the join of a loop, nil if no table helps it. What is known is what is known before the loop.
func (c *compiler) newJoin(s *ir.ScanStmt) *join {
	if c.options.noIndexes {
		return nil
	}
	j := &join{number: c.joins, comparisons: c.comparisons(s)}
	if len(j.comparisons) == 0 {
		return nil
	}
	from := c.known[s.Source].value
	if from == nil {
		if c.final {
			c.joins++
		}
		return j
	}
	if isFew(from) || !c.final {
		return nil
	}
	j.tables = make([]table, len(j.comparisons))
	found := false
	for i := range j.comparisons {
		j.tables[i] = c.table(from, j.comparisons[i].part)
		found = found || j.tables[i] != nil
	}
	if !found {
		return nil
	}
	return j
}

// table returns the table of base data, which all loops over it share.
func (c *compiler) table(t *ast.Term, part memberPart) table {
	id := fmt.Sprintf("%p %v %v", t, part.key, part.path)
	out, ok := c.tables[id]
	if !ok {
		out = newTable(t, part)
		c.tables[id] = out
	}
	return out
}

// newTable returns the table of a collection, nil if a part has no key. A member without the part is equal to nothing, so it is left out.
func newTable(t *ast.Term, part memberPart) table {
	out, whole := make(table), true
	each(t, func(k, v *ast.Term) int {
		p := part.in(k, v)
		if p == nil {
			whole = whole && !convertible(k, v, part)
			return next
		}
		id, ok := key(p)
		if !ok {
			whole = false
			return abort
		}
		out[id] = append(out[id], entry{k, v})
		return next
	})
	if !whole {
		return nil
	}
	return out
}

// convertible reports whether base data may have a part under a name of another type: see stored.
func convertible(k, v *ast.Term, part memberPart) bool {
	if part.key {
		return false
	}
	for _, name := range part.path {
		w := member(v, name)
		if w == nil {
			return stored(v, name) != nil
		}
		v = w
	}
	return false
}

// candidates returns the members for which the comparisons may hold, and false if there is no table to tell.
func (j *join) candidates(f *frame, from *ast.Term) (best []entry, ok bool) {
	tables := j.tables
	if tables == nil {
		if tables = f.tables(j, from); tables == nil {
			return nil, false
		}
	}
	for i := range j.comparisons {
		if tables[i] == nil {
			continue
		}
		v := j.comparisons[i].value(f)
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

// joinState is what an evaluation knows about a loop.
type joinState struct {
	from   *ast.Term // the collection of the last time
	tables []table   // nil the first time
}

// tables returns the tables of a collection the second time that an evaluation loops over it, and nil the first time.
func (r *run) tables(j *join, from *ast.Term) []table {
	if isFew(from) {
		return nil
	}
	if r.joins == nil {
		r.joins = make([]joinState, r.program.joins)
	}
	known := &r.joins[j.number]
	if known.from != from {
		*known = joinState{from: from}
		return nil
	}
	if known.tables == nil {
		known.tables = make([]table, len(j.comparisons))
		for i := range j.comparisons {
			known.tables[i] = newTable(from, j.comparisons[i].part)
		}
	}
	return known.tables
}

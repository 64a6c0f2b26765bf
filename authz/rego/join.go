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

// table has the members of a collection by a part of them.
type table map[ast.Value][]item

type item struct{ key, value *ast.Term }

// fewMembers are tried one after the other in about the time that a lookup takes.
const fewMembers = 8

// newJoin returns the conditions with which the body of a loop begins, nil if there are none that a table is good for. What is known is
// what is known before the loop.
func (c *compiler) newJoin(s *ir.ScanStmt) *join {
	if c.options.noIndexes {
		return nil
	}
	j := &join{number: c.joins, conditions: c.conditions(s)}
	if len(j.conditions) == 0 {
		return nil
	}
	from := c.known[s.Source].value
	if from == nil {
		if c.final {
			c.joins++
		}
		return j
	}
	if size(from) <= fewMembers || !c.final {
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
		out = newTable(t, of)
		c.tables[id] = out
	}
	return out
}

// newTable returns the members of a collection by a part of them. It returns nil if one of the parts has no key. A member without the
// part fulfils no condition on it.
func newTable(t *ast.Term, of memberPart) table {
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

// joinState is what an evaluation knows about a loop.
type joinState struct {
	from   *ast.Term // the collection of the last time
	tables []table   // nil the first time
}

// tables returns the tables of a collection the second time that an evaluation loops over it, and nil the first time.
func (r *run) tables(j *join, from *ast.Term) []table {
	if size(from) <= fewMembers {
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
		known.tables = make([]table, len(j.conditions))
		for i := range j.conditions {
			known.tables[i] = newTable(from, j.conditions[i].of)
		}
	}
	return known.tables
}

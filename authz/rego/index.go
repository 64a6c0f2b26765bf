package rego

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// Of a thousand rules that each begin with input.x == "…", at most a few can hold. A plan tries them one after the other. The compiler
// puts them behind an index instead, as OPA's evaluator does: the index looks up the value, and only the rules that it finds run. They
// run in the order of the plan, because of equal values such as 1 and 1.0 the first one counts.

// rule is one rule of a function: its blocks and its guards.
type rule struct {
	blocks []block
	guards []guard
}

// indexed returns the blocks of a function with its rules behind indexes. A rule is a block that begins by resetting its value, and
// the block after it that makes the value the function's. Other blocks begin or end the function, or are rules with else.
func indexed(plan []*ir.Block, blocks []block, guards [][]guard) []block {
	out, rules := make([]block, 0, len(blocks)), []rule(nil)
	flush := func() {
		out = append(out, behindIndex(rules)...)
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

// index finds rules by a value for which they have a guard. A nil index finds none.
type index struct {
	all []int // the numbers of all its rules, ascending

	value   read // what the guards test; nil: all rules are tried
	test    test
	texts   map[string]*index    // by the text that the value is compared with
	others  map[ast.Value]*index // by another constant
	lengths []int                // of the texts, for begins and ends
	rest    *index               // of the rules without such a guard
}

// behindIndex returns blocks that run those rules that can hold.
func behindIndex(rules []rule) (out []block) {
	numbers, blocks := make([]int, len(rules)), make([][]block, len(rules))
	for i := range rules {
		numbers[i], blocks[i] = i, rules[i].blocks
		out = append(out, rules[i].blocks...)
	}
	x := newIndex(rules, numbers, 0)
	if x == nil || x.value == nil {
		return out
	}
	run := func(f *frame) int {
		begin := len(f.tried)
		f.tried = x.find(f, f.tried)
		found, end := f.tried[begin:], next
		slices.Sort(found)
		for _, n := range slices.Compact(found) {
			if end = runAll(blocks[n], f); end != next {
				break
			}
		}
		f.tried = f.tried[:begin]
		return end
	}
	return []block{{run}}
}

// newIndex returns an index of some of the rules.
func newIndex(rules []rule, numbers []int, depth int) *index {
	if len(numbers) == 0 {
		return nil
	}
	x := &index{all: numbers}
	g := selective(rules, numbers)
	if g == nil || depth == maxIndexes {
		return x
	}
	var rest []int
	byKey := make(map[ast.Value][]int)
	without := slices.Clone(rules)
	for _, n := range numbers {
		at := slices.IndexFunc(rules[n].guards, func(other guard) bool { return other.id == g.id })
		if at < 0 {
			rest = append(rest, n)
			continue
		}
		without[n].guards = slices.Delete(slices.Clone(rules[n].guards), at, at+1)
		for _, k := range rules[n].guards[at].accepted {
			byKey[k] = append(byKey[k], n)
		}
	}
	x.value, x.test, x.rest = g.value, g.test, newIndex(rules, rest, depth)
	x.texts, x.others = make(map[string]*index, len(byKey)), make(map[ast.Value]*index)
	for k, some := range byKey {
		x.add(k, newIndex(without, some, depth+1))
	}
	slices.Sort(x.lengths)
	return x
}

func (x *index) add(k ast.Value, rules *index) {
	text, ok := k.(ast.String)
	if !ok {
		x.others[k] = rules
		return
	}
	x.texts[string(text)] = rules
	if !slices.Contains(x.lengths, len(text)) {
		x.lengths = append(x.lengths, len(text))
	}
}

// selective returns the guard that leaves the fewest rules to try, nil if none is worth an index.
func selective(rules []rule, numbers []int) *guard {
	type count struct {
		guard           *guard
		rules, accepted int
		values          map[ast.Value]bool
	}
	counts := make(map[string]*count)
	var best *count
	for _, i := range numbers {
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
	tried := func(n *count) int { return len(numbers) - n.rules + n.accepted/len(n.values) }
	for _, n := range counts {
		if len(n.values) == 0 || n.rules < fewRules || n.accepted > maxAccepted*len(numbers) || tried(n) > len(numbers)*3/4 {
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

// find appends the numbers of rules that can hold. A guard does not hold if its value is undefined.
func (x *index) find(f *frame, found []int) []int {
	if x == nil {
		return found
	}
	if x.value == nil {
		return append(found, x.all...)
	}
	v := x.value(f)
	if v == nil {
		return x.rest.find(f, found)
	}
	if x.test.kind == has {
		return x.findMembers(f, v, found)
	}
	if text, ok := v.Value.(ast.String); ok {
		return x.rest.find(f, x.findText(f, string(text), found))
	}
	k, ok := key(v)
	if !ok || x.test.kind != equals { // the functions of the other tests fail
		return append(found, x.all...)
	}
	return x.rest.find(f, x.others[k].find(f, found))
}

// findText appends the numbers of the rules whose guard holds for a text.
func (x *index) findText(f *frame, text string, found []int) []int {
	switch x.test.kind {
	case equals:
		return x.texts[text].find(f, found)
	case hasSegment:
		segment, ok := segmentOf(text, x.test.delimiter, x.test.segment)
		if !ok {
			return found
		}
		return x.texts[segment].find(f, found)
	}
	for _, n := range x.lengths {
		if n > len(text) {
			break
		}
		piece := text[:n]
		if x.test.kind == ends {
			piece = text[len(text)-n:]
		}
		found = x.texts[piece].find(f, found)
	}
	return found
}

// findMembers appends the numbers of the rules whose guard holds for a member of a collection. A number may come several times.
func (x *index) findMembers(f *frame, v *ast.Term, found []int) []int {
	begin, most := len(found), 2*len(x.all)
	known := each(v, func(_, m *ast.Term) int {
		switch m := m.Value.(type) {
		case *ast.Array, ast.Object, ast.Set: // equal to no constant of a guard
			return next
		case ast.String:
			found = x.texts[string(m)].find(f, found)
		default:
			k, ok := key(ast.NewTerm(m))
			if !ok {
				return abort
			}
			found = x.others[k].find(f, found)
		}
		if len(found)-begin > most {
			return abort
		}
		return next
	})
	if known != next {
		return append(found[:begin], x.all...)
	}
	return x.rest.find(f, found)
}

// segmentOf returns a segment of a text that is cut at a delimiter, and false if it has fewer.
func segmentOf(text string, delimiter byte, number int) (string, bool) {
	for {
		i := strings.IndexByte(text, delimiter)
		switch {
		case number == 0 && i < 0:
			return text, true
		case number == 0:
			return text[:i], true
		case i < 0:
			return "", false
		}
		text, number = text[i+1:], number-1
	}
}

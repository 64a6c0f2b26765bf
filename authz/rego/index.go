package rego

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// Of a thousand rules that each begin with input.x == "…", at most a few can hold. A plan tries them one after the other. The compiler
// puts them behind an index instead, as OPA's evaluator does: it looks the value up, and runs the rules that it may be right for.
//
// The order of rules then differs from the plan. It matters to no value, because all rules of a name give the same one, or add to it.

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

// ruleIndex finds rules by a value for which they have a guard.
type ruleIndex struct {
	value   read
	test    test
	texts   map[string][]block    // by the text that the value is compared with
	others  map[ast.Value][]block // by another constant
	lengths []int                 // of the texts, for begins and ends
	rest    []block               // rules without a guard
	all     []block               // for values that cannot be looked up
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
	x := &ruleIndex{
		value: g.value, test: g.test, texts: make(map[string][]block, len(byKey)), others: make(map[ast.Value][]block),
		rest: index(rest, depth), all: all,
	}
	for k, some := range byKey {
		x.add(k, index(some, depth+1))
	}
	slices.Sort(x.lengths)
	return []block{{x.run}}
}

func (x *ruleIndex) add(k ast.Value, rules []block) {
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
	v := x.value(f)
	if v == nil {
		return runAll(x.rest, f)
	}
	text, isText := v.Value.(ast.String)
	end := next
	switch {
	case isText:
		end = x.runText(f, string(text))
	case x.test.kind != equals:
		return runAll(x.all, f) // the functions of these tests fail
	default:
		k, ok := key(v)
		if !ok {
			return runAll(x.all, f)
		}
		end = runAll(x.others[k], f)
	}
	if end != next {
		return end
	}
	return runAll(x.rest, f)
}

// runText runs the rules whose guard holds for a text.
func (x *ruleIndex) runText(f *frame, text string) int {
	switch x.test.kind {
	case equals:
		return runAll(x.texts[text], f)
	case hasSegment:
		segment, ok := segmentOf(text, x.test.delimiter, x.test.segment)
		if !ok {
			return next
		}
		return runAll(x.texts[segment], f)
	}
	for _, n := range x.lengths {
		if n > len(text) {
			break
		}
		part := text[:n]
		if x.test.kind == ends {
			part = text[len(text)-n:]
		}
		if end := runAll(x.texts[part], f); end != next {
			return end
		}
	}
	return next
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

// runAll runs blocks of a function, until one ends the function.
func runAll(blocks []block, f *frame) int {
	for _, b := range blocks {
		if end := b.run(f); end >= abort {
			return end
		}
	}
	return next
}

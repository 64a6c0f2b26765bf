package rego

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"
)

// exit returns how the assignment of the value of a rule, or of the function, ends its block. If all rules have the same constant value,
// the first one that holds is enough: its loops end, and the function returns. OPA's evaluator does the same.
func (c *compiler) exit(s *ir.AssignVarOnceStmt) int {
	inRule := s.Target != c.function.result
	if inRule {
		c.values = append(c.values, c.value(s.Source))
	}
	switch {
	case !c.final || !c.uniform || c.value(s.Source) != nil && !inRule:
		return next
	case inRule:
		if c.depth > ruleDepth {
			return c.depth - ruleDepth
		}
		return next
	}
	return abort
}

// ruleDepth is the depth of the block of a rule that has no else.
const ruleDepth = 1

// isUniform reports whether the rules of a function all have the same constant value. Rules with else are left alone.
func (c *compiler) isUniform(blocks []*ir.Block) bool {
	if slices.ContainsFunc(blocks, hasElse) {
		return false
	}
	for _, v := range c.values {
		if v == nil || !equal(v, c.values[0]) {
			return false
		}
	}
	return len(c.values) > 0
}

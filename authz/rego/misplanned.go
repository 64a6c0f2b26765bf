package rego

import (
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// misplanned returns an error for rules that OPA's planner gives another meaning:
//   - It drops the comparison of two arrays or objects that differ in length. What is dropped always holds, so
//     not {input.a: 1} == {input.b: 1, "c": 2} is undefined instead of true.
//   - It drops an expression that is a comprehension, and with it the conflicts and failed functions in its body.
//   - It treats a constant in the name of a rule as a variable unless it is text, so the set of p[1] contains x if false does not exist.
func misplanned(c *ast.Compiler) (err error) {
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			if ref := r.Ref(); r.Head.RuleKind() == ast.MultiValue && ref.IsGround() && len(ref.StringPrefix()) < len(ref) {
				return &unplanned{r.Location, "a set with a constant in its name that is no text is not supported"}
			}
		}
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.Negated && e.IsEquality() && literal(e.Operand(0)) && literal(e.Operand(1)) {
				err = &unplanned{e.Location, "the negated comparison of two arrays or objects is not supported"}
			}
			if comprehends(e) {
				err = &unplanned{e.Location, "a comprehension whose value is not used is not supported"}
			}
			return err != nil
		})
	}
	return err
}

// unplanned is the error of rules that must not be planned.
type unplanned struct {
	at   *ast.Location
	text string
}

func (e *unplanned) Error() string { return fmt.Sprintf("%v: %s", e.at, e.text) }

// comprehends reports whether an expression is a comprehension, or an array, an object or a set with one.
func comprehends(e *ast.Expr) (found bool) {
	t, ok := e.Terms.(*ast.Term)
	if !ok {
		return false
	}
	if _, isRef := t.Value.(ast.Ref); isRef {
		return false
	}
	ast.WalkClosures(t, func(any) bool { found = true; return true })
	return found
}

// literal reports whether a term is an array or an object that the rule itself builds.
func literal(t *ast.Term) bool {
	switch t.Value.(type) {
	case *ast.Array, ast.Object:
		return true
	}
	return false
}

// overlaid returns an error for rules that replace a part of the data by an object and read the whole around it. There OPA's evaluator
// merges the object with the base data that it replaces, so data.a with data.a.b as {"x": 1} also has the other fields of data.a.b.
func overlaid(c *ast.Compiler) (err error) {
	var parts []*ast.With
	for _, m := range c.Modules {
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			for _, w := range e.With {
				if ref := w.Target.Value.(ast.Ref); ref[0].Equal(ast.DefaultRootDocument) && !isFunction(c, ref) && mayBeObject(w.Value) {
					parts = append(parts, w)
				}
			}
			return false
		})
	}
	if len(parts) == 0 {
		return nil
	}
	visit := func(read ast.Ref) bool {
		for _, w := range parts {
			if err == nil && isAround(read, w.Target.Value.(ast.Ref)) {
				text := "the replacement of a part of %v by an object is not supported, because a rule reads the whole"
				err = &unplanned{w.Location, fmt.Sprintf(text, read)}
			}
		}
		return false
	}
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			ast.WalkRefs(r, visit)
		}
	}
	return err
}

func mayBeObject(t *ast.Term) bool {
	switch t.Value.(type) {
	case ast.Object, ast.Var, ast.Ref, ast.Call, *ast.ObjectComprehension:
		return true
	}
	return false
}

// isAround reports whether a reference may be to something of which the part is a part.
func isAround(ref, part ast.Ref) bool {
	if len(ref) >= len(part) || len(ref) < 2 && !ref[0].Equal(part[0]) {
		return false
	}
	for i, t := range ref {
		if _, isVar := t.Value.(ast.Var); i > 0 && isVar {
			continue
		}
		if !t.Equal(part[i]) {
			return false
		}
	}
	return true
}

// unshift puts replacements of functions behind those of data and input, which means the same. OPA's planner numbers the replaced
// documents without the functions, and looks the number up among all replacements. So of count(x) with sort as f with data.a as 1 it
// makes a plan that replaces input.a.
func unshift(c *ast.Compiler) {
	for _, m := range c.Modules {
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if len(e.With) > 1 {
				slices.SortStableFunc(e.With, func(a, b *ast.With) int { return last(c, a) - last(c, b) })
			}
			return false
		})
	}
}

// last returns 1 for the replacement of a function, and 0 for others.
func last(c *ast.Compiler, w *ast.With) int {
	if isFunction(c, w.Target.Value.(ast.Ref)) {
		return 1
	}
	return 0
}

// isFunction reports whether a reference names a function.
func isFunction(c *ast.Compiler, ref ast.Ref) bool {
	if !ref[0].Equal(ast.DefaultRootDocument) && !ref[0].Equal(ast.InputRootDocument) {
		return true
	}
	rules := c.GetRulesExact(ref)
	return len(rules) > 0 && len(rules[0].Head.Args) > 0
}

package rego

import (
	"regexp"
	"strings"

	"github.com/gobwas/glob"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// Patterns that are constants, or members of base data over which a loop runs, are compiled at load. OPA's functions look each pattern
// up in a cache that all requests share.

// maxPatterns is the number of patterns that are compiled for one call. Others are left to OPA's functions.
const maxPatterns = 10_000

// texts returns the texts that an operand may be. The list is empty if it is not known.
func (c *compiler) texts(o ir.Operand) (out []string) {
	add := func(t *ast.Term) {
		if t != nil && len(out) < maxPatterns {
			if s, ok := t.Value.(ast.String); ok {
				out = append(out, string(s))
			}
		}
	}
	if v := c.value(o); v != nil {
		add(v)
	} else if p := c.factOf(o).part; p != nil {
		each(p.collection, func(k, v *ast.Term) int { add(p.in(k, v)); return next })
	}
	return out
}

// matcher returns a function for calls of regex.match and glob.match with known patterns, nil for others.
func (c *compiler) matcher(s *ir.CallStmt) native {
	if c.options.noFolding || !c.final {
		return nil
	}
	switch s.Func {
	case ast.RegexMatch.Name:
		return matching(compiled(c.texts(s.Args[0]), func(p string) (func(string) bool, error) {
			re, err := regexp.Compile(p)
			if err != nil {
				return nil, err
			}
			return re.MatchString, nil
		}), 1)
	case ast.GlobMatch.Name:
		delimiters, ok := delimitersOf(c.value(s.Args[1]))
		if !ok {
			return nil
		}
		return matching(compiled(c.texts(s.Args[0]), func(p string) (func(string) bool, error) {
			g, err := glob.Compile(p, delimiters...)
			if err != nil {
				return nil, err
			}
			return g.Match, nil
		}), 2)
	}
	return nil
}

// escaped leaves it to OPA's evaluator whether a rule holds for which a constant pattern of glob.match or its text has a backslash. Its
// index of rules splits both at delimiters without a backslash before them, so it does not find /v1/*/b for /v1/a\/b, and never a
// pattern with \*.
func escaped(call step, args []read, to int) step {
	mayEscape := func(f *frame) bool {
		return hasDelimiters(args[1](f)) && (hasBackslash(args[0](f)) || hasBackslash(args[2](f)))
	}
	return func(f *frame) int {
		end := call(f)
		if end == next && equal(f.locals[to], truth(true)) && mayEscape(f) {
			return f.fail(ErrEscaped)
		}
		return end
	}
}

func hasDelimiters(t *ast.Term) bool {
	_, ok := t.Value.(*ast.Array)
	return ok
}

func hasBackslash(t *ast.Term) bool {
	s, ok := t.Value.(ast.String)
	return ok && strings.Contains(string(s), `\`)
}

// isGlob reports whether a pattern is valid.
func isGlob(pattern, delimiters *ast.Term) bool {
	text, ok := pattern.Value.(ast.String)
	separators, known := delimitersOf(delimiters)
	if !ok || !known {
		return false
	}
	_, err := glob.Compile(string(text), separators...)
	return err == nil
}

// compiled compiles patterns, and leaves invalid ones out.
func compiled(patterns []string, compile func(string) (func(string) bool, error)) map[string]func(string) bool {
	out := make(map[string]func(string) bool, len(patterns))
	for _, p := range patterns {
		if match, err := compile(p); err == nil {
			out[p] = match
		}
	}
	return out
}

// longText is the length from which a match may take long. OPA's functions make it, because a call of those looks at the cancellation.
const longText = 4 << 10

// matching returns a function that matches the argument at a position with the pattern in the first. It knows some patterns.
func matching(known map[string]func(string) bool, position int) native {
	if len(known) == 0 {
		return nil
	}
	return func(args []*ast.Term) (*ast.Term, bool) {
		pattern, ok := args[0].Value.(ast.String)
		text, both := args[position].Value.(ast.String)
		if !ok || !both || len(text) > longText {
			return nil, false
		}
		match := known[string(pattern)]
		if match == nil {
			return nil, false
		}
		return truth(match(string(text))), true
	}
}

// delimitersOf returns the delimiters of glob.match: none for null, and dots for an empty array.
func delimitersOf(t *ast.Term) ([]rune, bool) {
	if t == nil {
		return nil, false
	}
	switch t.Value.(type) {
	case ast.Null:
		return nil, true
	case *ast.Array:
		out, err := builtins.RuneSliceOperand(t.Value, 2)
		if len(out) == 0 {
			out = []rune{'.'}
		}
		return out, err == nil
	}
	return nil, false
}

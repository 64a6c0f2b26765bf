package rego

import (
	"fmt"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestCompile_ExampleOfDoc checks that doc.go shows what the compiler makes.
func TestCompile_ExampleOfDoc(t *testing.T) {
	const rule = `package p

main if {
	input.key.plan == "free"
	input.size < data.limits.free
}`
	p := mustCompile(t, rule, ast.MustParseTerm(`{"limits": {"free": 10}}`).Value, Options{})
	if got := fmt.Sprint(p.Slots()); got != "[[key plan] [size]]" {
		t.Errorf("slots %s", got)
	}
	if blocks := p.funcs[0].blocks; len(blocks) != 3 || len(blocks[0]) != 7 {
		t.Errorf("%d blocks, and %d closures in the first", len(blocks), len(blocks[0]))
	}
}

package rego

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// TestPlan_Twice plans at once and again: OPA's registry panics if a name is registered twice.
func TestPlan_Twice(t *testing.T) {
	plan := func(n int) error {
		c, err := ast.CompileModulesWithOpt(map[string]string{"p.rego": fmt.Sprintf("package p\nmain := %d", n)}, ast.CompileOpts{})
		if err != nil {
			return err
		}
		p, err := Plan(context.Background(), c, rego.ParsedQuery(ast.MustParseBody("data.p.main = x")))
		if err != nil {
			return err
		}
		program, err := Compile(p, Options{})
		if err != nil {
			return err
		}
		r, err := program.Eval(context.Background(), &Call{})
		if want := fmt.Sprintf(`[{"x": %d}]`, n); fmt.Sprint(r.Values) != want {
			return fmt.Errorf("%v, %v, want %s", r.Values, err, want)
		}
		return nil
	}
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			for range 2 {
				if err := plan(n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

package rego

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ir"
)

// TestCompile_ForgetsWhatChanges has plans in which a known local changes. OPA's planner hardly makes such plans, but it may.
func TestCompile_ForgetsWhatChanges(t *testing.T) {
	const number, object, list, out, key, value = ir.Local(2), ir.Local(3), ir.Local(4), ir.Local(5), ir.Local(6), ir.Local(7)
	set := func(n int64) ir.Stmt { return &ir.MakeNumberIntStmt{Value: n, Target: number} }
	op := func(l ir.Local) ir.Operand { return ir.Operand{Value: l} }
	add := func(to, from ir.Local) ir.Stmt { return &ir.ArrayAppendStmt{Array: to, Value: op(from)} }
	block := func(s ...ir.Stmt) []*ir.Block { return []*ir.Block{{Stmts: s}} }
	array := func(l ir.Local) ir.Stmt { return &ir.MakeArrayStmt{Target: l} }
	for name, c := range map[string]struct {
		plan []ir.Stmt
		want string
	}{
		"in a block": {[]ir.Stmt{set(1), &ir.BlockStmt{Blocks: block(set(2))}, array(out), add(out, number)}, `{"x": [2]}`},
		"in a block that ends early": {[]ir.Stmt{
			set(1), &ir.BlockStmt{Blocks: block(&ir.BreakStmt{}, set(2))}, array(out), add(out, number),
		}, `{"x": [1]}`},
		"in a loop": {[]ir.Stmt{
			array(list), add(list, ir.Data), add(list, ir.Data), set(1), array(out),
			&ir.ScanStmt{Source: list, Key: key, Value: value, Block: block(add(out, number), set(2))[0]},
		}, `{"x": [1, 2]}`},
		"in a negation": {[]ir.Stmt{
			set(1), &ir.NotStmt{Block: block(set(2), &ir.BreakStmt{})[0]}, array(out), add(out, number),
		}, `{"x": [2]}`},
		"a collection built twice": {[]ir.Stmt{
			array(out), add(out, ir.Data), &ir.BlockStmt{Blocks: block(set(3), array(out), add(out, number))}, set(4), add(out, number),
		}, `{"x": [3, 4]}`},
	} {
		t.Run(name, func(t *testing.T) {
			result := []ir.Stmt{
				&ir.MakeObjectStmt{Target: object},
				&ir.ObjectInsertStmt{Object: object, Key: ir.Operand{Value: ir.StringIndex(0)}, Value: op(out)},
				&ir.ResultSetAddStmt{Value: object},
			}
			p := &ir.Policy{
				Static: &ir.Static{Strings: []*ir.StringConst{{Value: "x"}}},
				Plans:  &ir.Plans{Plans: []*ir.Plan{{Blocks: block(append(c.plan, result...)...)}}},
			}
			for mode, o := range modes {
				program, err := Compile(p, o)
				if err != nil {
					t.Fatal(err)
				}
				if r, err := program.Eval(t.Context(), &Call{}); err != nil || len(r.Values) != 1 || r.Values[0].String() != c.want {
					t.Errorf("%s: %v, %v, want %s", mode, r.Values, err, c.want)
				}
			}
		})
	}
}

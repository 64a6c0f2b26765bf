package rego

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/rego"
)

// target is the name under which this package asks OPA for a plan.
const target = "tollkeeper"

// register makes OPA's planner known to this package. OPA has one registry for the process, and registering twice panics.
var register = sync.OnceFunc(func() { rego.RegisterPlugin(target, planner{}) })

// Plan asks OPA for the plan of a query over compiled modules. The options name the query, and the functions that rules may call
// besides OPA's own. It may change the order of replacements (with) in the modules, so nothing must evaluate them meanwhile. An error means
// that the planner does not support something in the rules.
func Plan(ctx context.Context, c *ast.Compiler, options ...func(*rego.Rego)) (_ *ir.Policy, err error) {
	defer recovered(&err) // OPA's planner panics for some rules that its evaluator evaluates
	if err = misplanned(c); err != nil {
		return nil, err
	}
	if err = overlaid(c); err != nil {
		return nil, err
	}
	unshift(c)
	register()
	// Planning sets a mode of the compiler. OPA's evaluator needs its own mode, which is as good for planning.
	query := rego.New(append(options, rego.Compiler(c), rego.EvalMode(ast.EvalModeTopdown), rego.Target(target))...)
	var p ir.Policy
	_, err = query.PrepareForEval(context.WithValue(ctx, planKey{}, &p))
	if err != nil {
		return nil, err
	}
	if p.Plans == nil || len(p.Plans.Plans) != 1 {
		return nil, errors.New("OPA made no plan")
	}
	return &p, nil
}

// recovered makes an error of a panic, so that a policy for which there is a bug can be loaded.
func recovered(err *error) {
	if x := recover(); x != nil {
		*err = fmt.Errorf("panic: %v", x)
	}
}

// planKey is the key of the context value that receives the plan.
type planKey struct{}

// planner is a target of OPA that only receives the plan.
type planner struct{}

var _ rego.TargetPlugin = planner{}

// IsTarget is rego.TargetPlugin.
func (planner) IsTarget(name string) bool { return name == target }

// PrepareForEval is rego.TargetPlugin.
func (planner) PrepareForEval(ctx context.Context, p *ir.Policy, _ ...rego.PrepareOption) (rego.TargetPluginEval, error) {
	if out, ok := ctx.Value(planKey{}).(*ir.Policy); ok {
		*out = *p
	}
	return planner{}, nil
}

// Eval is rego.TargetPluginEval. Nobody calls it, because Program evaluates.
func (planner) Eval(context.Context, *rego.EvalContext, ast.Value) (ast.Value, error) {
	return nil, errors.New("a plan is evaluated by its program")
}

package rulebook

import (
	"context"
	"maps"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// Summary describes policies that passed Check.
type Summary struct {
	Revision string   `json:"revision"`
	Query    string   `json:"query"`
	Plans    []string `json:"plans"`
	Routes   int      `json:"routes"`
	Reasons  int      `json:"reasons"`
	Memo     string   `json:"memo"` // whether verdicts can be cached
	// StrictErrors reports whether a function that fails denies the request.
	StrictErrors bool `json:"strict_errors"`
	// Evaluator is what would decide: compiled, or OPA's evaluator and why.
	Evaluator string `json:"evaluator"`
	// Warnings are parts that are allowed and probably a mistake.
	Warnings []bundle.Fault `json:"warnings,omitempty"`
}

// Check checks policies, and the routes, plans and reasons in them, more strictly than the server does, which type-checks nothing
// against the schema of the input. Without paths it checks the shipped policies. With used, policies that lack something in
// use are at fault, too. The error is a *bundle.LoadError where the fault is in a file, or is something that is lacking.
func Check(ctx context.Context, cfg config.Policy, used *admin.Plans) (Summary, error) {
	schema, err := policies.Files.ReadFile("schema/input.json")
	if err != nil {
		return Summary{}, err
	}
	o := optionsOf(cfg)
	o.Schema, o.CachedVerdicts = schema, 1
	o.Print = func(string, int, string) {} // as in production: what a print statement reads is part of the input
	p, err := policy.Check(ctx, source(cfg), o)
	if err != nil {
		return Summary{}, err
	}
	r, err := rulesOf(p, nil)
	if err != nil {
		return Summary{}, err
	}
	if faults := lacking(used, r, p); len(faults) > 0 {
		return Summary{}, &bundle.LoadError{Faults: faults}
	}
	return Summary{
		Revision: p.Revision(), Query: p.Query(), Plans: slices.Sorted(maps.Keys(r.Plans)), Routes: len(r.table.Routes()), Reasons: len(r.Reasons), Memo: p.Caching(),
		StrictErrors: p.StrictErrors(), Evaluator: p.Evaluator().String(), Warnings: r.warnings,
	}, nil
}

// Lacking says what policies lack that is in use, one text each. The error is a *bundle.LoadError where they cannot be
// loaded.
func Lacking(ctx context.Context, cfg config.Policy, used *admin.Plans) ([]string, error) {
	p, err := policy.Load(ctx, source(cfg), optionsOf(cfg))
	if err != nil {
		return nil, err
	}
	r, err := rulesOf(p, nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range lacking(used, r, p) {
		out = append(out, f.Text)
	}
	return out, nil
}

// Test runs the tests of policies on both evaluators. Without paths it runs those of the shipped policies.
func Test(ctx context.Context, cfg config.Policy) ([]bundle.TestResult, error) {
	return bundle.Test(ctx, source(cfg), cfg.RegoVersion)
}

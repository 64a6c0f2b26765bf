package rulebook

import (
	"context"
	"log/slog"
	"maps"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// source returns the configured policies, or the shipped ones where no path is configured.
func source(cfg config.Policy) bundle.Source {
	if len(cfg.Paths) == 0 {
		return bundle.FS(policies.Files)
	}
	return bundle.Disk(cfg.Paths...)
}

func optionsOf(cfg config.Policy) policy.Options {
	return policy.Options{
		Query: cfg.Query, Profile: cfg.Profile, CachedVerdicts: cfg.Memo, RegoVersion: cfg.RegoVersion, StrictErrors: cfg.StrictErrors,
		Interpreted: cfg.Evaluator == "opa", Recheck: cfg.Recheck,
	}
}

// rules are what a policy says, and what is probably a mistake in it.
type rules struct {
	check.Rules
	table    *route.Table
	warnings []bundle.Fault
}

// load loads a version without putting it in force. The error is a *bundle.LoadError where the fault is in the policies.
func (b *Book) load(ctx context.Context, src bundle.Source, cfg config.Policy) (*version, error) {
	files, err := src.Hold()
	if err != nil {
		return nil, err
	}
	o := optionsOf(cfg)
	o.Print = func(file string, line int, text string) {
		b.o.Log.Info("policy printed", "text", text, "file", file, "line", line)
	}
	o.Rechecked = b.rechecked
	p, err := policy.Load(ctx, files, o)
	if err != nil {
		return nil, err
	}
	r, err := rulesOf(p, b.o.Shipped)
	if err != nil {
		return nil, err
	}
	return &version{rules: r, policy: p, files: files}, nil
}

// Load loads the configured policies as a Book does at its start, and puts nothing in force. The error is a
// *bundle.LoadError where the fault is in the policies.
func Load(ctx context.Context, cfg config.Policy, log *slog.Logger) (*policy.Policy, error) {
	shipped, err := ShippedReasons(ctx, cfg.Profile)
	if err != nil {
		return nil, err
	}
	v, err := New(Options{Policy: cfg, Shipped: shipped, Log: log}).load(ctx, source(cfg), cfg)
	if err != nil {
		return nil, err
	}
	return v.policy, nil
}

// rulesOf reads routes, plans and reasons out of a policy. Its own table of reasons takes precedence over the shipped one. The
// error is a *bundle.LoadError with all faults.
func rulesOf(p *policy.Policy, shipped map[authz.Reason]authz.ReasonInfo) (*rules, error) {
	f := faults{policy: p}
	data, _ := p.Data("tollkeeper", "plans")
	plans, wrong := quota.ParsePlans(data)
	for i := range wrong {
		f.add(faultPlan, append([]any{"plans"}, wrong[i].At...), wrong[i].Text)
	}
	own := f.reasons()
	f.empty()
	table := f.table(plans)
	refs := p.References()
	f.misplaced(refs)
	warnings := f.olderFiles(table, refs)
	if len(f.list) > 0 {
		return nil, &bundle.LoadError{Faults: f.list}
	}
	reasons := maps.Clone(shipped)
	if reasons == nil {
		reasons = make(map[authz.Reason]authz.ReasonInfo, len(own))
	}
	maps.Copy(reasons, own)
	return &rules{
		Rules: check.Rules{Policy: p, Routes: table, Plans: plans, Reasons: reasons},
		table: table, warnings: append(warnings, p.Warnings()...),
	}, nil
}

// Routes are the routes of policies, with what is said about them.
type Routes struct {
	*route.Table
	Unmatched string         // what happens to requests that no route names: charge, allow or deny
	Warnings  []bundle.Fault // see Summary
}

// LoadRoutes loads the configured policies and returns their routes. The error is that of Check.
func LoadRoutes(ctx context.Context, cfg config.Policy) (Routes, error) {
	p, err := policy.Load(ctx, source(cfg), optionsOf(cfg))
	if err != nil {
		return Routes{}, err
	}
	r, err := rulesOf(p, nil)
	if err != nil {
		return Routes{}, err
	}
	out := Routes{Table: r.table, Unmatched: "charge", Warnings: r.warnings}
	if v, _ := p.Data("tollkeeper", "unmatched"); v != nil {
		out.Unmatched = v.(string) // the table has checked it
	}
	return out, nil
}

// ShippedReasons returns the table of reasons that is embedded in the binary, with the statuses of a profile.
func ShippedReasons(ctx context.Context, profile string) (map[authz.Reason]authz.ReasonInfo, error) {
	p, err := policy.Load(ctx, bundle.FS(policies.Files), policy.Options{Profile: profile})
	if err != nil {
		return nil, err
	}
	f := faults{policy: p}
	if reasons := f.reasons(); len(f.list) == 0 {
		return reasons, nil
	}
	return nil, &bundle.LoadError{Faults: f.list}
}

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// rulebook builds rules from the policies and puts them in force. What cannot be built whole changes nothing.
type rulebook struct {
	cfg     config.Policy
	dataDir string
	shipped map[authz.Reason]authz.ReasonInfo
	metrics *telemetry.Metrics
	log     *slog.Logger
	use     func(*check.Rules)
	// uses says who is on which plan.
	uses func(ctx context.Context) (map[string]*admin.PlanUse, error)

	now     atomic.Pointer[ruling]
	fault   atomic.Pointer[string]    // why the policies on disk are not in force
	keptAt  atomic.Pointer[time.Time] // of the policy in force, if it is one that was kept
	waiting atomic.Bool               // the policies on disk take away what is used, which may change by itself
	orphans atomic.Pointer[[]string]  // plans that do not exist and are used; nil: not known
}

// ruling is what is in force, or may be.
type ruling struct {
	rules  *check.Rules
	policy *policy.Policy
	held   policy.Source // its files
}

// source is where the policies are: what is configured, or what ships with the binary.
func source(cfg config.Policy) policy.Source {
	if len(cfg.Paths) == 0 {
		return policy.FS(policies.Files)
	}
	return policy.Disk(cfg.Paths...)
}

// optionsOf are the options by which a configuration has policies loaded.
func optionsOf(cfg config.Policy) policy.Options {
	return policy.Options{Query: cfg.Query, Profile: cfg.Profile, Memo: cfg.Memo, RegoVersion: cfg.RegoVersion, StrictErrors: cfg.StrictErrors}
}

// load builds rules. The error is a *policy.LoadError where the fault is in the policies.
func (b *rulebook) load(ctx context.Context, src policy.Source, cfg config.Policy) (*ruling, error) {
	held, err := src.Hold()
	if err != nil {
		return nil, err
	}
	o := optionsOf(cfg)
	o.Print = func(file string, line int, text string) {
		b.log.Info("policy printed", "text", text, "file", file, "line", line)
	}
	p, err := policy.Load(ctx, held, o)
	if err != nil {
		return nil, err
	}
	r, err := rulesOf(p, b.shipped)
	if err != nil {
		return nil, err
	}
	return &ruling{rules: r, policy: p, held: held}, nil
}

// rulesOf reads the data that Go needs out of a policy: plans and the table of reasons, in which the shipped one stands
// behind the policy's own.
func rulesOf(p *policy.Policy, shipped map[authz.Reason]authz.ReasonInfo) (*check.Rules, error) {
	data, _ := p.Data("tollkeeper", "plans")
	plans, err := quota.ParsePlans(data)
	if err != nil {
		return nil, fmt.Errorf("data.tollkeeper.plans: %w", err)
	}
	own, err := parseReasons(p)
	if err != nil {
		return nil, fmt.Errorf("data.tollkeeper.reasons: %w", err)
	}
	reasons := maps.Clone(shipped)
	if reasons == nil {
		reasons = make(map[authz.Reason]authz.ReasonInfo, len(own))
	}
	maps.Copy(reasons, own)
	return &check.Rules{Policy: p, Plans: plans, Reasons: reasons}, nil
}

// shippedReasons is the table that ships with the binary.
func shippedReasons(ctx context.Context, profile string) (map[authz.Reason]authz.ReasonInfo, error) {
	p, err := policy.Load(ctx, policy.FS(policies.Files), policy.Options{Profile: profile})
	if err != nil {
		return nil, err
	}
	return parseReasons(p)
}

// parseReasons reads data.tollkeeper.reasons in the profile that is in force.
func parseReasons(p *policy.Policy) (map[authz.Reason]authz.ReasonInfo, error) {
	data, ok := p.Data("tollkeeper", "reasons")
	if !ok {
		return nil, nil
	}
	table, ok := data.(map[string]any)
	if !ok {
		return nil, errors.New("want an object of reasons by code")
	}
	profile := "strict"
	if v, ok := p.Data("tollkeeper", "profile"); ok {
		if profile, ok = v.(string); !ok {
			return nil, errors.New("tollkeeper.profile: want a text")
		}
	}
	out := make(map[authz.Reason]authz.ReasonInfo, len(table))
	for code, v := range table {
		info, err := parseReason(v, profile)
		if err == nil && !authz.ValidReason(code) {
			err = errors.New("want 3 to 64 lower-case letters, digits and _ as a code")
		}
		if err == nil && info.Status == 402 && authz.Reason(code).Undecided() {
			err = errors.New("402 would ask the caller to pay for a fault of ours")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", code, err)
		}
		out[authz.Reason(code)] = info
	}
	return out, nil
}

func parseReason(v any, profile string) (authz.ReasonInfo, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return authz.ReasonInfo{}, errors.New("want an object with status, title, remedy and retry")
	}
	statuses, _ := m["status"].(map[string]any)
	status, err := strconv.Atoi(fmt.Sprint(statuses[profile]))
	if err != nil || status < 400 || status > 599 {
		return authz.ReasonInfo{}, fmt.Errorf("want a status from 400 to 599 for the profile %q", profile)
	}
	info := authz.ReasonInfo{Status: status, Retry: authz.RetryNever}
	info.Title, _ = m["title"].(string)
	info.Remedy, _ = m["remedy"].(string)
	if r, ok := m["retry"].(string); ok {
		info.Retry = authz.Retry(r)
	}
	if !slices.Contains([]authz.Retry{authz.RetryNever, authz.RetryReset, authz.RetrySoon}, info.Retry) {
		return authz.ReasonInfo{}, fmt.Errorf("retry %q: want never, reset or soon", info.Retry)
	}
	return info, nil
}

// reload puts the policies on disk in force, or says why it does not.
func (b *rulebook) reload(ctx context.Context, src policy.Source) {
	gone := false
	next, err := b.load(ctx, src, b.cfg)
	if err == nil {
		gone, err = b.takesAway(ctx, b.now.Load(), next)
	}
	if err != nil {
		if ctx.Err() == nil {
			b.refuse(err)
		}
		return
	}
	b.accept(next)
	b.keep(next)
	if gone || b.hasOrphans() { // accounts may have come to the plan meanwhile, or left it
		b.audit(ctx)
	}
}

func (b *rulebook) accept(next *ruling) {
	r, p := next.rules, next.policy
	b.use(r)
	b.now.Store(next)
	b.fault.Store(nil)
	b.keptAt.Store(nil)
	b.waiting.Store(false)
	b.metrics.PolicyLoaded(p.Revision())
	b.metrics.PolicyKept(false)
	b.log.Info("policy loaded", "revision", p.Revision(), "query", p.Query(), "plans", slices.Sorted(maps.Keys(r.Plans)), "memo", p.Memo(),
		"strict_errors", p.StrictErrors())
	for _, w := range append(routeWarnings(p, r.Plans), p.Warnings()...) {
		b.log.Warn("policy has a part that is probably not meant", "file", w.File, "line", w.Line, "column", w.Column, "code", w.Code, "warning", w.Text)
	}
}

// memo is how the memo of the policy in force does.
func (b *rulebook) memo() telemetry.Memo {
	now := b.now.Load()
	if now == nil {
		return telemetry.Memo{}
	}
	s, _ := now.policy.MemoStats()
	return telemetry.Memo(s)
}

// refuse reports a policy that was not loaded. The one in force stays.
func (b *rulebook) refuse(err error) {
	text := err.Error()
	before := b.fault.Swap(&text)
	var load *policy.LoadError
	b.waiting.Store(errors.As(err, &load) && load.Faults[0].Code == faultRemoved)
	if b.waiting.Load() && before != nil && *before == text {
		return // it was looked at again, and nothing has changed
	}
	if !errors.As(err, &load) {
		b.metrics.PolicyRefused([]telemetry.Fault{{Code: "data_error"}})
		b.log.Error("policy refused, the one in force stays", "error", text)
		return
	}
	faults := make([]telemetry.Fault, len(load.Faults))
	for i, f := range load.Faults {
		faults[i] = telemetry.Fault{File: f.File, Line: strconv.Itoa(f.Line), Column: strconv.Itoa(f.Column), Code: f.Code}
		b.log.Error("policy refused, the one in force stays", "file", f.File, "line", f.Line, "column", f.Column, "code", f.Code, "error", f.Text)
	}
	b.metrics.PolicyRefused(faults)
}

// faultText is why the policies on disk are not in force, "" if they are.
func (b *rulebook) faultText() string {
	if p := b.fault.Load(); p != nil {
		return strings.TrimSpace(*p)
	}
	return ""
}

// PolicySummary describes policies that are good.
type PolicySummary struct {
	Revision string   `json:"revision"`
	Query    string   `json:"query"`
	Plans    []string `json:"plans"`
	Reasons  int      `json:"reasons"`
	Memo     string   `json:"memo"` // whether verdicts can be remembered
	// StrictErrors reports whether an error of a function denies.
	StrictErrors bool `json:"strict_errors"`
	// Warnings say what is no fault and probably not meant.
	Warnings []policy.Fault `json:"warnings,omitempty"`
}

// CheckPolicies checks policies as strictly as can be, the data that Go reads out of them included, without serving
// them. No paths are the policies that ship with the binary. Where it is told what is used, it checks that they do not lack
// it. The error is a *policy.LoadError where the fault is in a file, or in what is lacking.
func CheckPolicies(ctx context.Context, cfg config.Policy, used *admin.Plans) (PolicySummary, error) {
	schema, err := policies.Files.ReadFile("schema/input.json")
	if err != nil {
		return PolicySummary{}, err
	}
	o := optionsOf(cfg)
	o.Schema, o.Memo = schema, 1
	o.Print = func(string, int, string) {} // so that what a print reads is read, as it is in production
	p, err := policy.Check(ctx, source(cfg), o)
	if err != nil {
		return PolicySummary{}, err
	}
	r, err := rulesOf(p, nil)
	if err != nil {
		return PolicySummary{}, err
	}
	if faults := lacking(used, r, p); len(faults) > 0 {
		return PolicySummary{}, &policy.LoadError{Faults: faults}
	}
	return PolicySummary{
		Revision: p.Revision(), Query: p.Query(), Plans: slices.Sorted(maps.Keys(r.Plans)), Reasons: len(r.Reasons), Memo: p.Memo(),
		StrictErrors: p.StrictErrors(), Warnings: append(routeWarnings(p, r.Plans), p.Warnings()...),
	}, nil
}

// TestPolicies runs the tests of policies, those of the shipped ones if there are no paths.
func TestPolicies(ctx context.Context, cfg config.Policy) ([]policy.TestResult, error) {
	return policy.Test(ctx, source(cfg), cfg.RegoVersion)
}

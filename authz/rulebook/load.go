package rulebook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"

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
	return policy.Options{Query: cfg.Query, Profile: cfg.Profile, CachedVerdicts: cfg.Memo, RegoVersion: cfg.RegoVersion, StrictErrors: cfg.StrictErrors}
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

// rulesOf reads plans and reasons out of a policy. Its own table of reasons takes precedence over the shipped one.
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
	table, err := tableOf(p, plans)
	if err != nil {
		return nil, err
	}
	return &check.Rules{Policy: p, Plans: plans, Routes: table, Reasons: reasons}, nil
}

// tableOf reads the routes out of a policy.
func tableOf(p *policy.Policy, plans map[string][]authz.Limit) (*route.Table, error) {
	s := route.Spec{Plans: plans}
	s.Routes, _ = p.Data("tollkeeper", "routes")
	s.Paths, _ = p.Data("tollkeeper", "paths")
	s.Unmatched, _ = p.Data("tollkeeper", "unmatched")
	table, faults := route.Parse(s)
	if len(faults) > 0 {
		return nil, fmt.Errorf("data.tollkeeper: %v: %s", faults[0].At, faults[0].Text)
	}
	return table, nil
}

// ShippedReasons returns the table of reasons that is embedded in the binary, with the statuses of a profile.
func ShippedReasons(ctx context.Context, profile string) (map[authz.Reason]authz.ReasonInfo, error) {
	p, err := policy.Load(ctx, bundle.FS(policies.Files), policy.Options{Profile: profile})
	if err != nil {
		return nil, err
	}
	return parseReasons(p)
}

// parseReasons reads data.tollkeeper.reasons, with the statuses of the policy's profile.
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

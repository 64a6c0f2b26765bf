package check

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Explanation says why a request got its decision.
type Explanation struct {
	Decision authz.Decision
	Facts    authz.Facts
	Charge   authz.Charge
	Cause    string
	// PolicyErrors tell which functions of the policy failed, as file:line: text.
	PolicyErrors []string
	Info         authz.ReasonInfo
	Revision     string
	Trace        authz.Trace
	// Profile is nil if nobody asked for it, or if the policy cannot be asked about the request.
	Profile *authz.Profile
}

// Explained says how to explain a decision. The zero value is valid.
type Explained struct {
	// Keys finds the owners of keys. Nil: the same as for Check.
	Keys Keys
	// Profile asks for a profile of the policy.
	Profile bool
}

// The traced evaluation takes many times as long as an ordinary one, and a profile has many evaluations.
const (
	traceTimeout   = 5 * time.Second
	profileTimeout = 5 * time.Second
)

// Explain decides a request by the same code as Check, with these differences: nothing is charged or recorded, and a denial that
// a dry run would let through is shown as a denial. Then the policy is asked once more, for the trace, because a traced policy also
// evaluates rules that it skips otherwise, and can fail in them. For a profile it is asked again, by a Profiler.
func (c *Checker) Explain(ctx context.Context, r *authz.Request, how Explained) Explanation {
	keys := how.Keys
	if keys == nil {
		keys = c.keys
	}
	dry := &Checker{keys: keys, revocations: c.revocations, meter: dryMeter{c.meter}, recorder: noRecorder{}, dedup: newChargeDedup(), opt: c.opt}
	dry.opt.DryRun = false
	dry.rules.Store(c.rules.Load())
	out := dry.explain(ctx, r)
	if out.Trace.Differed { // the decision was that of a program which decides nothing any more
		out = dry.explain(ctx, r)
	}
	if rules := dry.rules.Load(); how.Profile && rules != nil && r.Fault == "" {
		out.profile(ctx, rules.Policy, r)
	}
	return out
}

func (c *Checker) explain(ctx context.Context, r *authz.Request) Explanation {
	e := new(evaluation)
	d := c.evaluate(ctx, e, r)
	out := Explanation{Decision: d, Facts: e.facts, Charge: e.charge, Cause: e.cause, PolicyErrors: e.policyErrors}
	if e.rules != nil {
		out.Revision = e.rules.Policy.Revision()
		if r.Fault == "" {
			ctx, cancel := context.WithTimeout(ctx, traceTimeout)
			defer cancel()
			_, _ = e.rules.Policy.Decide(ctx, r, &out.Facts, &out.Trace)
		}
	}
	if !d.Allowed() {
		out.Info = reasonInfo(e.rules, e.verdict.Reason)
	}
	return out
}

func (e *Explanation) profile(ctx context.Context, p Policy, r *authz.Request) {
	if p, ok := p.(Profiler); ok {
		ctx, cancel := context.WithTimeout(ctx, profileTimeout)
		defer cancel()
		e.Profile = p.Profile(ctx, r, &e.Facts)
	}
}

// Decisive returns the rule that decided, nil if the trace shows none. For a denial it is the last rule that held and contains
// the reason code, and one called deny before any other, which may only explain the denial. (The entry module contains all codes,
// but it is entered first.) If there is no such rule, and for an allow, it is the rule that was queried, unless the policy failed.
func (e *Explanation) Decisive() *authz.TracedRule {
	code := string(e.Decision.DeniedFor())
	var other *authz.TracedRule
	for i := len(e.Trace.Rules) - 1; i >= 0 && code != ""; i-- {
		r := &e.Trace.Rules[i]
		switch {
		case !r.Held:
		case code == string(authz.ReasonPolicyDenied) && strings.HasPrefix(r.Name, customRulesPackage):
			if own := e.ownRule(); own != nil {
				return own
			}
			return r
		case slices.Contains(r.Strings, code):
			if strings.HasSuffix(r.Name, ".deny") {
				return r
			}
			other = cmp.Or(other, r)
		}
	}
	if other != nil {
		return other
	}
	if r := e.Decision.DeniedFor(); r == authz.ReasonPolicyError || r == authz.ReasonDecisionTimeout {
		return nil // the policy did not decide, even if rules held
	}
	for _, name := range []string{e.Trace.Query, e.Trace.Query + ".allowed"} { // a rule, or a package with one
		for i := range e.Trace.Rules {
			if r := &e.Trace.Rules[i]; r.Held && r.Name == name {
				return r
			}
		}
	}
	return nil
}

// If an operator's own rule names no reason, the shipped policies deny with policy_denied.
const (
	// customRulesPackage is the package of custom_rules.rego, which reads the operator's rules.
	customRulesPackage = "data.tollkeeper.hook."
	ownDeny            = "data.tollkeeper.custom.deny"
)

// ownRule returns the operator's rule that held, nil if there is none. It prefers a rule that names no reason.
func (e *Explanation) ownRule() (found *authz.TracedRule) {
	for i := range e.Trace.Rules {
		r := &e.Trace.Rules[i]
		if !r.Held || !strings.HasPrefix(r.Name, ownDeny) {
			continue
		}
		if !slices.Contains(r.Strings, "reason") {
			return r
		}
		found = r
	}
	return found
}

// dryMeter gives the same answers as the meter but reserves nothing.
type dryMeter struct{ Meter }

func (m dryMeter) Reserve(ctx context.Context, h authz.Holder, limits []authz.Limit, c authz.Charge, facts []authz.QuotaFact, _ *authz.Reservation) bool {
	m.Peek(ctx, h, limits, facts)
	ok := true
	for i := range facts {
		want := c[limits[i].Name]
		switch f := &facts[i]; {
		case want == 0:
		case f.State == authz.QuotaUnavailable:
			ok = false
		case f.Remaining < want:
			f.State, ok = pick(f.Remaining == 0, authz.QuotaExhausted, authz.QuotaInsufficient), false
		default:
			f.Remaining -= want
		}
	}
	return ok
}

type noRecorder struct{}

func (noRecorder) Record(*Entry) {}

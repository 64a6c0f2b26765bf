package check

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// run takes the request through the seven steps: bound, match, identify, peek, decide, reserve, seal. Every error on the way, even a
// panic, becomes a denial.
func (e *evaluation) run(ctx context.Context) (d authz.Decision) {
	defer func() {
		if p := recover(); p != nil {
			d = e.broken(authz.ReasonPolicyError, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	ctx, waits := e.bound(ctx)
	defer waits.whole.stop()
	if e.rules == nil {
		return e.broken(authz.ReasonPolicyError, "no policy is loaded")
	}
	if e.request.Fault != "" {
		return e.broken(authz.ReasonRequestMalformed, e.request.Fault)
	}
	e.match()
	e.identify(ctx, waits)
	if fault := e.unremovable(); fault != "" {
		return e.broken(authz.ReasonRequestMalformed, fault)
	}
	e.peek(waits.peek.waitContext(ctx))
	if err := e.decide(ctx); err != nil {
		return e.failed(ctx, err)
	}
	if err := e.reserve(ctx, waits); err != nil {
		return e.failed(ctx, err)
	}
	if err := ctx.Err(); err != nil { // the proxy does not wait for this answer any more, so the caller must not pay for it
		return e.failed(ctx, err)
	}
	return e.seal()
}

const (
	// replyMargin is the time before the proxy's deadline that is kept for sending the answer.
	replyMargin = 10 * time.Millisecond
	// policyShare is the part of the remaining time that a wait for a store leaves for the policy. If a store does not
	// answer, the policy then still has time to choose the reason of the denial.
	policyShare = 1.0 / 5
)

// bound gives the check its deadline.
func (e *evaluation) bound(ctx context.Context) (context.Context, *deadlines) {
	timeout, now := e.opt.Timeout, time.Now()
	if at, ok := ctx.Deadline(); ok {
		if left := at.Sub(now); left > 2*replyMargin {
			timeout = min(timeout, left-replyMargin)
		}
	}
	waits := new(deadlines)
	return waits.whole.until(ctx, now.Add(timeout)), waits
}

// match finds the route. It is done once for each check, so a policy that is asked again has the same facts.
func (e *evaluation) match() {
	if e.rules.Routes != nil {
		e.rules.Routes.Match(e.request, &e.facts.Path, &e.facts.Route, e.params[:0])
	}
}

// identify finds the credentials and collects facts about them. It does not judge them.
func (e *evaluation) identify(ctx context.Context, waits *deadlines) {
	e.facts.Token.Status = authz.TokenMissing
	e.facts.Account.Status = authz.AccountUnknown
	e.facts.Revocation.Stale = e.revocations.Stale()
	e.opt.Credentials.find(&e.credentials, e.request, e.opt.Tokens != nil)
	e.identifyKey(waits.keys.waitContext(ctx))
	if e.opt.Tokens != nil && !e.credentials.ambiguous {
		e.identifyToken(waits.token.waitContext(ctx))
	}
}

// peek looks at the limits of the caller's plan. Without a good credential there are none, so that a stranger learns nothing
// about a caller's quota.
func (e *evaluation) peek(ctx context.Context) {
	switch key, token, account := &e.facts.Key, &e.facts.Token, &e.facts.Account; {
	case key.Status == authz.KeyActive:
		e.plan, e.holder = key.Plan, authz.Holder{Key: key.Lineage, Account: key.Account}
	case key.Status == authz.KeyMissing && token.Status == authz.TokenValid && account.ID != "":
		e.plan, e.holder = account.Plan, authz.Holder{
			Key: authz.BearerHolder(account.ID, token.Issuer, token.Subject, token.Client), Account: account.ID,
		}
	default:
		return
	}
	e.limits = e.rules.Plans[e.plan]
	if len(e.limits) > 0 {
		e.facts.Quota = e.quotaFacts(len(e.limits))
		e.meter.Peek(ctx, e.holder, e.limits, e.facts.Quota)
	}
}

// decide asks the policy.
func (e *evaluation) decide(ctx context.Context) error {
	v, err := e.rules.Policy.Decide(ctx, e.request, &e.facts, nil)
	e.policyErrors = v.Errors
	if err != nil {
		return err
	}
	if err := acceptableToEnvoy(e.request.HTTP, &v); err != nil {
		return err
	}
	e.verdict = v
	return nil
}

// reserve takes the charge that the policy asks for. If too few units are left by now, it asks the policy once more with the
// new facts, so that the policy chooses status and reason. The second verdict may have another charge.
func (e *evaluation) reserve(ctx context.Context, waits *deadlines) error {
	for try := range waits.reserve {
		if !e.verdict.Allowed {
			return nil
		}
		charge, err := e.price()
		if err != nil || len(charge) == 0 {
			return err
		}
		if e.held = e.take(waits.reserve[try].waitContext(ctx), charge); e.held != nil {
			e.charge = charge
			return nil
		}
		e.wanted = charge
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.decide(ctx); err != nil {
			return err
		}
	}
	if e.verdict.Allowed {
		e.verdict = authz.Verdict{Reason: shortage(e.limits, e.facts.Quota, e.wanted)}
	}
	return nil
}

// seal turns the verdict into the decision.
func (e *evaluation) seal() authz.Decision {
	if e.verdict.Allowed {
		answer := e.allowance()
		if e.held != nil {
			e.held.Keep()
		}
		return authz.Allow(answer)
	}
	e.refundStream()
	if e.verdict.Reason == "" {
		e.verdict.Reason = authz.ReasonPolicyDenied
	}
	if e.verdict.Reason == authz.ReasonPolicyError {
		e.cause = e.whatIsMissing()
	}
	if e.opt.DryRun && !undecided(e.verdict.Reason, &e.facts) {
		e.dryRunReason = e.verdict.Reason
		e.verdict = authz.Verdict{Allowed: true, Metadata: e.verdict.Metadata}
		return authz.Allow(e.allowance())
	}
	return authz.Deny(e.denial())
}

// whatIsMissing tells the operator what the shipped policies miss when they deny with policy_error, "" for nothing.
func (e *evaluation) whatIsMissing() string {
	switch {
	case e.facts.Route.State == authz.RouteMissing:
		return fmt.Sprintf("the context extension %s names the route %q, which is not in the routes", authz.RouteExtension, e.request.ContextExtensions[authz.RouteExtension])
	case e.planMissing():
		return e.missingPlan()
	}
	return ""
}

// undecided reports whether a fact was missing or the request malformed, so that the denial says nothing about the caller.
func undecided(reason authz.Reason, f *authz.Facts) bool {
	for i := range f.Quota {
		if f.Quota[i].State == authz.QuotaUnavailable {
			return true
		}
	}
	return reason.Undecided() || reason == authz.ReasonRequestMalformed || f.Revocation.Stale ||
		f.Key.Status == authz.KeyUnavailable || f.Account.Status == authz.AccountUnavailable || f.Token.Status == authz.TokenUnavailable
}

// failed is the decision when the policy, or something that it needs, returned an error.
func (e *evaluation) failed(ctx context.Context, err error) authz.Decision {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return e.broken(authz.ReasonDecisionTimeout, err.Error())
	}
	return e.broken(authz.ReasonPolicyError, err.Error())
}

// broken is the decision when there is no verdict: a denial whose reason names the kind of fault. The cause goes only to the
// log. broken gives back what the check has reserved.
func (e *evaluation) broken(reason authz.Reason, cause string) authz.Decision {
	if e.held != nil {
		e.held.Cancel()
		e.held, e.charge = nil, nil
	}
	e.refundStream()
	e.cause = cause
	e.verdict = authz.Verdict{Reason: reason}
	return authz.Deny(e.denial())
}

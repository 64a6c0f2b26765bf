package check

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// heldCharge is the reservation of a check, which it may share with other checks of the same stream.
type heldCharge interface {
	// ID names the reservation.
	ID() string
	// Cancel gives the units back.
	Cancel()
	// Keep says that the check is answered with the reservation.
	Keep()
}

// soleCharge is a reservation that belongs to one check.
type soleCharge struct{ *authz.Reservation }

func (soleCharge) Keep() {}

// take reserves the charge. If the proxy asks about a stream several times, it is reserved once. take returns nil if too few
// units are left.
func (e *evaluation) take(ctx context.Context, charge authz.Charge) heldCharge {
	if s, ok := e.dedup.streamOf(e.request); ok {
		return e.dedup.chargeOf(s, e.began).reserve(ctx, e, charge)
	}
	return e.takeSole(ctx, charge)
}

func (e *evaluation) takeSole(ctx context.Context, charge authz.Charge) heldCharge {
	if !e.meter.Reserve(ctx, e.holder, e.limits, charge, e.facts.Quota, &e.sole) {
		return nil
	}
	return soleCharge{&e.sole}
}

// refundStream gives back what an earlier check of the same stream took, because a denied request costs nothing.
func (e *evaluation) refundStream() {
	if s, ok := e.dedup.streamOf(e.request); ok {
		if c := e.dedup.find(s); c != nil {
			c.refund(e.began)
		}
	}
}

// price is the charge of the verdict, or the default charge. It has only limits of the plan, and only units above 0.
func (e *evaluation) price() (authz.Charge, error) {
	if e.verdict.Charge == nil {
		if e.planMissing() {
			return nil, errors.New(e.missingPlan())
		}
		out := make(authz.Charge, len(e.limits))
		for i := range e.limits {
			if e.limits[i].Unit == authz.UnitRequests {
				out[e.limits[i].Name] = 1
			}
		}
		return out, nil
	}
	free := 0
	for name, units := range e.verdict.Charge {
		switch {
		case units < 0 || units > authz.MaxCharge:
			return nil, fmt.Errorf("policy charges %d units of %q: want 0 to %d", units, name, authz.MaxCharge)
		case !slices.ContainsFunc(e.limits, func(l authz.Limit) bool { return l.Name == name }):
			return nil, fmt.Errorf("policy charges %q, which plan %q does not limit", name, e.plan)
		case units == 0:
			free++
		}
	}
	if free == 0 {
		return e.verdict.Charge, nil // it is never changed, so it needs no copy
	}
	out := make(authz.Charge, len(e.verdict.Charge)-free)
	for name, units := range e.verdict.Charge {
		if units > 0 {
			out[name] = units
		}
	}
	return out, nil
}

// planMissing reports whether the caller is known but the policy's data does not define its plan.
func (e *evaluation) planMissing() bool {
	return e.holder != (authz.Holder{}) && len(e.rules.Plans) > 0 && e.rules.Plans[e.plan] == nil
}

// missingPlan tells the operator about a missing plan.
func (e *evaluation) missingPlan() string {
	return fmt.Sprintf("account %q is on plan %q, which is not defined: it would have no limits", e.holder.Account, e.plan)
}

// shortage is the reason of the denial if the policy allows the request twice but its charge cannot be reserved.
func shortage(limits []authz.Limit, quota []authz.QuotaFact, wanted authz.Charge) authz.Reason {
	reason := authz.ReasonStoreUnavailable
	for i := range quota {
		if wanted[limits[i].Name] == 0 {
			continue
		}
		switch prepaid := limits[i].Window == authz.WindowNone; quota[i].State {
		case authz.QuotaUnavailable:
			return authz.ReasonStoreUnavailable
		case authz.QuotaExhausted:
			reason = pick(prepaid, authz.ReasonCreditsExhausted, authz.ReasonQuotaExceeded)
		case authz.QuotaInsufficient:
			reason = pick(prepaid, authz.ReasonCreditsInsufficient, authz.ReasonQuotaExceeded)
		}
	}
	return reason
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

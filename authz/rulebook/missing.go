package rulebook

import (
	"context"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

func (b *Book) anyMissing() bool {
	found := b.missing.Load()
	return found != nil && len(*found) > 0
}

// audit looks for accounts and keys whose plan does not exist. Their requests are denied.
func (b *Book) audit(ctx context.Context) {
	uses, err := b.o.Uses(ctx)
	if err != nil {
		if ctx.Err() == nil {
			b.o.Log.Error("the users of plans could not be read", "error", err)
		}
		return
	}
	found := []string{}
	if now := b.inForce.Load(); now != nil {
		found = append(found, uses.missing(now.rules.Plans)...)
	}
	before := b.missing.Swap(&found)
	for _, text := range found {
		if before == nil || !slices.Contains(*before, text) {
			b.o.Log.Error("customers are denied with policy_error: their plan does not exist", "error", text)
		}
	}
	b.o.Metrics.PlansMissing(len(found))
}

// MissingPlans describes the plans that are used and do not exist. It asks who is on which plan only if the answer can have
// changed: the admin API refuses plans that do not exist, so while none is missing only a reload can make one missing.
func (b *Book) MissingPlans(ctx context.Context) []string {
	if b.missing.Load() == nil || b.anyMissing() {
		b.audit(ctx)
	}
	if found := b.missing.Load(); found != nil {
		return *found
	}
	return nil
}

// Plans returns every plan in force or in use, with its users, and the codes of the policies' own reasons. A new version
// must not lack any of them that is used.
func (b *Book) Plans(ctx context.Context) (admin.Plans, error) {
	uses, err := b.o.Uses(ctx)
	if err != nil {
		return admin.Plans{}, err
	}
	now := b.inForce.Load()
	for name, limits := range limitsOf(now.rules.Plans) {
		u := uses.Of(name)
		u.Defined, u.Limits = true, limits
	}
	return admin.Plans{Plans: uses.List(), Reasons: ownReasons(now.policy)}, nil
}

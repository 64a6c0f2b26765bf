package server

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
)

// takesAway says what the next policies lack of those in force that is used, as an error, and whether they lack anything.
func (b *rulebook) takesAway(ctx context.Context, old, next *ruling) (gone bool, err error) {
	f := &inForce{plans: limitsOf(old.rules.Plans), reasons: ownReasons(old.policy)}
	if len(f.taken(next.rules, next.policy)) == 0 && !f.lacks(next.rules) {
		return false, nil // whoever is on the plans
	}
	if b.cfg.AllowRemovedPlans {
		return true, nil
	}
	if f.uses, err = b.uses(ctx); err != nil {
		return true, fmt.Errorf("whether the plans that are gone are used is not known: %w", err)
	}
	faults := f.taken(next.rules, next.policy)
	if len(faults) == 0 {
		return true, nil
	}
	for i := range faults {
		faults[i].Text += ": bring it back, or set policy.allow_removed_plans"
	}
	return true, &policy.LoadError{Faults: faults}
}

// again looks once more at what may have changed by itself: whoever was on a plan that is gone may be on another one now.
func (b *rulebook) again(ctx context.Context, reload func()) {
	if b.waiting.Load() {
		reload()
	}
	if b.hasOrphans() {
		b.audit(ctx)
	}
}

func (b *rulebook) hasOrphans() bool {
	found := b.orphans.Load()
	return found != nil && len(*found) > 0
}

// audit looks for accounts and keys whose plan does not exist. They are denied.
func (b *rulebook) audit(ctx context.Context) {
	found := []string{}
	uses, err := b.uses(ctx)
	if err != nil {
		if ctx.Err() == nil {
			b.log.Error("who is on which plan is not known", "error", err)
		}
		return
	}
	if now := b.now.Load(); now != nil {
		found = append(found, missing(uses, now.rules.Plans)...)
	}
	before := b.orphans.Swap(&found)
	for _, text := range found {
		if before == nil || !slices.Contains(*before, text) {
			b.log.Error("customers are denied with policy_error: their plan does not exist", "error", text)
		}
	}
	b.metrics.PlansMissing(len(found))
}

// missingPlans says which plans do not exist and are used. The API refuses such plans, so that while there are none only a
// reload can make some.
func (b *rulebook) missingPlans(ctx context.Context) []string {
	if b.orphans.Load() == nil || b.hasOrphans() {
		b.audit(ctx)
	}
	if found := b.orphans.Load(); found != nil {
		return *found
	}
	return nil
}

// planUses is what policies that come must not take away.
func (b *rulebook) planUses(ctx context.Context) (admin.Plans, error) {
	uses, err := b.uses(ctx)
	if err != nil {
		return admin.Plans{}, err
	}
	now := b.now.Load()
	for name, limits := range limitsOf(now.rules.Plans) {
		u := useOf(uses, name)
		u.Defined, u.Limits = true, limits
	}
	out := admin.Plans{Plans: []admin.PlanUse{}, Reasons: ownReasons(now.policy)}
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		out.Plans = append(out.Plans, *uses[name])
	}
	return out, nil
}

package rulebook

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// faultRemoved is the code of a fault that says: the policies lack something in use.
const faultRemoved = "removed_in_use"

// baseline is what a new version must not lack while it is used.
type baseline struct {
	plans   map[string][]admin.PlanLimit
	reasons []string // codes in the policies' own table
	uses    Uses     // nil: not known, so that only what rules name counts as used
}

// checkRemovals returns an error if the next version lacks something of the old one that is used. It also reports whether
// the next version lacks any plan or limit at all. A table of routes that is gone, such as that of a file which is deleted before a
// new one is copied, is an error even if nobody uses it.
func (b *Book) checkRemovals(ctx context.Context, old, next *version) (removes bool, err error) {
	if _, written := next.policy.Data("tollkeeper", "routes"); !written && next.policy.Shipped() && len(old.rules.table.Routes()) > 0 {
		return false, &bundle.LoadError{Faults: []bundle.Fault{{Code: faultRoute, Text: "tollkeeper.routes is gone, so that no request would need " +
			"what its route asks for: bring it back, or write routes: [] if there are to be none"}}}
	}
	f := &baseline{plans: limitsOf(old.rules.Plans), reasons: ownReasons(old.policy)}
	if len(f.removals(next.rules, next.policy)) == 0 && !f.lackedBy(next.rules) {
		return false, nil // without asking who is on which plan
	}
	if b.o.Policy.AllowRemovedPlans {
		return true, nil
	}
	if f.uses, err = b.o.Uses(ctx); err != nil {
		return true, fmt.Errorf("plans are removed, and who is on them is not known: %w", err)
	}
	faults := f.removals(next.rules, next.policy)
	if len(faults) == 0 {
		return true, nil
	}
	for i := range faults {
		faults[i].Text += ": bring it back, or set policy.allow_removed_plans"
	}
	return true, &bundle.LoadError{Faults: faults}
}

// removals lists what the next version lacks that is used. What its own routes name it does not lack: their table would be at
// fault.
func (f *baseline) removals(next *rules, p *policy.Policy) []bundle.Fault {
	var out []bundle.Fault
	report := func(by []string, format string, args ...any) {
		if len(by) > 0 {
			out = append(out, bundle.Fault{Code: faultRemoved, Text: fmt.Sprintf(format, args...) + ", and used by " + strings.Join(by, ", ")})
		}
	}
	for _, plan := range slices.Sorted(maps.Keys(f.plans)) {
		users := usersOf(f.uses[plan])
		limits, exists := next.Plans[plan]
		if !exists {
			report(users, "plan %q is gone", plan)
			continue
		}
		for _, l := range f.plans[plan] {
			i := slices.IndexFunc(limits, func(m authz.Limit) bool { return m.Name == l.Name })
			switch {
			case i < 0:
				report(users, "limit %q of plan %q is gone", l.Name, plan)
			case limits[i].Unit != l.Unit:
				report(users, "limit %q of plan %q counts %s and no more %s", l.Name, plan, limits[i].Unit, l.Unit)
			}
		}
	}
	own := ownReasons(p)
	for _, code := range f.reasons {
		if place, ok := p.Mentions(code); ok && !slices.Contains(own, code) {
			report([]string{"the rule at " + place}, "reason %q is gone", code)
		}
	}
	return out
}

// lackedBy reports whether the next version lacks a plan or a limit, or counts a limit in another unit, used or not.
func (f *baseline) lackedBy(next *rules) bool {
	for plan, limits := range f.plans {
		if _, exists := next.Plans[plan]; !exists {
			return true
		}
		for _, l := range limits {
			if !slices.ContainsFunc(next.Plans[plan], func(m authz.Limit) bool { return m.Name == l.Name && m.Unit == l.Unit }) {
				return true
			}
		}
	}
	return false
}

// lacking lists what a version lacks of the plans and reasons that a server, or a data file, reports as used.
func lacking(used *admin.Plans, next *rules, p *policy.Policy) []bundle.Fault {
	if used == nil {
		return nil
	}
	f := baseline{plans: make(map[string][]admin.PlanLimit), uses: make(Uses), reasons: used.Reasons}
	undefined := make(Uses) // plans that the version in force lacks, too
	for i := range used.Plans {
		u := &used.Plans[i]
		f.uses[u.Name] = u
		if u.Defined {
			f.plans[u.Name] = u.Limits
		} else {
			undefined[u.Name] = u
		}
	}
	out := f.removals(next, p)
	for _, text := range undefined.missing(next.Plans) {
		out = append(out, bundle.Fault{Code: faultRemoved, Text: text})
	}
	return out
}

// ownReasons returns the codes in the policies' own table of reasons.
func ownReasons(p *policy.Policy) []string {
	data, _ := p.Data("tollkeeper", "reasons")
	table, _ := data.(map[string]any)
	return slices.Sorted(maps.Keys(table))
}

// limitsOf converts limits to the form of the admin API.
func limitsOf(plans map[string][]authz.Limit) map[string][]admin.PlanLimit {
	out := make(map[string][]admin.PlanLimit, len(plans))
	for name, limits := range plans {
		out[name] = make([]admin.PlanLimit, len(limits))
		for i, l := range limits {
			out[name][i] = admin.PlanLimit{Name: l.Name, Units: l.Units, Unit: l.Unit, Window: string(l.Window), Per: string(l.Per)}
		}
	}
	return out
}

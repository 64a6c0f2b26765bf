package rulebook

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// routes are the entries of data.tollkeeper.routes, reduced to the plans and limits that they name.
type routes []struct {
	name          string
	plans, limits []string
}

func routesOf(p *policy.Policy) routes {
	data, _ := p.Data("tollkeeper", "routes")
	list, _ := data.([]any)
	out := make(routes, len(list))
	for i, v := range list {
		entry, _ := v.(map[string]any)
		match, _ := entry["match"].(map[string]any)
		if out[i].name, _ = entry["name"].(string); out[i].name == "" {
			out[i].name, _ = match["path"].(string)
		}
		plans, _ := entry["plans"].([]any)
		for _, plan := range plans {
			if name, ok := plan.(string); ok {
				out[i].plans = append(out[i].plans, name)
			}
		}
		charge, _ := entry["charge"].(map[string]any)
		out[i].limits = slices.Sorted(maps.Keys(charge))
	}
	return out
}

// routeWarnings lists plans and limits that routes name and that do not exist. A route whose plan does not exist denies
// every caller, and a limit that does not exist is left out of the charge.
func routeWarnings(p *policy.Policy, plans map[string][]authz.Limit) []bundle.Fault {
	var out []bundle.Fault
	warn := func(format string, args ...any) {
		out = append(out, bundle.Fault{Code: "unknown_in_route", Text: fmt.Sprintf(format, args...)})
	}
	rs := routesOf(p)
	for _, r := range rs {
		for _, plan := range r.plans {
			if _, exists := plans[plan]; !exists {
				warn("route %q is for plan %q, which does not exist", r.name, plan)
			}
		}
		for _, limit := range r.limits {
			if len(rs.charging(limit, plans)) > 0 {
				warn("route %q charges limit %q, which no plan has", r.name, limit)
			}
		}
	}
	return out
}

// naming lists the routes that are open only to callers on a plan.
func (r routes) naming(plan string) (out []string) {
	for _, x := range r {
		if slices.Contains(x.plans, plan) {
			out = append(out, fmt.Sprintf("route %q", x.name))
		}
	}
	return out
}

// charging lists the routes that charge a limit, if no plan has that limit. A limit that only some plans lack is no fault.
func (r routes) charging(limit string, plans map[string][]authz.Limit) (out []string) {
	for _, limits := range plans {
		if slices.ContainsFunc(limits, func(l authz.Limit) bool { return l.Name == limit }) {
			return nil
		}
	}
	for _, x := range r {
		if slices.Contains(x.limits, limit) {
			out = append(out, fmt.Sprintf("route %q", x.name))
		}
	}
	return out
}

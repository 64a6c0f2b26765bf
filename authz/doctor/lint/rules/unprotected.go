package rules

import (
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// The rule in this file looks for listeners that do not ask Tollkeeper.

var unprotected = rule.Rule{
	ID: "TK002", Severity: rule.Error, Since: since, Title: "Tollkeeper is not asked: a listener has no ext_authz filter, the filter comes after the router, or two have the same name.",
	Why: "Requests reach the upstream unchecked.",
	Remedy: "Put one envoy.filters.http.ext_authz filter before the router into http_filters of every listener that takes requests, and into the filters of every upgrade. " +
		"Name routes or a listener that are meant to be open with --unchecked.",
	Checks: []rule.Check{unprotectedByEnvoys, removedByEnvoyFilter, removedByJSONPatch},
}

const giveDump = "Give the configuration dump of the running Envoy as well: tollkeeper doctor envoy --admin http://127.0.0.1:9901."

func unprotectedByEnvoys(in *model.Model, report rule.Report) {
	authorizer := "an authorizer: there is no ext_authz filter"
	if in.Cluster != "" {
		authorizer = "the cluster " + in.Cluster + ": no ext_authz filter names it"
	}
	anyAsks := len(in.ChecksBy(model.ByFilter)) > 0
	for _, e := range in.Envoys {
		asks := slices.ContainsFunc(e.Managers, func(m *model.Manager) bool { return len(m.Checks) > 0 })
		switch {
		case asks:
			protected := protectedUpstreams(in, e)
			for _, m := range e.Managers {
				unprotectedByManager(in, m, protected, report)
			}
			forwardedAround(in, e, protected, report)
		case len(e.Listeners) == 0 && !e.Dump: // a control plane configures it
			report(rule.At(e.Location, "there are no listeners in the files, so none were checked").As(rule.Info).FixedBy(giveDump))
		case !anyAsks:
			report(rule.At(e.Location, "no listener asks %s", authorizer))
		case slices.ContainsFunc(e.Managers, reachesUpstream): // the other Envoy may be in front of it
			report(rule.At(e.Location, "no listener of this Envoy asks %s, though another Envoy does", authorizer).As(rule.Info))
		}
	}
}

func unprotectedByManager(in *model.Model, m *model.Manager, protected upstreams, report rule.Report) {
	if len(m.Checks) == 0 {
		openManager(in, m, protected, report)
		return
	}
	inOrder(m.Chain, report)
	for _, u := range m.Upgrades {
		if len(u.Checks) > 0 {
			inOrder(u.Chain, report)
		} else if m.Speaks(u.Kind) {
			report(rule.At(u.Location, "upgrades to %s have their own filters, which do not ask Tollkeeper", u.Kind))
		}
	}
}

// inOrder checks that the filters that ask have different names and come before the router.
func inOrder(c model.Chain, report rule.Report) {
	names := make(map[string]bool)
	for _, a := range c.Checks {
		name := a.Filter.Name
		if names[name] {
			report(rule.At(a.Location, "there are several filters called %q: a route cannot configure them separately", name))
		}
		names[name] = true
		for _, before := range c.Filters[:a.Index] {
			if strings.HasSuffix(before.TypeName, "filters.http.router.v3.Router") {
				report(rule.At(a.Location, "the filter %q comes after the router, which ends the chain: it never asks", name))
			}
		}
	}
}

// openManager reports a manager that does not ask, in an Envoy with another manager that asks.
func openManager(in *model.Model, m *model.Manager, protected upstreams, report rule.Report) {
	if m.Outbound() || slices.Contains(in.Unchecked, m.Listener.GetName()) {
		return
	}
	found := rule.At(m.At("http_filters"), "requests come in here and go to an upstream unchecked, though another listener asks Tollkeeper")
	if m.Hidden {
		report(found.As(rule.Warning))
		return
	}
	worst := rule.Info
	var open []string
	for _, r := range m.Routes {
		if !r.ToUpstream() || r.IsMeant(&in.Options) {
			continue
		}
		open = append(open, r.Matches())
		if s := openSeverity(m, &r, protected); s.Rank() > worst.Rank() {
			worst = s
		}
	}
	if len(open) > 0 {
		found.Wrong += ": " + some(open)
		report(found.As(worst))
	}
}

// openSeverity is the severity of an unchecked route to an upstream. It may be intended if clients from outside cannot reach the
// listener, or if no other listener checks requests to the upstream.
func openSeverity(m *model.Manager, r *model.Route, protected upstreams) rule.Severity {
	switch {
	case graded(rule.Finding{}, r).Severity == rule.Info:
		return rule.Info
	case model.IsInternal(m.Listener), !slices.ContainsFunc(r.Clusters(), func(name string) bool { return name == "" || protected.has(m.Envoy, name) }):
		return rule.Warning
	}
	return rule.Error
}

// upstreams is a set of cluster names and host addresses, because two clusters may have the same hosts.
type upstreams map[string]bool

// protectedUpstreams are the upstreams of an Envoy that checked routes lead to.
func protectedUpstreams(in *model.Model, e *model.Envoy) upstreams {
	out := make(upstreams)
	for _, m := range e.Managers {
		if len(m.Checks) == 0 {
			continue
		}
		for _, r := range m.Routes {
			if !r.ToUpstream() || !in.IsProtected(m, &r) {
				continue
			}
			for _, name := range r.Clusters() {
				if !out[name] {
					for _, known := range knownAs(e, name) {
						out[known] = true
					}
				}
			}
		}
	}
	return out
}

func (u upstreams) has(e *model.Envoy, name string) bool {
	return slices.ContainsFunc(knownAs(e, name), func(known string) bool { return u[known] })
}

// knownAs returns the name of a cluster and the addresses of its hosts.
func knownAs(e *model.Envoy, name string) []string {
	out := []string{name}
	c, _ := e.Cluster(name)
	for _, l := range c.Msg.GetLoadAssignment().GetEndpoints() {
		for _, host := range l.GetLbEndpoints() {
			if a := host.GetEndpoint().GetAddress(); a != nil {
				out = append(out, a.String())
			}
		}
	}
	return out
}

// forwardedAround finds listeners that forward plain connections to an upstream that is protected by a check elsewhere.
func forwardedAround(in *model.Model, e *model.Envoy, protected upstreams, report rule.Report) {
	for _, p := range e.TCP {
		for _, name := range p.Clusters {
			if name != "" && protected.has(e, name) && model.IsEdge(p.Listener) && !slices.Contains(in.Unchecked, p.Listener.GetName()) {
				report(rule.At(p.Location, "connections are forwarded to %s unchecked, though another listener asks Tollkeeper", name).As(rule.Warning))
			}
		}
	}
}

// reachesUpstream reports whether a manager sends requests to an upstream.
func reachesUpstream(m *model.Manager) bool {
	return m.Hidden || slices.ContainsFunc(m.Routes, func(r model.Route) bool { return r.ToUpstream() })
}

package model

import (
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Customs are the AuthorizationPolicies with the action CUSTOM, which ask an authorizer.
func (all Objects) Customs() Objects {
	var out Objects
	for _, o := range all.Of(IstioSecurity, "AuthorizationPolicy") {
		if o.At("spec.action").Text() == "CUSTOM" {
			out = append(out, o)
		}
	}
	return out
}

// IsDryRun reports whether a policy is a dry run.
func (o *Object) IsDryRun() bool { return o.Annotation("istio.io/dry-run").Text() == "true" }

// ProviderName is the extension provider that a CUSTOM policy names.
func (o *Object) ProviderName() source.Location { return o.At("spec.provider.name") }

// ForWaypoint reports whether a policy is for a waypoint. EnvoyFilters do not apply to waypoints.
func (o *Object) ForWaypoint(all Objects) bool {
	return slices.ContainsFunc(o.Targets(), func(ref source.Location) bool {
		switch ref.At("kind").Text() {
		case "Service", "ServiceEntry":
			return true
		case "Gateway":
			g := all.Find(GatewayAPI, "Gateway", o.Namespace, ref.At("name").Text())
			return g != nil && g.At("spec.gatewayClassName").Text() == "istio-waypoint"
		}
		return false
	})
}

// Overlap reports whether two policies of Istio certainly apply to a common workload.
func Overlap(a, b *Object) bool {
	if a.Namespace != b.Namespace && a.Namespace != RootNamespace && b.Namespace != RootNamespace {
		return false
	}
	ta, tb := a.Targets(), b.Targets()
	if len(ta) > 0 || len(tb) > 0 {
		return a.Namespace == b.Namespace && slices.ContainsFunc(ta, func(x source.Location) bool {
			return slices.ContainsFunc(tb, func(y source.Location) bool {
				return x.At("kind").Text() == y.At("kind").Text() && x.At("name").Text() == y.At("name").Text()
			})
		})
	}
	within := func(x, y source.Location) bool {
		return !slices.ContainsFunc(x.Keys(), func(k string) bool { return y.Key(k).Text() != x.Key(k).Text() })
	}
	la, lb := a.At("spec.selector.matchLabels"), b.At("spec.selector.matchLabels")
	return within(la, lb) || within(lb, la)
}

// Covers reports whether a CUSTOM policy certainly applies to all workloads of another.
func Covers(wide, o *Object) bool {
	if wide.Namespace != o.Namespace && wide.Namespace != RootNamespace || wide.ProviderName().Text() != o.ProviderName().Text() {
		return false
	}
	if len(wide.Targets())+len(o.Targets()) > 0 {
		return Overlap(wide, o)
	}
	return Selects(wide.At("spec.selector"), o.At("spec.selector.matchLabels"))
}

// DestinationRule is the rule for a provider's service, nil if it is not in the files.
func (all Objects) DestinationRule(host string) *Object {
	short := func(h string) string { return strings.TrimSuffix(strings.TrimSuffix(h, ".cluster.local"), ".svc") }
	for _, o := range all.Of(IstioNetwork, "DestinationRule") {
		h := short(o.At("spec.host").Text())
		if h == short(host) || h+"."+o.Namespace == short(host) {
			return o
		}
	}
	return nil
}

// PortsOf are the ports of a Service or a ServiceEntry.
func (all Objects) PortsOf(host string) (ports []source.Location, known bool) {
	if o := all.Service(host); o != nil {
		return o.At("spec.ports").Items(), true
	}
	for _, o := range all.Of(IstioNetwork, "ServiceEntry") {
		if o.At("spec.hosts").Has(host) {
			return o.At("spec.ports").Items(), true
		}
	}
	return nil, false
}

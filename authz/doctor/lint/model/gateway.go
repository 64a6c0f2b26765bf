package model

import (
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// ExtAuth is where a SecurityPolicy configures the check.
func (o *Object) ExtAuth() source.Location { return o.At("spec.extAuth") }

// DropsCheck reports whether a SecurityPolicy, merged into another, removes the other's check.
func (o *Object) DropsCheck() bool {
	at := o.ExtAuth()
	return at.Exists() && len(at.Keys()) == 0 || at.Key("$patch").Text() == "delete"
}

// Backend is a backend that a SecurityPolicy asks.
type Backend struct {
	source.Location
	Policy          *Object
	Group, Kind     string
	Namespace, Name string
}

// Backends are the backends that a SecurityPolicy asks.
func (o *Object) Backends() []Backend {
	var out []Backend
	refs := o.ExtAuth().At("grpc.backendRefs").Items()
	if one := o.ExtAuth().At("grpc.backendRef"); one.Exists() {
		refs = append(refs, one)
	}
	for _, r := range refs {
		b := Backend{
			Location: r, Policy: o, Group: r.At("group").Text(), Kind: r.At("kind").Text(),
			Namespace: r.At("namespace").Text(), Name: r.At("name").Text(),
		}
		if b.Kind == "" {
			b.Kind = "Service"
		}
		if b.Namespace == "" {
			b.Namespace = o.Namespace
		}
		out = append(out, b)
	}
	return out
}

// IsIn reports whether the backend is among others.
func (b *Backend) IsIn(others []Backend) bool {
	return slices.ContainsFunc(others, func(x Backend) bool { return x.Kind == b.Kind && x.Namespace == b.Namespace && x.Name == b.Name })
}

// Backends are the backends that all SecurityPolicies ask.
func (m *Model) Backends() []Backend {
	var out []Backend
	for _, c := range m.ChecksBy(ByPolicy) {
		out = append(out, c.Object.Backends()...)
	}
	return out
}

// GatewayRefs are references to the targets of a policy of Envoy Gateway, by name or by labels. If labels select Gateways that are
// not in the files, the reference has no name, and may mean any Gateway of the namespace.
func (o *Object) GatewayRefs(all Objects) []source.Location {
	out := o.Targets()
	for _, s := range o.At("spec.targetSelectors").Items() {
		group, kind := s.At("group").Text(), s.At("kind").Text()
		if group == "" {
			group = GatewayAPI
		}
		candidates := all.Of(group, kind).In(o.Namespace)
		for _, x := range candidates {
			if Selects(s, x.At("metadata.labels")) {
				out = append(out, source.Reference(s, kind, x.Name))
			}
		}
		if len(candidates) == 0 && kind == "Gateway" {
			out = append(out, source.Reference(s, kind, ""))
		}
	}
	return out
}

// gatewayRef is a Gateway that a route belongs to.
type gatewayRef struct{ namespace, name string }

// parents are the Gateways of a route.
func (o *Object) parents() []gatewayRef {
	var out []gatewayRef
	for _, p := range o.At("spec.parentRefs").Items() {
		ref := gatewayRef{p.At("namespace").Text(), p.At("name").Text()}
		if ref.namespace == "" {
			ref.namespace = o.Namespace
		}
		out = append(out, ref)
	}
	return out
}

// PolicyAbove is a SecurityPolicy with a check that another SecurityPolicy overrides for its targets, nil if none is in the files.
func (m *Model) PolicyAbove(o *Object, ref source.Location) *Object {
	for _, c := range m.ChecksBy(ByPolicy) {
		above := c.Object
		for _, to := range above.GatewayRefs(m.Objects) {
			if above == o || to.At("kind").Text() != "Gateway" {
				continue
			}
			gateway := to.At("name").Text()
			if ref.At("kind").Text() == "Gateway" {
				same := above.Namespace == o.Namespace && (gateway == "" || ref.At("name").Text() == gateway)
				if same && ref.At("sectionName").Exists() && !to.At("sectionName").Exists() {
					return above
				}
				continue
			}
			route := m.Objects.Find(GatewayAPI, ref.At("kind").Text(), o.Namespace, ref.At("name").Text())
			if route != nil && slices.ContainsFunc(route.parents(), func(p gatewayRef) bool {
				return p.namespace == above.Namespace && (gateway == "" || p.name == gateway)
			}) {
				return above
			}
		}
	}
	return nil
}

// MayShareGateway reports whether two policies may be for the same Gateway. It returns false only if both name all their
// Gateways, and have none in common.
func (o *Object) MayShareGateway(other *Object, all Objects) bool {
	ours, sure := o.gateways(all)
	theirs, sureToo := other.gateways(all)
	return !sure || !sureToo || slices.ContainsFunc(theirs, func(r gatewayRef) bool { return slices.Contains(ours, r) })
}

// gateways are the Gateways of a policy, and whether the list is certainly complete.
func (o *Object) gateways(all Objects) (out []gatewayRef, sure bool) {
	refs := o.GatewayRefs(all)
	for _, r := range refs {
		kind, name := r.At("kind").Text(), r.At("name").Text()
		if name == "" {
			return nil, false
		}
		if kind == "Gateway" {
			out = append(out, gatewayRef{o.Namespace, name})
			continue
		}
		route := all.Find(GatewayAPI, kind, o.Namespace, name)
		if route == nil {
			return nil, false
		}
		out = append(out, route.parents()...)
	}
	return out, len(refs) > 0
}

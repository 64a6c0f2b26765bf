package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// This file has the rules about objects of Envoy Gateway.

var overriddenPolicy = rule.Rule{
	ID: "TK160", Severity: rule.Error, Since: since, Title: "A route's own SecurityPolicy removes the check, or asks another authorizer.",
	Why:    "It replaces the gateway's policy as a whole: requests to the route pass unchecked.",
	Remedy: "Set mergeType: StrategicMerge in the route's policy, or repeat extAuth there.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, o := range in.Objects.Of(model.EnvoyGateway, "SecurityPolicy") {
			merges, drops := o.At("spec.mergeType").Exists(), o.DropsCheck()
			asks := o.ExtAuth().Exists() && !drops
			if merges && !asks && !drops || in.IsMeant(o.Name) {
				continue
			}
			for _, ref := range o.GatewayRefs(in.Objects) {
				above := in.PolicyAbove(o, ref)
				if above == nil {
					continue
				}
				where := fmt.Sprintf("%s %q", ref.At("kind").Text(), ref.At("name").Text())
				switch {
				case merges && drops:
					report(rule.At(o.ExtAuth(), "it removes the check of %s: %s is not checked", above.Object(), where).
						FixedBy("Remove extAuth: then the check of the gateway stays."))
				case !asks:
					report(rule.At(ref, "it replaces %s and does not ask: %s is not checked", above.Object(), where))
				default:
					asksAnother(o, above, where, report)
				}
			}
		}
	}},
}

// asksAnother reports backends of a route's policy that the overridden policy does not ask. A backend with our name is
// Tollkeeper.
func asksAnother(o, above *model.Object, where string, report rule.Report) {
	there := above.Backends()
	ours := func(b model.Backend) bool { return strings.Contains(b.Name, "tollkeeper") }
	for _, b := range o.Backends() {
		if ours(b) || b.IsIn(there) {
			continue
		}
		found := rule.At(b.Location, "it replaces %s, and asks %s %s/%s, for %s", above.Object(), b.Kind, b.Namespace, b.Name, where)
		if !slices.ContainsFunc(there, ours) {
			found = found.As(rule.Warning) // it is not known which of the two is Tollkeeper
		}
		report(found)
	}
}

var refusedObject = rule.Rule{
	ID: "TK162", Severity: rule.Error, Since: since, Title: "Envoy Gateway did not accept an object.",
	Why:    "The object has no effect: routes are open, or answer 500.",
	Remedy: "Correct what the message says. EnvoyPatchPolicy and Backend have to be switched on in the EnvoyGateway configuration.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, kind := range []string{"SecurityPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "EnvoyPatchPolicy", "Backend"} {
			for _, o := range in.Objects.Of(model.EnvoyGateway, kind) {
				conditions := o.At("status.conditions").Items()
				for _, a := range o.At("status.ancestors").Items() {
					conditions = append(conditions, a.At("conditions").Items()...)
				}
				for _, c := range conditions {
					t := c.At("type").Text()
					if c.At("status").Text() != "False" || t != "Accepted" && t != "Programmed" && t != "ResolvedRefs" {
						continue
					}
					found := rule.At(c, "it has no effect: %s is False, %s", t, strings.TrimSuffix(c.At("message").Text(), "."))
					if kind != "SecurityPolicy" {
						found = found.As(rule.Warning)
					}
					report(found)
				}
			}
		}
	}},
}

var unreachableBackend = rule.Rule{
	ID: "TK163", Severity: rule.Error, Since: since, Title: "The policy refers to a backend that does not exist, or that it must not use.",
	Why:    "Requests are answered with 500, or pass if the policy fails open.",
	Remedy: "Correct the name, or add a ReferenceGrant in the namespace of the backend.",
	Checks: each((*model.Model).Backends, func(in *model.Model, b model.Backend, report rule.Report) {
		others := in.Objects.Of(b.Group, b.Kind).In(b.Namespace)
		switch {
		case others.Named(b.Name) != nil:
			if b.Namespace != b.Policy.Namespace && !isGranted(in, &b) {
				report(rule.At(b.Location, "no ReferenceGrant in %s lets a SecurityPolicy of %s refer to the %s: requests are answered with 500", b.Namespace, b.Policy.Namespace, b.Kind))
			}
		case len(others) > 0: // otherwise that namespace is not in the files
			report(rule.At(b.Location, "there is no %s %s/%s: requests are answered with 500", b.Kind, b.Namespace, b.Name))
		}
	}),
}

// isGranted reports whether a ReferenceGrant lets a policy refer to a backend of another namespace.
func isGranted(in *model.Model, b *model.Backend) bool {
	return slices.ContainsFunc(in.Objects.Of(model.GatewayAPI, "ReferenceGrant").In(b.Namespace), func(g *model.Object) bool {
		return g.At("spec.from").Any(func(f source.Location) bool {
			return f.At("group").Text() == model.EnvoyGateway && f.At("kind").Text() == "SecurityPolicy" && f.At("namespace").Text() == b.Policy.Namespace
		}) && g.At("spec.to").Any(func(t source.Location) bool {
			name := t.At("name").Text()
			return t.At("group").Text() == b.Group && t.At("kind").Text() == b.Kind && (name == "" || name == b.Name)
		})
	})
}

var ignoredKind = rule.Rule{
	ID: "TK164", Severity: rule.Error, Since: since, Title: "A kind of object is used that Envoy Gateway ignores.",
	Why:    "Patches that harden the filter are missing, or requests are answered with 500.",
	Remedy: "Set extensionApis: {enableEnvoyPatchPolicy: true, enableBackend: true} in the EnvoyGateway configuration, for the kinds in use.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, c := range in.Objects.Of(model.EnvoyGateway, "EnvoyGateway") {
			for kind, field := range map[string]string{"EnvoyPatchPolicy": "enableEnvoyPatchPolicy", "Backend": "enableBackend"} {
				used := in.Objects.Of(model.EnvoyGateway, kind)
				if at := c.At("extensionApis", field); len(used) > 0 && !at.True() {
					report(rule.At(at, "%s is not switched on: %s has no effect", kind, used[0].Object()))
				}
			}
		}
	}},
}

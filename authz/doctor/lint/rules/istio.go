package rules

import (
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// This file has the rules about Istio's providers and AuthorizationPolicies.

// customs are the AuthorizationPolicies that ask an authorizer.
func customs(in *model.Model) []*model.Object { return in.Objects.Customs() }

var badProvider = rule.Rule{
	ID: "TK150", Severity: rule.Error, Since: since, Title: "istiod cannot turn a CUSTOM policy into a check.",
	Why:    "It denies everything that the policy covers, with a 403 that has no reason.",
	Remedy: "Define the provider under extensionProviders, with the full name of a Service that exists and one of its ports.",
	Checks: []rule.Check{
		func(in *model.Model, report rule.Report) {
			var names []string
			for _, m := range in.Meshes {
				for _, p := range m.At("extensionProviders").Items() {
					names = append(names, p.At("name").Text())
				}
			}
			for _, o := range in.Objects.Customs() {
				if name := o.ProviderName(); len(in.Meshes) > 0 && !slices.Contains(names, name.Text()) {
					report(rule.At(name, "the mesh configuration has no extension provider %q: everything that the policy covers is denied", name.Text()))
				}
			}
		},
		unresolved,
		func(in *model.Model, report rule.Report) {
			for _, e := range in.Envoys {
				for _, m := range e.Managers {
					for _, f := range m.Filters {
						if deniesAll(f) {
							report(rule.At(f.Location, "istiod could not turn a CUSTOM policy into a check, and denies everything that the policy covers"))
						}
					}
				}
			}
		},
	},
}

// deniesAll reports whether a filter is one that istiod makes for a CUSTOM policy that it cannot use.
func deniesAll(f model.HTTPFilter) bool {
	r, _ := f.Msg.(*rbacv3.RBAC)
	for name := range r.GetRules().GetPolicies() {
		if strings.Contains(name, "deny-due-to-bad-CUSTOM-action") {
			return true
		}
	}
	return false
}

// unresolved reports providers whose service or port does not exist.
func unresolved(in *model.Model, report rule.Report) {
	for _, c := range in.ChecksBy(model.ByProvider) {
		host, port := c.Host(), c.At("port")
		ports, known := in.Objects.PortsOf(host)
		switch {
		case !known:
			// A missing service counts only if the files have other services of its namespace.
			parts := strings.Split(host, ".")
			if len(parts) > 1 && len(in.Objects.Of(model.Core, "Service").In(parts[1])) > 0 {
				report(rule.At(c.At("service"), "there is no service %q: all requests that it must check are denied", host))
			}
		case !slices.ContainsFunc(ports, func(p source.Location) bool { return portNumber(p) == port.Text() }):
			report(rule.At(port, "the service %q has no port %s: all requests that it must check are denied", host, port.Text()))
		}
	}
}

// portNumber is the number of a port of a Service or a ServiceEntry.
func portNumber(p source.Location) string {
	if n := p.At("port").Text(); n != "" {
		return n
	}
	return p.At("number").Text()
}

var rivalProviders = rule.Rule{
	ID: "TK151", Severity: rule.Error, Since: since, Title: "Two providers are set for the same workloads.",
	Why:    "istiod denies everything.",
	Remedy: "Leave one CUSTOM provider for each workload.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		customs := in.Objects.Customs()
		for i, a := range customs {
			for _, b := range customs[:i] {
				if a.ProviderName().Text() != b.ProviderName().Text() && model.Overlap(a, b) {
					report(rule.At(a.At("spec.provider"), "%s asks another provider for the same workloads: istiod denies everything", b.Object()))
				}
			}
		}
	}},
}

var portWithoutGRPC = rule.Rule{
	ID: "TK152", Severity: rule.Error, Since: since, Title: "The port of the Service is not declared as gRPC.",
	Why:    "istiod makes a cluster without HTTP/2, and every check fails.",
	Remedy: "Set appProtocol: grpc on the port, or let its name begin with grpc.",
	Checks: each(by(model.ByProvider), func(in *model.Model, c *model.ExtAuthz, report rule.Report) {
		ports, _ := in.Objects.PortsOf(c.Host())
		for _, p := range ports {
			if number := portNumber(p); number == c.At("port").Text() && !speaksGRPC(p) {
				report(rule.At(p.Called("service %s", c.Host()), "port %s is not declared as gRPC: every check of %q fails", number, c.Name))
			}
		}
	}),
}

func speaksGRPC(port source.Location) bool {
	return slices.ContainsFunc([]string{"appProtocol", "protocol", "name"}, func(field string) bool {
		word, _, _ := strings.Cut(strings.ToLower(port.At(field).Text()), "-")
		return slices.Contains([]string{"grpc", "http2", "kubernetes.io/h2c"}, word)
	})
}

var ambientPolicy = rule.Rule{
	ID: "TK153", Severity: rule.Error, Since: since, Title: "A CUSTOM policy is attached to workloads without a proxy that can ask.",
	Why:    "ztunnel does not support it: requests pass unchecked.",
	Remedy: "Deploy a waypoint, and attach the policy to it, or to the Service, with targetRefs.",
	Checks: each(customs, func(in *model.Model, o *model.Object, report rule.Report) {
		ns := in.Objects.Of(model.Core, "Namespace").Named(o.Namespace)
		if ns == nil || ns.Label("istio.io/dataplane-mode") != "ambient" || len(o.Targets()) > 0 {
			return
		}
		selector := o.At("spec.selector")
		labels := selector.At("matchLabels")
		if labels.Key("gateway.networking.k8s.io/gateway-name").Exists() || strings.Contains(labels.Key("istio").Text(), "gateway") {
			return
		}
		report(rule.At(selector, "the namespace is in ambient mode, where ztunnel does not ask: requests pass unchecked"))
	}),
}

var providerTimeout = rule.Rule{
	ID: "TK154", Severity: rule.Warning, Since: since, Title: "The provider has no timeout, a long one, or an ambiguous name.",
	Why:    "Without a timeout a check may take ten minutes. A policy for one provider also runs those whose names start with its name.",
	Remedy: "Set timeout a little above Tollkeeper's request.timeout, such as 0.3s.",
	Checks: append(timeouts(model.ByProvider), func(in *model.Model, report rule.Report) {
		all := in.ChecksBy(model.ByProvider)
		for _, c := range all {
			for _, other := range all {
				if c.Name != other.Name && strings.HasPrefix(other.Name, c.Name) {
					report(rule.At(c.Provider.At("name"), "the name %q starts with this name: policies for that provider run this one too", other.Name).
						FixedBy("Choose names that do not start with each other."))
				}
			}
		}
	}),
}

var policyWithoutRules = rule.Rule{
	ID: "TK155", Severity: rule.Error, Since: since, Title: "A CUSTOM policy has no rules.",
	Why:    "It matches no request, so every request passes unchecked.",
	Remedy: "Write rules: [{}] to check every request.",
	Checks: each(customs, func(_ *model.Model, o *model.Object, report rule.Report) {
		if rules := o.At("spec.rules"); len(rules.Items()) == 0 {
			report(rule.At(rules, "the policy has no rules: it matches no request, so Tollkeeper is not asked"))
		}
	}),
}

var anyOptions = rule.Rule{
	ID: "TK156", Severity: rule.Warning, Since: since, Title: "Any OPTIONS request passes.",
	Why:    "Not only preflights use the method.",
	Remedy: "Exempt only preflights: add rules for OPTIONS without the headers origin and access-control-request-method.",
	Checks: each(customs, func(_ *model.Model, o *model.Object, report rule.Report) {
		if rules := o.At("spec.rules"); len(rules.Items()) > 0 && !rules.Any(coversOptions) {
			report(rule.At(rules, "every request with the method OPTIONS passes unchecked, even if it is not a preflight"))
		}
	}),
}

func coversOptions(r source.Location) bool {
	to := r.At("to")
	return len(to.Items()) == 0 || to.Any(func(t source.Location) bool {
		methods := t.At("operation.methods")
		return !t.At("operation.notMethods").Has("OPTIONS", "*") && (!methods.Exists() || methods.Has("OPTIONS", "*"))
	})
}

var unverifiedToken = rule.Rule{
	ID: "TK157", Severity: rule.Error, Since: since, Title: "A CUSTOM policy depends on a token that is not verified yet.",
	Why:    "The condition cannot be met.",
	Remedy: "Leave tokens to Tollkeeper: it verifies them, and policies see the claims.",
	Checks: each(customs, func(_ *model.Model, o *model.Object, report rule.Report) {
		for _, r := range o.At("spec.rules").Items() {
			for _, w := range r.At("when").Items() {
				if key := w.At("key"); strings.HasPrefix(key.Text(), "request.auth.") {
					report(rule.At(key, "%s is not known yet: checks come before tokens are verified", key.Text()))
				}
			}
			for _, from := range r.At("from").Items() {
				for _, list := range []string{"requestPrincipals", "notRequestPrincipals"} {
					if at := from.At("source", list); at.Exists() {
						report(rule.At(at, "%s are not known yet: checks come before tokens are verified", list))
					}
				}
			}
		}
	}),
}

package rules

import (
	"slices"
	"strings"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules about filters before and after the check.

var checkedPreflights = rule.Rule{
	ID: "TK130", Severity: rule.Warning, Since: since, Title: "CORS preflights are checked.",
	Why:    "Browsers send no credential with them, and show a CORS error in place of the answer.",
	Remedy: "Put the cors filter before ext_authz, and set forward_not_matching_preflights: false.",
	Checks: each((*model.Model).Protected, func(_ *model.Model, m *model.Manager, report rule.Report) {
		for _, f := range m.Filters[m.Checks[0].Index+1:] {
			if _, ok := f.Msg.(*corsv3.Cors); ok && usesCORS(m) {
				report(rule.At(f.Location, "the cors filter comes after the check: preflights never have a credential, so they are denied"))
			}
		}
		for _, r := range m.Routes {
			for _, t := range r.Tiers()[:2] { // the route and its virtual host
				for name, packed := range t.Per {
					if p := corsPolicy(packed); p.GetForwardNotMatchingPreflights().GetValue() {
						at := t.At("typed_per_filter_config").Key(name).At("forward_not_matching_preflights")
						report(rule.At(at, "preflights from origins that are not allowed go on to the check, which denies them with a misleading reason").As(rule.Info))
					}
				}
			}
		}
	}),
}

// corsPolicy returns the CORS policy in an Any, nil for other types.
func corsPolicy(packed *model.Any) *corsv3.CorsPolicy {
	msg, _ := model.Unpack(packed)
	p, _ := msg.(*corsv3.CorsPolicy)
	return p
}

// usesCORS reports whether any route has a CORS policy. The filter alone says nothing, because Istio puts it into every chain.
func usesCORS(m *model.Manager) bool {
	return m.Hidden || slices.ContainsFunc(m.Routes, func(r model.Route) bool {
		return slices.ContainsFunc(r.Tiers(), func(t model.Tier) bool {
			for _, packed := range t.Per {
				if corsPolicy(packed) != nil {
					return true
				}
			}
			return false
		})
	})
}

const jwtName = "envoy.filters.http.jwt_authn"

var lateTokens = rule.Rule{
	ID: "TK131", Severity: rule.Warning, Since: since, Title: "Tokens are verified after the check, which needs the result.",
	Why:    "Policies see no claims.",
	Remedy: "Put jwt_authn before ext_authz, or let Tollkeeper verify tokens itself.",
	Checks: each((*model.Model).Protected, func(_ *model.Model, m *model.Manager, report rule.Report) {
		for _, c := range m.Checks {
			if !slices.Contains(c.Msg.GetMetadataContextNamespaces(), jwtName) {
				continue
			}
			for _, f := range m.Filters[c.Index+1:] {
				if _, ok := f.Msg.(*jwtv3.JwtAuthentication); ok {
					report(rule.At(f.Location, "tokens are verified after the check, so policies do not see their claims"))
				}
			}
		}
	}),
}

var chargedFirst = rule.Rule{
	ID: "TK132", Severity: rule.Info, Since: since, Title: "A request may be refused after it was charged.",
	Why:    "Callers pay for requests that an RBAC filter or a rate limit refuses.",
	Remedy: "Put the filter before ext_authz, unless it needs results of the check.",
	Checks: each((*model.Model).Protected, func(_ *model.Model, m *model.Manager, report rule.Report) {
		for _, f := range m.Filters[m.Checks[len(m.Checks)-1].Index+1:] {
			what := ""
			if r, ok := f.Msg.(*rbacv3.RBAC); ok && (r.GetRules() != nil || r.GetMatcher() != nil) { // shadow rules deny nothing
				what = "an RBAC filter"
			} else if strings.HasSuffix(f.TypeName, "filters.http.ratelimit.v3.RateLimit") || strings.HasSuffix(f.TypeName, "filters.http.local_ratelimit.v3.LocalRateLimit") {
				what = "a rate limit"
			}
			if what != "" {
				report(rule.At(f.Location, "%s comes after the check: a request that it refuses was already charged", what))
			}
		}
	}),
}

var unsentTokens = rule.Rule{
	ID: "TK133", Severity: rule.Error, Since: since, Title: "Envoy verifies tokens, but does not send the result to Tollkeeper.",
	Why:    "No token of that issuer is accepted.",
	Remedy: "Add envoy.filters.http.jwt_authn to metadata_context_namespaces.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, o := range in.Own {
			for _, i := range o.Config.Tokens.Issuers {
				if i.Envoy == "" {
					continue
				}
				for _, c := range in.ChecksBy(model.ByFilter) {
					if !slices.Contains(c.Msg.GetMetadataContextNamespaces(), jwtName) {
						report(rule.At(c.At("metadata_context_namespaces"), "Envoy verifies tokens of %q, but does not send the result to Tollkeeper", i.Issuer))
					}
				}
			}
		}
	}},
}

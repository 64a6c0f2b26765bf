package rules

import (
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules about the check itself, for all ways to configure it.

// whole are the ways that configure a whole check. A patch sets only some fields of a generated filter.
var whole = []model.Way{model.ByFilter, model.ByProvider, model.ByPolicy}

// writtenBy are the checks for rules about fields that are set. It skips filters that ask over HTTP, which have a worse fault.
func writtenBy(ways ...model.Way) func(*model.Model) []*model.ExtAuthz {
	return func(in *model.Model) []*model.ExtAuthz {
		return slices.DeleteFunc(in.ChecksBy(ways...), func(c *model.ExtAuthz) bool { return c.Way == model.ByFilter && c.HTTP.Exists() })
	}
}

// set is the remedy to set a field. Rules name Envoy's field; set names the field of the way.
func set(c *model.ExtAuthz, field, value string) string {
	if c.Msg != nil {
		return ""
	}
	return "Set " + field + ": " + value + "."
}

// remove is the remedy to remove a field.
func remove(c *model.ExtAuthz, field string) string {
	if c.Msg != nil {
		return ""
	}
	return "Remove " + field + "."
}

var protocol = rule.Rule{
	ID: "TK003", Severity: rule.Error, Since: since, Title: "The filter does not ask over gRPC in version 3 of the protocol.",
	Why:    "Tollkeeper answers only these requests, so every check fails.",
	Remedy: "Use grpc_service, and transport_api_version: V3.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		const overHTTP = "it asks over HTTP, but Tollkeeper answers only gRPC"
		for _, c := range in.ChecksBy(model.ByFilter, model.ByPolicy) {
			switch {
			case c.HTTP.Exists() && c.Way == model.ByPolicy:
				report(rule.At(c.HTTP, overHTTP).FixedBy("Use grpc."))
			case c.HTTP.Exists():
				report(rule.At(c.HTTP, overHTTP))
			case c.Way == model.ByFilter && c.Msg.GetTransportApiVersion() != corev3.ApiVersion_V3:
				report(rule.At(c.At("transport_api_version"), "it asks in version %s of the protocol", c.Msg.GetTransportApiVersion()))
			}
		}
		for _, http := range in.HTTPProviders {
			report(rule.At(http, overHTTP).FixedBy("Use envoyExtAuthzGrpc."))
		}
	}},
}

var failsOpen = rule.Rule{
	ID: "TK101", Severity: rule.Error, Since: since, Title: "A check that fails lets the request through.",
	Why:    "Whenever Tollkeeper is down, slow or restarted, every request passes unchecked, and your service trusts forged identity headers.",
	Remedy: "Set failure_mode_allow: false. If a route has to stay up without checks, exempt that route.",
	Checks: openOnFailure(model.ByFilter, model.ByPatch, model.ByProvider),
}

var policyFailsOpen = rule.Rule{
	ID: "TK161", Severity: rule.Error, Since: since, Title: "The SecurityPolicy fails open.",
	Why:    "Requests pass when a check fails, and also when the policy itself is faulty.",
	Remedy: "Set failOpen: false.",
	Checks: openOnFailure(model.ByPolicy),
}

func openOnFailure(ways ...model.Way) []rule.Check {
	return each(writtenBy(ways...), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		if c.FailOpen.Value {
			report(rule.At(c.FailOpen.Location, "a check that fails, or gets no answer, lets the request through").FixedBy(remove(c, c.Fields.FailOpen)))
		}
	})
}

var checkTimeout = rule.Rule{
	ID: "TK102", Severity: rule.Warning, Since: since, Title: "The timeout of the check is missing or too long.",
	Why:    "Without one, a check gets 0.2 s, 10 s or no end. With a long one, requests pile up behind a slow authorizer.",
	Remedy: "Set grpc_service.timeout a little above Tollkeeper's request.timeout, such as 0.3s.",
	Checks: timeouts(model.ByFilter, model.ByPolicy),
}

func timeouts(ways ...model.Way) []rule.Check {
	return each(by(ways...), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		found := rule.At(c.Timeout.Location, "a check may take up to %v: requests pile up behind a slow authorizer", c.Timeout.Value)
		switch {
		case !c.GRPC, c.Timeout.Exists() && c.Timeout.Value > 0 && c.Timeout.Value <= maxCheck:
			return
		case !c.Timeout.Exists():
			found.Wrong = "the check has no timeout of its own, and gets " + c.Timeout.Value.String()
		case c.Timeout.Value <= 0:
			found.Wrong = "a check may take any time"
		}
		report(found.FixedBy(set(c, c.Fields.Timeout, "300ms")))
	})
}

var outageStatus = rule.Rule{
	ID: "TK103", Severity: rule.Warning, Since: since, Title: "An outage looks like a denial.",
	Why:    "Callers with good keys get 403, and change their keys.",
	Remedy: "Set status_on_error: {code: ServiceUnavailable}.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		fixed := model.Version{1, 37, 0}
		for _, c := range in.ChecksBy(whole...) {
			switch at := c.StatusOnError; {
			case at.Value < 500:
				report(rule.At(at.Location, "if a check fails, callers get %d, as if it were their fault", at.Value).
					FixedBy(set(c, c.Fields.StatusOnError, `"503"`)))
			case c.Way == model.ByFilter && c.Manager.Envoy.Version.Known() && c.Manager.Envoy.Version.Before(fixed):
				report(rule.At(c.At(c.Fields.StatusOnError), "Envoy %s ignores this field and answers 403", c.Manager.Envoy.Version).
					FixedBy("Use Envoy 1.37.1 or newer."))
			}
		}
	}},
}

var partial = rule.Rule{
	ID: "TK104", Severity: rule.Error, Since: since, Title: "Only some requests are checked.",
	Why:    "The others pass.",
	Remedy: "Remove filter_enabled and filter_enabled_metadata, or set deny_at_disable: {default_value: true} without a runtime_key.",
	Checks: each(by(model.ByFilter, model.ByPatch), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		enabled, metadata, deny := c.Msg.GetFilterEnabled(), c.Msg.GetFilterEnabledMetadata(), c.Msg.GetDenyAtDisable()
		if c.Way == model.ByFilter && deny.GetDefaultValue().GetValue() { // the others are denied
			if key := deny.GetRuntimeKey(); key != "" && (enabled != nil || metadata != nil) {
				report(rule.At(c.At("deny_at_disable"), "the runtime key %q can let requests pass that are not checked", key))
			}
			return
		}
		switch n, of := fraction(enabled.GetDefaultValue()); {
		case enabled == nil:
		case n < of:
			report(rule.At(c.At("filter_enabled"), "only %d of %d requests are checked, and the others pass", n, of))
		case enabled.GetRuntimeKey() != "":
			report(rule.At(c.At("filter_enabled"), "the runtime key %q can switch checks off, so that all requests pass", enabled.GetRuntimeKey()))
		}
		if metadata != nil && !chosenByIstio(c) {
			report(rule.At(c.At("filter_enabled_metadata"), "only requests with certain metadata of %q are checked, and the others pass", metadata.GetFilter()))
		}
	}),
}

func fraction(p *typev3.FractionalPercent) (numerator, denominator uint32) {
	return p.GetNumerator(), map[typev3.FractionalPercent_DenominatorType]uint32{
		typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
	}[p.GetDenominator()]
}

// chosenByIstio reports whether the metadata that choose requests come from the RBAC filter that istiod makes for CUSTOM
// policies.
func chosenByIstio(c *model.ExtAuthz) bool {
	const rbac = "envoy.filters.http.rbac"
	return c.Way == model.ByFilter && c.Msg.GetFilterEnabledMetadata().GetFilter() == rbac &&
		slices.ContainsFunc(c.Manager.Filters, func(f model.HTTPFilter) bool {
			r, ok := f.Msg.(*rbacv3.RBAC)
			return ok && f.Name == rbac && (r.GetShadowRules() != nil || r.GetShadowMatcher() != nil)
		})
}

var shadowMode = rule.Rule{
	ID: "TK105", Severity: rule.Error, Since: since, Title: "The filter runs in shadow mode.",
	Why:    "Denials have no effect. Use it for trials, not in production.",
	Remedy: "Remove shadow_mode.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, c := range writtenBy(model.ByFilter, model.ByPatch)(in) {
			if c.Msg.GetShadowMode() {
				report(rule.At(c.At("shadow_mode"), "denials are only counted: every request passes"))
			}
		}
		for _, o := range in.Objects.Customs() {
			if o.IsDryRun() {
				report(rule.At(o.Annotation("istio.io/dry-run"), "the policy is a dry run, which CUSTOM policies do not support: Tollkeeper is not asked").
					FixedBy("Remove the annotation."))
			}
		}
	}},
}

var routeChosenAgain = rule.Rule{
	ID: "TK121", Severity: rule.Warning, Since: since, Title: "The route is chosen again after the check.",
	Why:    "Policies decide about one route, and Envoy serves another.",
	Remedy: "Set clear_route_cache: false.",
	Checks: each(writtenBy(model.ByFilter, model.ByPatch, model.ByProvider, model.ByPolicy), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		if c.ClearRoute.Value {
			report(rule.At(c.ClearRoute.Location, "the route is chosen again after the check: the request may take a route that was not checked").
				FixedBy(remove(c, c.Fields.ClearRoute)))
		}
	}),
}

var heldBodies = rule.Rule{
	ID: "TK125", Severity: rule.Warning, Since: since, Title: "Bodies are held back for the check.",
	Why:    "Streams stall, large bodies are refused with 413, and every check carries the body.",
	Remedy: "Remove with_request_body.",
	Checks: each(by(whole...), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		if !c.Body.Exists() {
			return
		}
		found := rule.At(c.Body, "every body is held back before the check, which stalls streams").FixedBy(remove(c, c.Fields.Body))
		if b := c.Msg.GetWithRequestBody(); b.GetAllowPartialMessage() {
			found.Wrong = "the beginning of every body is held back before the check"
		} else if b != nil {
			found = rule.At(c.Body, "every body is held back before the check, and larger ones than %d bytes are refused with 413", b.GetMaxRequestBytes())
		}
		if c.Way == model.ByFilter && takesGRPC(c.Manager) {
			found = found.As(rule.Error)
			found.Wrong += ": gRPC streams stall"
		}
		report(found)
	}),
}

// takesGRPC reports whether gRPC requests come in: their streams do not end before the check. Envoy does not hold back the
// bodies of WebSockets.
func takesGRPC(m *model.Manager) bool {
	return slices.ContainsFunc(m.Routes, func(r model.Route) bool { return r.Msg.GetMatch().GetGrpc() != nil })
}

var retries = rule.Rule{
	ID: "TK144", Severity: rule.Warning, Since: since, Title: "Checks are not retried, or are retried when they should not be.",
	Why:    "Without retries, a restart of Tollkeeper fails requests. With wrong retries, checks are charged twice.",
	Remedy: "Set retry_policy: {num_retries: 1, retry_on: \"connect-failure,refused-stream,reset-before-request\"}.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		// conditions under which Tollkeeper may have received the check
		bad := []string{"5xx", "gateway-error", "deadline-exceeded", "retriable-4xx", "reset", "internal", "unavailable", "resource-exhausted", "cancelled"}
		for _, c := range in.ChecksBy(model.ByFilter, model.ByPolicy) {
			switch g := c.Msg.GetGrpcService(); {
			case g.GetGoogleGrpc() != nil:
				report(rule.At(c.At("grpc_service.google_grpc"), "google_grpc has no retries, and no cluster with TLS, limits and health checks").
					FixedBy("Use envoy_grpc with a cluster."))
				continue
			case g != nil && g.GetRetryPolicy() == nil:
				report(rule.At(c.At("grpc_service.retry_policy"), "a check is not retried if Tollkeeper has just closed its connection, as in a restart"))
			}
			for _, on := range c.Retries {
				if slices.Contains(bad, on.Value) {
					report(rule.At(on.Location, "%q retries checks that Tollkeeper has received: they are charged twice, and a slow server gets twice the load", on.Value))
				}
			}
		}
	}},
}

var blamedUpstream = rule.Rule{
	ID: "TK145", Severity: rule.Warning, Since: since, Title: "Denials count as faults of your service.",
	Why:    "Alerts and autoscaling see 4xx answers that are not from your service.",
	Remedy: "Set charge_cluster_response_stats: false.",
	Checks: each(by(model.ByFilter), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		if stats := c.Msg.GetChargeClusterResponseStats(); stats == nil || stats.GetValue() {
			report(rule.At(c.At("charge_cluster_response_stats"), "denials count as 4xx answers of your service, and alerts and autoscaling react to them"))
		}
	}),
}

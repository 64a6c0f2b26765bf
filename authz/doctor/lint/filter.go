package lint

import (
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// The rules of this file look at the ext_authz filter: how it asks, and what it does without an answer.

// unreadable: what was noted while reading.
func unreadable(in *Input, report func(Finding)) {
	for _, f := range in.broken {
		report(f)
	}
	for _, e := range in.envoys {
		for _, f := range e.faults {
			report(f)
		}
	}
}

// spoken: gRPC, of the version that is answered.
func spoken(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		if a.authz.GetHttpService() != nil {
			report(a.at("http_service").says("it asks over HTTP, which Tollkeeper does not answer"))
			continue
		}
		if v := a.authz.GetTransportApiVersion(); v != corev3.ApiVersion_V3 {
			report(a.at("transport_api_version").says("it asks in version %s of the protocol", v))
		}
	}
}

// newer: fields that the Envoy does not know yet.
func newer(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		v := in.versionOf(a.manager.envoy)
		if !v.known() || a.manager.envoy.dump {
			continue
		}
		for _, f := range []struct {
			field string
			set   bool
			since version
		}{
			{"enforce_response_header_limits", a.authz.GetEnforceResponseHeaderLimits(), version{1, 37, 0}},
			{"shadow_mode", a.authz.GetShadowMode(), version{1, 38, 0}},
			{"emit_client_span", a.authz.GetEmitClientSpan() != nil, version{1, 40, 0}},
			{"clear_route_cache_headers", len(a.authz.GetClearRouteCacheHeaders()) > 0, version{1, 41, 0}},
		} {
			if f.set && v.before(f.since[0], f.since[1], f.since[2]) {
				report(a.at(f.field).says("Envoy %s does not know this field, which came with %s", v, f.since))
			}
		}
	}
}

// failsOpen: no answer is an allow.
func failsOpen(in *Input, report func(Finding)) {
	for _, c := range in.configs() {
		if c.msg.GetFailureModeAllow() {
			report(c.at("failure_mode_allow").says("a check that fails, or that nobody answers, lets the request through"))
		}
	}
}

const maxCheck = time.Second

// timeouts: an explicit one, and not a long one.
func timeouts(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		t := a.authz.GetGrpcService().GetTimeout()
		at := a.at("grpc_service", "timeout")
		switch {
		case a.authz.GetGrpcService() == nil:
		case t == nil:
			report(at.says("there is no timeout for the check: it is 0.2 s, less than Tollkeeper may take"))
		case t.AsDuration() <= 0:
			report(at.says("a check is waited for without end"))
		case t.AsDuration() > maxCheck:
			report(at.says("a check is waited for up to %v: requests pile up behind a slow authorizer", t.AsDuration()))
		}
	}
}

// badOnError are statuses that say something about the caller.
var badOnError = []int{0, 401, 402, 403, 404, 429}

func onError(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		code := a.authz.GetStatusOnError().GetCode()
		at := a.at("status_on_error")
		v := in.versionOf(a.manager.envoy)
		switch {
		case code == typev3.StatusCode_Empty:
			report(at.says("without an answer callers get 403, as if they were to blame"))
		case slices.Contains(badOnError, int(code)) || code < 500:
			report(at.at("code").says("without an answer callers get %d, as if they were to blame", code))
		case v.known() && v.before(1, 37, 0):
			f := at.says("Envoy %s answers 403 whatever is set here", v)
			f.Remedy = "Use Envoy 1.37.1 or newer."
			report(f)
		}
	}
}

// sometimes: the filter runs for some requests only. Those for which it does not run pass, unless they are denied for good:
// a runtime key may change that at any time.
func sometimes(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		if d := a.authz.GetDenyAtDisable(); d.GetDefaultValue().GetValue() {
			if d.GetRuntimeKey() != "" && (a.authz.GetFilterEnabled() != nil || a.authz.GetFilterEnabledMetadata() != nil) {
				report(a.at("deny_at_disable").says("the runtime key %q can let those pass that are not checked", d.GetRuntimeKey()))
			}
			continue
		}
		sometimesOf(part[*extauthzv3.ExtAuthz]{a.spot, a.authz}, report)
		if by := a.authz.GetFilterEnabledMetadata(); by != nil && !a.chosenByIstio() {
			report(a.at("filter_enabled_metadata").says("only requests with certain metadata of %q are checked, and the others pass", by.GetFilter()))
		}
	}
}

func sometimesOf(c part[*extauthzv3.ExtAuthz], report func(Finding)) {
	e := c.msg.GetFilterEnabled()
	d := e.GetDefaultValue()
	whole := map[typev3.FractionalPercent_DenominatorType]uint32{
		typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
	}[d.GetDenominator()]
	at := c.at("filter_enabled")
	switch {
	case e == nil:
	case d.GetNumerator() < whole:
		report(at.says("only %d of %d requests are checked, and the others pass", d.GetNumerator(), whole))
	case e.GetRuntimeKey() != "":
		report(at.says("the runtime key %q can switch checks off, and then all requests pass", e.GetRuntimeKey()))
	}
}

// chosenByIstio reports whether the metadata by which requests are chosen come from rules that istiod makes of CUSTOM
// policies, in an RBAC filter before the check.
func (a *authzFilter) chosenByIstio() bool {
	return a.authz.GetFilterEnabledMetadata().GetFilter() == rbacName && slices.ContainsFunc(a.manager.filters, func(f httpFilter) bool {
		r, ok := f.msg.(*rbacv3.RBAC)
		return ok && f.name == rbacName && (r.GetShadowRules() != nil || r.GetShadowMatcher() != nil)
	})
}

const rbacName = "envoy.filters.http.rbac"

func shadow(in *Input, report func(Finding)) {
	for _, c := range in.configs() {
		if c.msg.GetShadowMode() {
			report(c.at("shadow_mode").says("denials are only noted: every request passes"))
		}
	}
}

func body(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		if a.authz.GetWithRequestBody() == nil {
			continue
		}
		f := a.at("with_request_body").says("every body is held back before the check, and those over %d bytes are refused with 413", a.authz.GetWithRequestBody().GetMaxRequestBytes())
		if a.authz.GetWithRequestBody().GetAllowPartialMessage() {
			f = a.at("with_request_body").says("the beginning of every body is held back before the check")
		}
		f.Severity = Warning
		if what := a.manager.streams(); what != "" {
			f.Severity = Error
			f.Wrong += ": " + what + " stall"
		}
		report(f)
	}
}

// streams says which streams come in here whose bodies do not end before the check. Envoy leaves the bodies of WebSockets
// alone.
func (m *manager) streams() string {
	for _, w := range m.ways() {
		if w.route.GetMatch().GetGrpc() != nil {
			return "gRPC streams"
		}
	}
	return ""
}

func clearsRoute(in *Input, report func(Finding)) {
	for _, c := range in.configs() {
		if c.msg.GetClearRouteCache() {
			report(c.at("clear_route_cache").says("the route is chosen again after the check: what was checked may not be what is served"))
		}
	}
}

// badRetries are conditions under which a check that was seen is asked again.
var badRetries = []string{"5xx", "gateway-error", "deadline-exceeded", "retriable-4xx", "reset", "internal", "unavailable", "resource-exhausted", "cancelled"}

func retries(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		g := a.authz.GetGrpcService()
		if g == nil {
			continue
		}
		if g.GetGoogleGrpc() != nil {
			f := a.at("grpc_service", "google_grpc").says("google_grpc takes no retry policy, and has no cluster whose TLS, limits and health could be judged")
			f.Remedy = "Use envoy_grpc with a cluster."
			report(f)
			continue
		}
		at := a.at("grpc_service", "retry_policy")
		p := g.GetRetryPolicy()
		if p == nil {
			report(at.says("a check on a connection that Tollkeeper just closed, as in a restart, is not tried again"))
			continue
		}
		for _, on := range strings.FieldsFunc(p.GetRetryOn(), func(r rune) bool { return r == ',' || r == ' ' }) {
			if slices.Contains(badRetries, on) {
				report(at.at("retry_on").says("%q repeats checks that Tollkeeper saw: that charges twice, and doubles the load when it is slow", on))
			}
		}
	}
}

func blamesUpstream(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		if c := a.authz.GetChargeClusterResponseStats(); c == nil || c.GetValue() {
			report(a.at("charge_cluster_response_stats").says("denials count as 4xx answers of your service: alerts and autoscaling see faults that are none"))
		}
	}
}

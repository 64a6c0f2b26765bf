package lint

import (
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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

// asked: every way in has a filter that asks, before the router.
func asked(in *Input, report func(Finding)) {
	anybody := len(in.asks()) > 0
	for _, e := range in.envoys {
		asks, open := 0, false
		for _, m := range e.managers {
			asks += len(in.asksOf(m))
			open = open || m.open()
		}
		switch {
		case asks > 0:
			for _, m := range e.managers {
				askedOf(in, m, report)
			}
		case len(e.listeners) == 0 && !e.dump:
			// a bootstrap that gets everything from a control plane
			f := e.says("there are no listeners in here to be judged")
			f.Severity, f.Mend = Info, "Give the configuration dump of the running Envoy instead: tollkeeper doctor envoy --admin http://127.0.0.1:9901."
			report(f)
		case !anybody:
			report(e.says("no listener asks %s", in.authorizer()))
		case open: // it may be one that stands behind the other
			f := e.says("no listener of this Envoy asks %s, though another Envoy does", in.authorizer())
			f.Severity = Info
			report(f)
		}
	}
}

func (in *Input) authorizer() string {
	if in.opt.Cluster != "" {
		return "the cluster " + in.opt.Cluster + ": no ext_authz filter names it"
	}
	return "an authorizer: there is no ext_authz filter"
}

func askedOf(in *Input, m *manager, report func(Finding)) {
	asks := in.asksOf(m)
	if len(asks) == 0 {
		if m.open() && !m.outbound() {
			f := m.at("http_filters").says("requests come in here and go to an upstream, and nobody is asked, though another listener asks")
			f.Severity = Warning
			report(f)
		}
		return
	}
	names := make(map[string]bool)
	for _, a := range asks {
		if names[a.name] {
			report(a.says("there are several filters called %q: what a route says of one it says of all", a.name))
		}
		names[a.name] = true
		for _, before := range m.filters[:a.index] {
			if strings.HasSuffix(before.typeName, "filters.http.router.v3.Router") {
				report(a.says("the filter %q stands behind the router, which ends the chain: it is never asked", a.name))
			}
		}
	}
}

// open reports whether requests to any path get to an upstream.
func (m *manager) open() bool {
	if m.hidden {
		return true
	}
	for _, w := range m.ways() {
		if w.upstream() && w.route.GetMatch().GetPrefix() == "/" {
			return true
		}
	}
	return false
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
			f.Mend = "Use Envoy 1.37.1 or newer."
			report(f)
		}
	}
}

// sometimes: the filter runs for some requests only.
func sometimes(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		e := a.authz.GetFilterEnabled()
		if e == nil || a.authz.GetDenyAtDisable().GetDefaultValue().GetValue() {
			continue
		}
		d := e.GetDefaultValue()
		whole := map[typev3.FractionalPercent_DenominatorType]uint32{
			typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
		}[d.GetDenominator()]
		at := a.at("filter_enabled")
		switch {
		case d.GetNumerator() < whole:
			report(at.says("only %d of %d requests are checked, and the others pass", d.GetNumerator(), whole))
		case e.GetRuntimeKey() != "":
			report(at.says("the runtime key %q can switch checks off, and then all requests pass", e.GetRuntimeKey()))
		}
	}
}

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
			f.Mend = "Use envoy_grpc with a cluster."
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

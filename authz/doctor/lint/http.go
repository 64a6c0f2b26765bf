package lint

import (
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// The rules of this file look at the HTTP connection manager around the filter: what a request is when it is checked, and
// what stands before and behind the check.

func paths(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		if !m.msg.GetNormalizePath().GetValue() {
			report(m.at("normalize_path").says("/a/../admin and /%%61dmin are not /admin to the routes, though they are to many services"))
		}
		if !m.msg.GetMergeSlashes() {
			f := m.at("merge_slashes").says("//admin is not /admin to the routes, though it is to many services")
			f.Severity = Warning
			report(f)
		}
		switch m.msg.GetPathWithEscapedSlashesAction() {
		case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
			f := m.at("path_with_escaped_slashes_action").says("/a%%2fadmin is not /a/admin to the routes, though it is to many services")
			f.Severity = Warning
			report(f)
		}
	}
}

func underscores(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		switch m.msg.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() {
		case corev3.HttpProtocolOptions_REJECT_REQUEST, corev3.HttpProtocolOptions_DROP_HEADER:
		default:
			report(m.at("common_http_protocol_options", "headers_with_underscores_action").says(
				"x_tollkeeper_account passes, which CGI, WSGI and others cannot tell from x-tollkeeper-account"))
		}
	}
}

func clientAddress(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		if m.edge() && !m.msg.GetUseRemoteAddress().GetValue() {
			report(m.at("use_remote_address").says("clients choose the address in x-forwarded-for themselves"))
		}
	}
}

// unlimited: a connection that was checked once lasts for ever.
func unlimited(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		if !slices.ContainsFunc(m.msg.GetUpgradeConfigs(), func(u *hcmv3.HttpConnectionManager_UpgradeConfig) bool {
			return strings.EqualFold(u.GetUpgradeType(), "websocket") && (u.GetEnabled() == nil || u.GetEnabled().GetValue())
		}) || m.msg.GetCommonHttpProtocolOptions().GetMaxStreamDuration() != nil {
			continue
		}
		var unlimited []string
		var first spot
		for _, w := range m.ways() {
			if !in.unasked(m, &w) && w.route.GetRoute() != nil && w.route.GetRoute().GetMaxStreamDuration() == nil {
				if unlimited = append(unlimited, w.matches()); len(unlimited) == 1 {
					first = w.at("route", "max_stream_duration")
				}
			}
		}
		if len(unlimited) > 0 {
			report(first.says("a WebSocket is checked when it is opened and lasts as long as it likes, on %s", some(unlimited)))
		}
	}
}

// some lists a few of many names.
func some(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and others"
}

func redirects(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		for _, w := range m.ways() {
			if w.route.GetRoute().GetInternalRedirectPolicy() != nil {
				report(w.at("route", "internal_redirect_policy").says("a request that is redirected inside is checked, and charged, twice"))
			}
		}
	}
}

// rewritten: what callers are told about a denial is changed.
func rewritten(in *Input, report func(Finding)) {
	const whole = "%LOCAL_REPLY_BODY%"
	for _, m := range in.managers() {
		c := m.msg.GetLocalReplyConfig()
		at := m.at("local_reply_config")
		if f := c.GetBodyFormat(); f != nil && !strings.Contains(f.String(), whole) {
			report(at.at("body_format").says("the body of every denial is replaced: the reason and the remedy are lost"))
		}
		for i, r := range c.GetMappers() {
			replaces := r.GetStatusCode() != nil || r.GetBody() != nil && !strings.Contains(r.GetBodyFormatOverride().String(), whole) ||
				r.GetBodyFormatOverride() != nil && !strings.Contains(r.GetBodyFormatOverride().String(), whole)
			if replaces && ofDenials(r.GetFilter()) {
				report(at.at("mappers").index(i).says("the status or body of denials is replaced: callers cannot tell 402 from 403, or why"))
			}
		}
	}
}

// ofDenials reports whether an access log filter may take a denial. What cannot be judged may.
func ofDenials(f *accesslogv3.AccessLogFilter) bool {
	switch {
	case f.GetResponseFlagFilter() != nil:
		flags := f.GetResponseFlagFilter().GetFlags()
		return len(flags) == 0 || slices.Contains(flags, "UAEX")
	case f.GetStatusCodeFilter() != nil:
		c := f.GetStatusCodeFilter().GetComparison()
		want := c.GetValue().GetDefaultValue()
		for _, denial := range []uint32{402, 403} {
			switch op := c.GetOp(); {
			case op == accesslogv3.ComparisonFilter_EQ && denial == want, op == accesslogv3.ComparisonFilter_GE && denial >= want,
				op == accesslogv3.ComparisonFilter_LE && denial <= want, op == accesslogv3.ComparisonFilter_NE && denial != want:
				return true
			}
		}
		return false
	case f.GetAndFilter() != nil:
		return !slices.ContainsFunc(f.GetAndFilter().GetFilters(), func(f *accesslogv3.AccessLogFilter) bool { return !ofDenials(f) })
	case f.GetOrFilter() != nil:
		return slices.ContainsFunc(f.GetOrFilter().GetFilters(), ofDenials)
	}
	return true
}

// corsBehind: preflights have no credentials, so that a check before CORS denies them.
func corsBehind(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		first := in.asksOf(m)[0]
		for _, f := range m.filters[first.index+1:] {
			if _, ok := f.msg.(*corsv3.Cors); ok && m.usesCORS() {
				report(f.says("CORS is answered behind the check: preflights, which never have a credential, are denied"))
			}
		}
		for _, w := range m.ways() {
			for _, level := range []struct {
				s spot
				p map[string]*anyMessage
			}{{w.above[1], w.host.GetTypedPerFilterConfig()}, {w.spot, w.route.GetTypedPerFilterConfig()}} {
				for name, a := range level.p {
					msg, _ := unpack(a)
					if p, ok := msg.(*corsv3.CorsPolicy); ok && p.GetForwardNotMatchingPreflights() != nil && p.GetForwardNotMatchingPreflights().GetValue() {
						f := level.s.at("typed_per_filter_config").key(name).at("forward_not_matching_preflights").says(
							"preflights from origins that are not allowed go on to the check, which denies them with a reason that misleads")
						f.Severity = Info
						report(f)
					}
				}
			}
		}
	}
}

// usesCORS reports whether any route has a CORS policy; Istio puts the filter into every chain.
func (m *manager) usesCORS() bool {
	if m.hidden {
		return true
	}
	has := func(per map[string]*anyMessage) bool {
		for _, a := range per {
			msg, _ := unpack(a)
			if _, ok := msg.(*corsv3.CorsPolicy); ok {
				return true
			}
		}
		return false
	}
	for _, w := range m.ways() {
		if has(w.route.GetTypedPerFilterConfig()) || has(w.host.GetTypedPerFilterConfig()) || has(w.table.GetTypedPerFilterConfig()) {
			return true
		}
	}
	return false
}

const jwtName = "envoy.filters.http.jwt_authn"

// jwtBehind: what jwt_authn found out is read before it did.
func jwtBehind(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		for _, a := range in.asksOf(m) {
			if !slices.Contains(a.authz.GetMetadataContextNamespaces(), jwtName) {
				continue
			}
			for _, f := range m.filters[a.index+1:] {
				if _, ok := f.msg.(*jwtv3.JwtAuthentication); ok {
					report(f.says("tokens are verified behind the check, which therefore is told nothing about them"))
				}
			}
		}
	}
}

// jwtUnsent: our configuration leaves tokens to Envoy, which does not say what it found.
func jwtUnsent(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		for _, i := range o.Config.Tokens.Issuers {
			if i.Envoy == "" {
				continue
			}
			for _, a := range in.asks() {
				if !slices.Contains(a.authz.GetMetadataContextNamespaces(), jwtName) {
					report(a.at("metadata_context_namespaces").says("tokens of %q are left to Envoy, and what it finds is not sent along", i.Issuer))
				}
			}
		}
	}
}

// chargedFirst: somebody behind the check may still refuse what was charged.
func chargedFirst(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		asks := in.asksOf(m)
		for _, f := range m.filters[asks[len(asks)-1].index+1:] {
			what := ""
			switch {
			case isRBAC(f):
				what = "an RBAC filter"
			case strings.HasSuffix(f.typeName, "filters.http.ratelimit.v3.RateLimit"), strings.HasSuffix(f.typeName, "filters.http.local_ratelimit.v3.LocalRateLimit"):
				what = "a rate limit"
			}
			if what != "" {
				report(f.says("%s stands behind the check: what it refuses was charged already", what))
			}
		}
	}
}

// isRBAC reports whether a filter enforces rules; shadow rules only note.
func isRBAC(f httpFilter) bool {
	r, ok := f.msg.(*rbacv3.RBAC)
	return ok && (r.GetRules() != nil || r.GetMatcher() != nil)
}

package rules

import (
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// This file has the rules about listeners: how they change requests before the check, and answers after it.

var unnormalizedPaths = rule.Rule{
	ID: "TK122", Severity: rule.Error, Since: since, Title: "Paths are not normalized.",
	Why:    "Your service may understand a path differently than routes and policies.",
	Remedy: "Set normalize_path: true, merge_slashes: true and path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT.",
	Checks: []rule.Check{pathsOfEnvoy, pathsOfIstio, pathsOfGateway},
}

const (
	doubleSlash  = "for routes //admin is not /admin, but for many services it is"
	escapedSlash = "for routes /a%%2fadmin is not /a/admin, but for many services it is"
)

func pathsOfEnvoy(in *model.Model, report rule.Report) {
	for _, m := range in.Protected() {
		if !m.Msg.GetNormalizePath().GetValue() {
			report(rule.At(m.At("normalize_path"), "for routes /a/../admin and /%%61dmin are not /admin, but for many services they are"))
		}
		if !m.Msg.GetMergeSlashes() {
			report(rule.At(m.At("merge_slashes"), doubleSlash).As(rule.Warning))
		}
		if keepsEscapedSlashes(m.Msg) {
			report(rule.At(m.At("path_with_escaped_slashes_action"), escapedSlash).As(rule.Warning))
		}
	}
}

func keepsEscapedSlashes(m *hcmv3.HttpConnectionManager) bool {
	switch m.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
		return true
	}
	return false
}

func pathsOfIstio(in *model.Model, report rule.Report) {
	if in.PatchMergesSlashes() {
		return
	}
	for _, mesh := range in.Meshes {
		at := mesh.At("pathNormalization.normalization")
		asks := slices.ContainsFunc(in.ChecksBy(model.ByProvider), func(c *model.ExtAuthz) bool { return c.Mesh.ID() == mesh.ID() })
		if v := at.Text(); !asks || v == "MERGE_SLASHES" || v == "DECODE_AND_MERGE_SLASHES" {
			continue
		}
		found := rule.At(at, "for policies and routes //admin is not /admin, but for many services it is").
			As(rule.Warning).FixedBy("Set pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}.")
		if !at.Exists() {
			found = found.As(rule.Info) // an EnvoyFilter or other parts of the mesh configuration may do it
		}
		report(found)
	}
}

func pathsOfGateway(in *model.Model, report rule.Report) {
	for _, o := range in.Objects.Of(model.EnvoyGateway, "ClientTrafficPolicy") {
		if at := o.At("spec.path.disableMergeSlashes"); at.True() {
			report(rule.At(at, doubleSlash).As(rule.Warning).FixedBy("Remove disableMergeSlashes."))
		}
		if at := o.At("spec.path.escapedSlashesAction"); at.Text() == "KeepUnchanged" {
			report(rule.At(at, escapedSlash).As(rule.Warning).FixedBy("Use UnescapeAndRedirect."))
		}
	}
}

var underscoreHeaders = rule.Rule{
	ID: "TK123", Severity: rule.Warning, Since: since, Title: "Header names with underscores pass.",
	Why:    "Many services cannot tell x_tollkeeper_account from x-tollkeeper-account.",
	Remedy: "Set common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		const wrong = "x_tollkeeper_account passes, and CGI, WSGI and others confuse it with x-tollkeeper-account"
		for _, m := range in.Protected() {
			switch m.Msg.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() {
			case corev3.HttpProtocolOptions_REJECT_REQUEST, corev3.HttpProtocolOptions_DROP_HEADER:
			default:
				report(rule.At(m.At("common_http_protocol_options.headers_with_underscores_action"), wrong))
			}
		}
		for _, o := range in.Objects.Of(model.EnvoyGateway, "ClientTrafficPolicy") {
			if at := o.At("spec.headers.withUnderscoresAction"); at.Text() == "Allow" {
				report(rule.At(at, wrong).FixedBy("Remove withUnderscoresAction: then such requests are rejected."))
			}
		}
	}},
}

var clientAddress = rule.Rule{
	ID: "TK126", Severity: rule.Warning, Since: since, Title: "Clients choose their own address.",
	Why:    "Policies and logs see the address that the client writes into x-forwarded-for.",
	Remedy: "Set use_remote_address: true, and xff_num_trusted_hops to the number of your proxies in front.",
	Checks: each((*model.Model).Protected, func(_ *model.Model, m *model.Manager, report rule.Report) {
		if model.IsEdge(m.Listener) && !m.Msg.GetUseRemoteAddress().GetValue() {
			report(rule.At(m.At("use_remote_address"), "clients choose the address in x-forwarded-for themselves"))
		}
	}),
}

var endlessStreams = rule.Rule{
	ID: "TK127", Severity: rule.Warning, Since: since, Title: "A WebSocket never ends, or a request is checked twice.",
	Why:    "A WebSocket outlives the key that opened it. A redirect inside Envoy is charged again.",
	Remedy: "Set max_stream_duration on routes that take WebSockets, and remove internal_redirect_policy.",
	Checks: []rule.Check{
		endlessInEnvoy,
		func(in *model.Model, report rule.Report) {
			for _, m := range in.Protected() {
				for _, r := range m.Routes {
					if r.Msg.GetRoute().GetInternalRedirectPolicy() != nil {
						report(rule.At(r.At("route.internal_redirect_policy"), "a request that is redirected inside Envoy is checked, and charged, twice"))
					}
				}
			}
		},
		func(in *model.Model, report rule.Report) { // Envoy Gateway lets WebSockets through by default
			if slices.ContainsFunc(in.Objects.Of(model.EnvoyGateway, "BackendTrafficPolicy"), func(o *model.Object) bool {
				return o.At("spec.timeout.http.maxStreamDuration").Exists()
			}) {
				return
			}
			for _, c := range in.ChecksBy(model.ByPolicy) {
				report(rule.At(c.Object.At("spec"), "no BackendTrafficPolicy ends streams: a WebSocket is checked when it is opened, and then lasts without limit").
					As(rule.Info).FixedBy("Set timeout: {http: {maxStreamDuration: 1h}} in a BackendTrafficPolicy."))
			}
		},
	},
}

func endlessInEnvoy(in *model.Model, report rule.Report) {
	for _, m := range in.Protected() {
		if !slices.ContainsFunc(m.Msg.GetUpgradeConfigs(), func(u *hcmv3.HttpConnectionManager_UpgradeConfig) bool {
			return strings.EqualFold(u.GetUpgradeType(), "websocket") && (u.GetEnabled() == nil || u.GetEnabled().GetValue())
		}) || m.Msg.GetCommonHttpProtocolOptions().GetMaxStreamDuration() != nil {
			continue
		}
		var endless []string
		var first source.Location
		for _, r := range m.Routes {
			if in.IsProtected(m, &r) && r.Msg.GetRoute() != nil && r.Msg.GetRoute().GetMaxStreamDuration() == nil {
				if endless = append(endless, r.Matches()); len(endless) == 1 {
					first = r.At("route.max_stream_duration")
				}
			}
		}
		if len(endless) > 0 {
			report(rule.At(first, "a WebSocket is checked when it is opened, and then lasts without limit, on %s", some(endless)))
		}
	}
}

var rewrittenDenials = rule.Rule{
	ID: "TK128", Severity: rule.Warning, Since: since, Title: "Denials are rewritten.",
	Why:    "Callers lose the reason, or the status that tells a payment (402) from a refusal (403).",
	Remedy: "Leave 402, 403 and the response flag UAEX out of local_reply_config, or keep %LOCAL_REPLY_BODY%.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		replaces := func(f *corev3.SubstitutionFormatString) bool {
			return f != nil && !strings.Contains(f.String(), "%LOCAL_REPLY_BODY%")
		}
		for _, m := range in.Protected() {
			c := m.Msg.GetLocalReplyConfig()
			at := m.At("local_reply_config")
			if replaces(c.GetBodyFormat()) {
				report(rule.At(at.At("body_format"), "the body of every denial is replaced: the reason and the remedy are lost"))
			}
			for i, r := range c.GetMappers() {
				format := r.GetBodyFormatOverride()
				if (r.GetStatusCode() != nil || r.GetBody() != nil && format == nil || replaces(format)) && takesDenials(r.GetFilter()) {
					report(rule.At(at.At("mappers").Index(i), "the status or body of denials is replaced: callers cannot tell 402 from 403, or why"))
				}
			}
		}
	}},
}

// takesDenials reports whether an access log filter may match a denial. It assumes so for filters that it does not know.
func takesDenials(f *accesslogv3.AccessLogFilter) bool {
	switch {
	case f.GetResponseFlagFilter() != nil:
		flags := f.GetResponseFlagFilter().GetFlags()
		return len(flags) == 0 || slices.Contains(flags, "UAEX")
	case f.GetStatusCodeFilter() != nil:
		c := f.GetStatusCodeFilter().GetComparison()
		want := c.GetValue().GetDefaultValue()
		return slices.ContainsFunc([]uint32{402, 403}, func(denial uint32) bool {
			op := c.GetOp()
			return op == accesslogv3.ComparisonFilter_EQ && denial == want || op == accesslogv3.ComparisonFilter_GE && denial >= want ||
				op == accesslogv3.ComparisonFilter_LE && denial <= want || op == accesslogv3.ComparisonFilter_NE && denial != want
		})
	case f.GetAndFilter() != nil:
		return !slices.ContainsFunc(f.GetAndFilter().GetFilters(), func(f *accesslogv3.AccessLogFilter) bool { return !takesDenials(f) })
	case f.GetOrFilter() != nil:
		return slices.ContainsFunc(f.GetOrFilter().GetFilters(), takesDenials)
	}
	return true
}

package rules

import (
	"fmt"
	"slices"

	"github.com/agnivade/levenshtein"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

var unreadable = rule.Rule{
	ID: "TK001", Severity: rule.Error, Since: since, Title: "The configuration cannot be read, or breaks a constraint.",
	Why:    "Envoy, istiod or Envoy Gateway refuses it, or drops unknown fields silently.",
	Remedy: "Correct the field: see the reference of its type.",
	Checks: []rule.Check{
		func(in *model.Model, report rule.Report) {
			for _, f := range in.Faults {
				found := rule.At(f.Location, "%s", f.Text)
				if f.Note {
					found = found.As(rule.Info)
				}
				report(found)
			}
		},
		unknownFields,
	},
}

// unknownFields finds misspelt fields in Kubernetes objects.
func unknownFields(in *model.Model, report rule.Report) {
	for _, c := range in.Checks {
		switch c.Way {
		case model.ByProvider:
			known(c.Location, "EnvoyExternalAuthorizationGrpcProvider", report)
			known(c.Body, "EnvoyExternalAuthorizationRequestBody", report)
		case model.ByPolicy:
			known(c.Location, "ExtAuth", report)
			known(c.At("grpc"), "GRPCExtAuthService", report)
			known(c.Body, "BodyToExtAuth", report)
			for _, x := range c.At("contextExtensions").Items() {
				known(x, "ContextExtension", report)
			}
		}
	}
	for _, o := range in.Objects.Of(model.IstioSecurity, "AuthorizationPolicy") {
		known(o.At("spec"), "AuthorizationPolicy", report)
		for _, r := range o.At("spec.rules").Items() {
			known(r, "Rule", report)
			for _, to := range r.At("to").Items() {
				known(to.At("operation"), "Operation", report)
			}
		}
	}
	for _, o := range in.Objects.Of(model.EnvoyGateway, "ClientTrafficPolicy") {
		known(o.At("spec.headers.earlyRequestHeaders"), "HTTPHeaderFilter", report)
	}
}

// known reports fields that a type does not have.
func known(l source.Location, typeName string, report rule.Report) {
	fields := model.KnownFields[typeName]
	for _, k := range l.Keys() {
		if slices.Contains(fields, k) {
			continue
		}
		hint := ""
		if near := nearest(k, fields); near != "" {
			hint = fmt.Sprintf(": did you mean %q?", near)
		}
		report(rule.At(l.Child(k), "there is no field %q here%s", k, hint).
			FixedBy("Correct the name: a cluster refuses the object, or drops the field silently."))
	}
}

// nearest returns a known name that differs only in style, or in one or two letters, "" if there is none.
func nearest(name string, list []string) string {
	flat := source.Flatten(name)
	for _, k := range list {
		if source.Flatten(k) == flat {
			return k
		}
	}
	for _, k := range list {
		if len(k) > 4 && levenshtein.ComputeDistance(source.Flatten(k), flat) <= 2 {
			return k
		}
	}
	return ""
}

var newerField = rule.Rule{
	ID: "TK004", Severity: rule.Warning, Since: since, Title: "A field is newer than the Envoy that will read it.",
	Why:    "Envoy refuses the configuration.",
	Remedy: "Remove the field, or use a newer Envoy.",
	Checks: each(by(model.ByFilter), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		e := c.Manager.Envoy
		if !e.Version.Known() || e.Dump {
			return
		}
		for _, f := range []struct {
			field string
			set   bool
			since model.Version
		}{
			{"enforce_response_header_limits", c.Msg.GetEnforceResponseHeaderLimits(), model.Version{1, 37, 0}},
			{"shadow_mode", c.Msg.GetShadowMode(), model.Version{1, 38, 0}},
			{"emit_client_span", c.Msg.GetEmitClientSpan() != nil, model.Version{1, 40, 0}},
			{"clear_route_cache_headers", len(c.Msg.GetClearRouteCacheHeaders()) > 0, model.Version{1, 41, 0}},
		} {
			if f.set && e.Version.Before(f.since) {
				report(rule.At(c.At(f.field), "Envoy %s does not know this field: it is new in %s", e.Version, f.since))
			}
		}
	}),
}

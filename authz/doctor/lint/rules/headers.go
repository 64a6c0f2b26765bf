package rules

import (
	"fmt"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// This file has the rules about headers that Tollkeeper reads or sets, and about others who may set them.

var unvalidated = rule.Rule{
	ID: "TK107", Severity: rule.Warning, Since: since, Title: "Header changes by the authorizer are not validated.",
	Why:    "An invalid header in an answer has undefined effects.",
	Remedy: "Set validate_mutations: true.",
	Checks: each(by(model.ByFilter), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		if !c.Msg.GetValidateMutations() {
			report(rule.At(c.At("validate_mutations"), "headers from the authorizer are not validated before they are put into a request"))
		}
	}),
}

var unruled = rule.Rule{
	ID: "TK108", Severity: rule.Warning, Since: since, Title: "The authorizer may change any header.",
	Why:    "Anyone who answers checks or writes policies can send requests elsewhere.",
	Remedy: "Set decoder_header_mutation_rules with disallow_all: true, disallow_is_error: true and allow_expression: {regex: \"^(x-tollkeeper-.*|x-api-key|authorization)$\"}.",
	Checks: each(by(model.ByFilter), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		if c.Msg.GetDecoderHeaderMutationRules() == nil {
			report(rule.At(c.At("decoder_header_mutation_rules"), "the authorizer may change any header of a request, :path and host included"))
		}
	}),
}

var forbiddenHeaders = rule.Rule{
	ID: "TK109", Severity: rule.Error, Since: since, Title: "Envoy does not let Tollkeeper change headers that it sets or removes.",
	Why:    "Allowed requests fail, or reach the upstream with the credential and without the identity of the caller.",
	Remedy: "Let allow_expression match x-tollkeeper-.*, every header that may hold a credential and, if keys may be in the query, :path.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		headers, removed := in.Credentials()
		wanted := slices.Clone(model.Identity)
		if removed {
			wanted = append(wanted, headers...)
			if len(in.Own) > 0 && len(in.Own[0].Config.Credentials.Query) > 0 {
				wanted = append(wanted, ":path") // to remove a key from the query
			}
		}
		for _, c := range writtenBy(model.ByFilter, model.ByPatch)(in) {
			if rules := c.Msg.GetDecoderHeaderMutationRules(); rules != nil {
				forbidden := slices.DeleteFunc(slices.Clone(wanted), func(h string) bool { return mayMutate(rules, h) })
				if len(forbidden) == 0 {
					continue
				}
				effect := "silently has no effect: credentials reach your service, and the identity of the caller does not"
				if rules.GetDisallowIsError().GetValue() {
					effect = "turns every allowed request into a 500"
				}
				report(rule.At(c.At("decoder_header_mutation_rules"), "Tollkeeper sets or removes %s, which is forbidden here and %s", strings.Join(forbidden, ", "), effect))
			}
		}
	}},
}

// mayMutate applies the rules in Envoy's order to a header that is not one of Envoy's own.
func mayMutate(r *mutationv3.HeaderMutationRules, header string) bool {
	switch {
	case r.GetDisallowExpression() != nil && model.MatchesRegex(r.GetDisallowExpression().GetRegex(), header):
		return false
	case r.GetAllowExpression() != nil && model.MatchesRegex(r.GetAllowExpression().GetRegex(), header):
		return true
	}
	return !r.GetDisallowAll().GetValue()
}

var forgedIdentity = rule.Rule{
	ID: "TK110", Severity: rule.Error, Since: since, Title: "Clients can send the headers that tell upstreams who calls.",
	Why:    "On every route that is not checked, and whenever checks fail open, a client can pass for any account.",
	Remedy: "Add an early_header_mutation extension with remove_on_match: {key_matcher: {prefix: x-tollkeeper-, ignore_case: true}}.",
	Checks: []rule.Check{forgedInEnvoy, forgedInIstio, forgedInGateway},
}

func forgedInEnvoy(in *model.Model, report rule.Report) {
	for _, m := range in.Protected() {
		if !m.StripsIdentity(m.Checks[0].Index) {
			report(rule.At(m.At("early_header_mutation_extensions"), "clients can send %s themselves, and on routes without a check your service trusts it", model.Identity[1]))
		}
	}
}

func forgedInIstio(in *model.Model, report rule.Report) {
	byPatch, policies := in.PatchStripsIdentity(), customsInForce(in)
	for _, p := range policies {
		if p.At("spec.rules").Any(takesAll) {
			continue // Tollkeeper sees every request and removes the headers
		}
		found := rule.At(p.At("spec"), "no EnvoyFilter removes x-tollkeeper-* of clients: on paths that the policy does not cover, your service trusts them").
			FixedBy("Add an EnvoyFilter that inserts a header_mutation filter before ext_authz with remove_on_match for the prefix x-tollkeeper-.")
		if p.ForWaypoint(in.Objects) {
			if open, judged := holesOf(in, p, policies); len(open) == 0 && judged {
				continue
			}
			found = rule.At(p.At("spec"), "no EnvoyFilter can remove x-tollkeeper-* of clients at a waypoint: on requests that the policy does not cover, your service trusts them").
				FixedBy("Check every request with rules: [{}], and let Tollkeeper's policies allow what is public.")
		} else if byPatch {
			continue
		}
		report(found.As(rule.Warning))
	}
}

// takesAll reports whether a rule of an AuthorizationPolicy matches every request.
func takesAll(r source.Location) bool {
	return !r.At("from").Exists() && !r.At("to").Exists() && !r.At("when").Exists()
}

func forgedInGateway(in *model.Model, report rule.Report) {
	policies := in.Objects.Of(model.EnvoyGateway, "ClientTrafficPolicy")
	for _, c := range in.ChecksBy(model.ByPolicy) {
		if slices.ContainsFunc(policies, func(o *model.Object) bool { return stripsIdentity(o) && c.Object.MayShareGateway(o, in.Objects) }) {
			continue
		}
		found := rule.At(c.Object.At("spec"), "no ClientTrafficPolicy of the gateway removes x-tollkeeper-* of clients: on routes without a check, your service trusts them").
			FixedBy("Add a ClientTrafficPolicy for the gateway with headers: {earlyRequestHeaders: {removeOnMatch: [{type: Prefix, value: x-tollkeeper-}]}}.")
		if len(policies) == 0 {
			found = found.As(rule.Warning) // it may be in other files
		}
		report(found)
	}
}

// stripsIdentity reports whether a ClientTrafficPolicy removes the identity headers of clients.
func stripsIdentity(o *model.Object) bool {
	return o.At("spec.headers.earlyRequestHeaders.removeOnMatch").Any(func(m source.Location) bool {
		value := m.At("value").Text()
		switch m.At("type").Text() {
		case "Prefix":
			return value != "" && strings.HasPrefix("x-tollkeeper-", strings.ToLower(value))
		case "RegularExpression":
			return !slices.ContainsFunc(model.Identity, func(h string) bool { return !model.MatchesRegex(value, h) })
		}
		return false
	})
}

var joinedHeaders = rule.Rule{
	ID: "TK111", Severity: rule.Info, Since: since, Title: "Headers that were sent twice are joined before Tollkeeper sees them.",
	Why:    "Two keys in one request look like one unknown key, and bytes that are not ASCII are lost.",
	Remedy: "Set encode_raw_headers: true.",
	Checks: each(by(model.ByFilter), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		if c.GRPC && !c.Msg.GetEncodeRawHeaders() {
			report(rule.At(c.At("encode_raw_headers"), "a header that was sent twice reaches Tollkeeper as one, joined by a comma"))
		}
	}),
}

var withheldHeaders = rule.Rule{
	ID: "TK112", Severity: rule.Error, Since: since, Title: "Envoy does not send Tollkeeper a header that may hold a credential.",
	Why:    "Every credential in it counts as missing.",
	Remedy: "Remove the header from disallowed_headers, or add it to allowed_headers.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		headers, _ := in.Credentials()
		for _, c := range writtenBy(model.ByFilter, model.ByPatch, model.ByPolicy)(in) {
			for _, h := range headers {
				at, unlisted, withheld := c.Withholds(h)
				if !withheld {
					continue
				}
				wrong := "Envoy does not send %s to Tollkeeper: a credential in it counts as missing"
				if unlisted {
					wrong = "%s is not in the list of headers that Envoy sends to Tollkeeper: a credential in it counts as missing"
				}
				found := rule.At(at, wrong, h)
				if c.Way == model.ByPolicy {
					found = found.FixedBy(fmt.Sprintf("Add it to the list, or remove %s.", c.Fields.Headers))
				}
				report(found)
			}
		}
	}},
}

var unhardened = rule.Rule{
	ID: "TK158", Severity: rule.Info, Since: since, Title: "The generated filter is not hardened.",
	Why:    "Answers are not validated, any header may be changed, duplicate headers are joined, and denials count as faults of your service.",
	Remedy: "Merge validate_mutations, encode_raw_headers and decoder_header_mutation_rules into it, by an EnvoyFilter or EnvoyPatchPolicy.",
	Checks: []rule.Check{
		func(in *model.Model, report rule.Report) {
			if slices.ContainsFunc(in.Patches, func(p model.Patch) bool { _, ok := p.Msg.(*extauthzv3.ExtAuthz); return ok }) {
				return
			}
			for _, o := range in.Objects.Customs() {
				if !o.ForWaypoint(in.Objects) {
					report(rule.At(o.At("spec"), "no EnvoyFilter hardens the filter that istiod makes"))
				}
			}
		},
		func(in *model.Model, report rule.Report) {
			if slices.ContainsFunc(in.JSONPatches, func(j model.JSONPatch) bool {
				return j.EndsWith("validate_mutations", 0) || j.EndsWith("decoder_header_mutation_rules", 0)
			}) {
				return
			}
			for _, c := range in.ChecksBy(model.ByPolicy) {
				report(rule.At(c.Location, "no EnvoyPatchPolicy hardens the filter that Envoy Gateway makes"))
			}
		},
	},
}

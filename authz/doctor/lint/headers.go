package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// The rules of this file look at headers: those that Tollkeeper reads, those that it gives to upstreams, and who else may
// set them.

// identity are the headers by which upstreams are told who calls.
var identity = []string{"x-tollkeeper-key-id", "x-tollkeeper-account", "x-tollkeeper-plan", "x-tollkeeper-subject", "x-tollkeeper-issuer"}

// credentials are the headers that may hold a credential, and whether Tollkeeper takes them out of the request. If its own
// configuration is not among the files, it is taken to be the default.
func (in *Input) credentials() (headers []string, removed bool) {
	if len(in.owns) == 0 {
		return []string{"x-api-key", "authorization"}, true
	}
	c := &in.owns[0].Config
	headers = slices.Clone(c.Credentials.Headers)
	if c.Credentials.Bearer || len(c.Tokens.Issuers) > 0 || c.Tokens.Introspection.URL != "" {
		headers = append(headers, "authorization")
	}
	if len(c.Credentials.Cookies) > 0 {
		headers = append(headers, "cookie")
	}
	return headers, !c.Credentials.Keep
}

// matches reports whether a matcher takes a text. What cannot be judged is taken not to match.
func matches(m *matcherv3.StringMatcher, text string) bool {
	fold := func(s string) string { return s }
	if m.GetIgnoreCase() {
		fold = strings.ToLower
	}
	text = fold(text)
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return text == fold(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(text, fold(p.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(text, fold(p.Suffix))
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(text, fold(p.Contains))
	case *matcherv3.StringMatcher_SafeRegex:
		return matchesRegex(p.SafeRegex, text)
	}
	return false
}

// matchesRegex: Envoy wants the whole text to match.
func matchesRegex(m *matcherv3.RegexMatcher, text string) bool {
	re, err := regexp.Compile("^(?:" + m.GetRegex() + ")$")
	return err == nil && re.MatchString(text)
}

// stripped: what clients say of who they are is taken out before anybody reads it.
func stripped(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		if m.strips(in.asksOf(m)[0]) {
			continue
		}
		report(m.at("early_header_mutation_extensions").says("clients can send %s themselves, and on routes without a check your service believes it", identity[1]))
	}
}

// strips reports whether forged headers are removed before a filter.
func (m *manager) strips(before *authzFilter) bool {
	if stripsEarly(m.msg) {
		return true
	}
	for _, f := range m.filters[:before.index] {
		if hm, ok := f.msg.(*headermutationv3.HeaderMutation); ok && !f.disabled && removesIdentity(hm.GetMutations().GetRequestMutations()) {
			return true
		}
	}
	return false
}

// stripsEarly reports whether forged headers are removed before routing.
func stripsEarly(m *hcmv3.HttpConnectionManager) bool {
	for _, x := range m.GetEarlyHeaderMutationExtensions() {
		msg, _ := unpack(x.GetTypedConfig())
		if early, ok := msg.(*earlyv3.HeaderMutation); ok && removesIdentity(early.GetMutations()) {
			return true
		}
	}
	return false
}

func removesIdentity(mutations []*mutationv3.HeaderMutation) bool {
	for _, header := range identity {
		if !slices.ContainsFunc(mutations, func(m *mutationv3.HeaderMutation) bool {
			return strings.EqualFold(m.GetRemove(), header) || matches(m.GetRemoveOnMatch().GetKeyMatcher(), header)
		}) {
			return false
		}
	}
	return true
}

func unvalidated(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		if !a.authz.GetValidateMutations() {
			report(a.at("validate_mutations").says("headers from the authorizer are not checked before they are put into a request"))
		}
	}
}

func unruled(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		if a.authz.GetDecoderHeaderMutationRules() == nil {
			report(a.at("decoder_header_mutation_rules").says("whoever answers the check may change any header of a request, :path and host included"))
		}
	}
}

// ruledOut: rules that forbid what Tollkeeper does.
func ruledOut(in *Input, report func(Finding)) {
	headers, removed := in.credentials()
	wanted := slices.Clone(identity)
	if removed {
		wanted = append(wanted, headers...)
		if len(in.owns) > 0 && len(in.owns[0].Config.Credentials.Query) > 0 {
			wanted = append(wanted, ":path") // by which a key is taken out of the query
		}
	}
	for _, c := range in.configs() {
		if no := refusedBy(c.msg.GetDecoderHeaderMutationRules(), wanted); no != "" {
			report(c.at("decoder_header_mutation_rules").says("%s", no))
		}
	}
}

// refusedBy says which of the headers may not be changed, and what comes of it; "" if all may.
func refusedBy(rules *mutationv3.HeaderMutationRules, headers []string) string {
	var refused []string
	for _, h := range headers {
		if rules != nil && !mayMutate(rules, h) {
			refused = append(refused, h)
		}
	}
	if len(refused) == 0 {
		return ""
	}
	what := "silently has no effect: credentials reach your service, and who calls does not"
	if rules.GetDisallowIsError().GetValue() {
		what = "turns every allowed request into a 500"
	}
	return fmt.Sprintf("Tollkeeper sets or removes %s, which is forbidden here and %s", strings.Join(refused, ", "), what)
}

// mayMutate goes through the rules in Envoy's order, for a header that is none of Envoy's own.
func mayMutate(r *mutationv3.HeaderMutationRules, header string) bool {
	switch {
	case r.GetDisallowExpression() != nil && matchesRegex(r.GetDisallowExpression(), header):
		return false
	case r.GetAllowExpression() != nil && matchesRegex(r.GetAllowExpression(), header):
		return true
	}
	return !r.GetDisallowAll().GetValue()
}

func joined(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		if !a.authz.GetEncodeRawHeaders() && a.authz.GetGrpcService() != nil {
			report(a.at("encode_raw_headers").says("a header that was sent twice reaches Tollkeeper as one, joined by a comma"))
		}
	}
}

// withheld: Tollkeeper is not shown the credentials.
func withheld(in *Input, report func(Finding)) {
	headers, _ := in.credentials()
	for _, c := range in.configs() {
		for _, h := range headers {
			shown := func(m *matcherv3.StringMatcher) bool { return matches(m, h) }
			switch allowed := c.msg.GetAllowedHeaders(); {
			case slices.ContainsFunc(c.msg.GetDisallowedHeaders().GetPatterns(), shown):
				report(c.at("disallowed_headers").says("Tollkeeper is not shown %s: a credential in it counts as missing", h))
			case allowed != nil && !slices.ContainsFunc(allowed.GetPatterns(), shown):
				report(c.at("allowed_headers").says("%s is not among the headers that Tollkeeper is shown: a credential in it counts as missing", h))
			}
		}
	}
}

package model

import (
	"regexp"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
)

// Matches reports whether a matcher matches a text. A matcher of an unknown kind matches none.
func Matches(m *matcherv3.StringMatcher, text string) bool {
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
		return MatchesRegex(p.SafeRegex.GetRegex(), text)
	}
	return false
}

func anyMatches(all []*matcherv3.StringMatcher, text string) bool {
	return slices.ContainsFunc(all, func(m *matcherv3.StringMatcher) bool { return Matches(m, text) })
}

// MatchesRegex reports whether a regular expression matches the whole text, as Envoy requires.
func MatchesRegex(regex, text string) bool {
	re, err := regexp.Compile("^(?:" + regex + ")$")
	return err == nil && re.MatchString(text)
}

// StripsIdentity reports whether a chain removes the identity headers of clients before a filter.
func (m *Manager) StripsIdentity(before int) bool {
	return stripsEarly(m.Msg) || slices.ContainsFunc(m.Filters[:before], func(f HTTPFilter) bool { return !f.Disabled && stripsIdentity(f.Msg) })
}

// stripsIdentity reports whether a filter or manager removes the identity headers of clients.
func stripsIdentity(msg proto.Message) bool {
	switch msg := msg.(type) {
	case *headermutationv3.HeaderMutation:
		return removesIdentity(msg.GetMutations().GetRequestMutations())
	case *hcmv3.HttpConnectionManager:
		return stripsEarly(msg)
	}
	return false
}

// stripsEarly reports whether a manager removes the identity headers of clients before routing.
func stripsEarly(m *hcmv3.HttpConnectionManager) bool {
	for _, x := range m.GetEarlyHeaderMutationExtensions() {
		msg, _ := Unpack(x.GetTypedConfig())
		if early, ok := msg.(*earlyv3.HeaderMutation); ok && removesIdentity(early.GetMutations()) {
			return true
		}
	}
	return false
}

func removesIdentity(mutations []*mutationv3.HeaderMutation) bool {
	for _, header := range Identity {
		if !slices.ContainsFunc(mutations, func(m *mutationv3.HeaderMutation) bool {
			return strings.EqualFold(m.GetRemove(), header) || Matches(m.GetRemoveOnMatch().GetKeyMatcher(), header)
		}) {
			return false
		}
	}
	return true
}

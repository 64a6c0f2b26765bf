package lint

import (
	"slices"
	"strings"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
)

const managerType = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

// patch is a typed configuration in an EnvoyFilter, of a type that rules look into.
type patch struct {
	spot
	msg proto.Message // nil if it cannot be read
	err error
}

// typed is a typed configuration, or what is inside if it is written as a TypedStruct.
func typed(s spot) spot {
	if strings.HasSuffix(s.at(typeKey).text(), ".TypedStruct") && s.at("value").is {
		inner := s.at("value")
		inner.near = &node{isMap: true, line: inner.near.line, keys: []string{typeKey}, items: []*node{s.at("type_url").near}, at: []int{inner.seen}}
		if v := s.at("value").near; v.isMap {
			inner.near.keys, inner.near.items, inner.near.at = append(inner.near.keys, v.keys...), append(inner.near.items, v.items...), append(inner.near.at, v.at...)
		}
		return inner
	}
	return s
}

// typeName is the name of the type of a typed configuration.
func typeName(s spot) string {
	url := typed(s).at(typeKey).text()
	return url[strings.LastIndex(url, "/")+1:]
}

// filterPatches are those of all EnvoyFilters.
func (in *Input) filterPatches() []patch {
	var out []patch
	for _, o := range in.objectsOf("networking.istio.io", "EnvoyFilter") {
		for _, p := range o.at("spec", "configPatches").items() {
			s := typed(p.at("patch", "value", "typed_config"))
			var into proto.Message
			switch typeName(s) {
			case authzType:
				into = &extauthzv3.ExtAuthz{}
			case "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation":
				into = &headermutationv3.HeaderMutation{}
			case managerType:
				into = &hcmv3.HttpConnectionManager{}
			default:
				continue
			}
			msg, err := decode(s, into)
			out = append(out, patch{s, msg, err})
		}
	}
	return out
}

// extAuthzPatches are the ext_authz filters that patches merge over those that istiod or Envoy Gateway make.
func (in *Input) extAuthzPatches() []part[*extauthzv3.ExtAuthz] {
	var out []part[*extauthzv3.ExtAuthz]
	for _, p := range slices.Concat(in.filterPatches(), in.jsonExtAuthz()) {
		if msg, ok := p.msg.(*extauthzv3.ExtAuthz); ok {
			out = append(out, part[*extauthzv3.ExtAuthz]{p.spot, msg})
		}
	}
	return out
}

func patchFields(in *Input, report func(Finding)) { unreadablePatches(in.filterPatches(), report) }

func unreadablePatches(patches []patch, report func(Finding)) {
	for _, p := range patches {
		if p.err == nil {
			continue
		}
		where := p.spot
		if m := faultyField.FindStringSubmatch(p.err.Error()); m != nil {
			where = find(p.spot, m[1]+m[2])
		}
		report(where.says("cannot be read: %v", p.err))
	}
}

// strippedByPatch reports whether an EnvoyFilter takes forged headers out.
func (in *Input) strippedByPatch() bool {
	for _, p := range in.filterPatches() {
		switch msg := p.msg.(type) {
		case *headermutationv3.HeaderMutation:
			if removesIdentity(msg.GetMutations().GetRequestMutations()) {
				return true
			}
		case *hcmv3.HttpConnectionManager:
			if stripsEarly(msg) {
				return true
			}
		}
	}
	return false
}

// slashesMergedByPatch reports whether an EnvoyFilter does what path normalization of the mesh would.
func (in *Input) slashesMergedByPatch() bool {
	for _, p := range in.filterPatches() {
		if msg, ok := p.msg.(*hcmv3.HttpConnectionManager); ok && msg.GetMergeSlashes() {
			return true
		}
	}
	return false
}

// ofExtAuthz reports whether a patch is for the ext_authz filter.
func ofExtAuthz(p spot) bool {
	sub := p.at("match", "listener", "filterChain", "filter", "subFilter", "name").text()
	return p.at("applyTo").text() == "HTTP_FILTER" && strings.Contains(sub, "ext_authz")
}

// removedByPatch: an EnvoyFilter takes away the filter that istiod makes.
func removedByPatch(in *Input, report func(Finding)) {
	for _, o := range in.objectsOf("networking.istio.io", "EnvoyFilter") {
		for _, p := range o.at("spec", "configPatches").items() {
			op, value := p.at("patch", "operation"), p.at("patch", "value")
			replaced := op.text() == "REPLACE" && len(extAuthzIn(value, 0)) == 0
			switch {
			case replaced && p.at("applyTo").text() == "NETWORK_FILTER" && typeName(value.at("typed_config")) == managerType:
				report(mended(op.says("it puts a chain of filters without one that asks in the place of that which istiod makes"), "Merge what you need instead."))
			case !ofExtAuthz(p):
			case op.text() == "REMOVE", replaced:
				report(mended(op.says("it takes away the filter that asks: requests pass unchecked"), "Remove the patch."))
			case value.at("disabled").truthy():
				report(mended(value.at("disabled").says("it switches off the filter that asks: requests pass unchecked"), "Remove the patch."))
			}
		}
	}
	removedByJSONPatch(in, report)
}

func mended(f Finding, mend string) Finding {
	f.Remedy = mend
	return f
}

// openedByPatch: routes that a patch exempts from the check.
func openedByPatch(in *Input, report func(Finding)) {
	for _, o := range in.objectsOf("networking.istio.io", "EnvoyFilter") {
		for _, p := range o.at("spec", "configPatches").items() {
			host := p.at("match", "routeConfiguration", "vhost")
			route := host.at("route", "name").text()
			if in.named(o.name) || in.named(route) || in.named(host.at("name").text()) {
				continue
			}
			for _, at := range switchedOffIn(p.at("patch", "value"), 0) {
				f := at.says("the patch takes the check away from what it is merged into: requests go to your service unchecked")
				if route != "" && p.at("applyTo").text() == "HTTP_ROUTE" {
					f.Severity = Warning
				}
				report(f)
			}
		}
	}
	for _, p := range in.jsonPatches() {
		if !in.named(p.policy.name) {
			for _, at := range p.opens() {
				report(at.says("the patch takes the check away from routes: requests go to your service unchecked"))
			}
		}
	}
}

// switchedOffIn finds where the filter is switched off for routes, however deep.
func switchedOffIn(s spot, depth int) []spot {
	var out []spot
	for _, k := range s.keys() {
		below := s.key(k)
		if flatten(k) == flatten("typed_per_filter_config") {
			out = append(out, offs(below)...)
		} else if depth < maxDepth {
			out = append(out, switchedOffIn(below, depth+1)...)
		}
	}
	for _, item := range s.items() {
		if depth < maxDepth {
			out = append(out, switchedOffIn(item, depth+1)...)
		}
	}
	return out
}

func offs(per spot) []spot {
	var out []spot
	for _, name := range per.keys() {
		entry := per.key(name)
		if !strings.Contains(name, "ext_authz") && !strings.HasSuffix(entry.at(typeKey).text(), ".ExtAuthzPerRoute") {
			continue
		}
		for _, at := range []spot{entry.at("disabled"), entry.at("config", "disabled")} {
			if at.truthy() {
				out = append(out, at)
			}
		}
	}
	return out
}

// sometimesByPatch: the filter that is made elsewhere is patched so that it runs for some requests only.
func sometimesByPatch(in *Input, report func(Finding)) {
	for _, c := range in.extAuthzPatches() {
		if e := c.msg.GetFilterEnabled(); e != nil && (e.GetRuntimeKey() != "" || !everyRequest(e.GetDefaultValue())) {
			report(c.at("filter_enabled").says("requests that are left to chance, or to a runtime key, pass unchecked"))
		}
		if c.msg.GetFilterEnabledMetadata() != nil {
			report(c.at("filter_enabled_metadata").says("only requests with that metadata are checked, and the others pass"))
		}
	}
}

// everyRequest reports whether a fraction is everything.
func everyRequest(p *typev3.FractionalPercent) bool {
	most := map[typev3.FractionalPercent_DenominatorType]uint32{
		typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
	}
	return p.GetNumerator() >= most[p.GetDenominator()]
}

package lint

import (
	"strings"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
)

// patch is a typed configuration in an EnvoyFilter, of a type that rules look into.
type patch struct {
	spot
	msg proto.Message // nil if it cannot be read
	err error
}

// filterPatches are those of all EnvoyFilters.
func (in *Input) filterPatches() []patch {
	var out []patch
	for _, o := range in.objectsOf("networking.istio.io", "EnvoyFilter") {
		for _, p := range o.at("spec", "configPatches").items() {
			s := p.at("patch", "value", "typed_config")
			var into proto.Message
			switch url := s.at(typeKey).text(); url[strings.LastIndex(url, "/")+1:] {
			case authzType:
				into = &extauthzv3.ExtAuthz{}
			case "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation":
				into = &headermutationv3.HeaderMutation{}
			case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
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

// extAuthzPatches are the ext_authz filters that EnvoyFilters merge over those that istiod makes.
func (in *Input) extAuthzPatches() []part[*extauthzv3.ExtAuthz] {
	var out []part[*extauthzv3.ExtAuthz]
	for _, p := range in.filterPatches() {
		if msg, ok := p.msg.(*extauthzv3.ExtAuthz); ok {
			out = append(out, part[*extauthzv3.ExtAuthz]{p.spot, msg})
		}
	}
	return out
}

func patchFields(in *Input, report func(Finding)) {
	for _, p := range in.filterPatches() {
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

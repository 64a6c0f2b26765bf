package lint

import (
	"slices"
	"strings"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
)

// The rules of this file look at what EnvoyPatchPolicies make of the filter of Envoy Gateway.

// jsonPatch is an operation of an EnvoyPatchPolicy.
type jsonPatch struct {
	spot
	policy *object
	op     string
	path   []string // without the first, empty part
	chosen string   // the JSONPath of what the path begins at
}

func (in *Input) jsonPatches() []jsonPatch {
	var out []jsonPatch
	for _, o := range in.objectsOf(egGroup, "EnvoyPatchPolicy") {
		for _, p := range o.at("spec", "jsonPatches").items() {
			s := p.at("operation")
			j := jsonPatch{spot: s, policy: o, op: s.at("op").text(), chosen: s.at("jsonPath").text()}
			if path := strings.Trim(s.at("path").text(), "/"); path != "" {
				j.path = strings.Split(path, "/")
			}
			out = append(out, j)
		}
	}
	return out
}

// named reports whether the operation says that it is for the ext_authz filter.
func (j *jsonPatch) named() bool { return strings.Contains(j.chosen+j.at("path").text(), "ext_authz") }

// elsewhere reports whether the operation says that it is for something else.
func (j *jsonPatch) elsewhere() bool { return strings.Contains(j.chosen, "?(") && !j.named() }

// sets reports whether the operation puts a value somewhere.
func (j *jsonPatch) sets() bool { return j.op == "add" || j.op == "replace" }

// jsonExtAuthz are the configurations of the filter that patches put into it, or in its place.
func (in *Input) jsonExtAuthz() []patch {
	var out []patch
	add := func(s spot) {
		msg, err := decode(s, &extauthzv3.ExtAuthz{})
		p := patch{spot: s, err: err}
		if msg != nil {
			p.msg = msg
		}
		out = append(out, p)
	}
	for _, j := range in.jsonPatches() {
		if !j.sets() || j.elsewhere() {
			continue
		}
		for _, s := range extAuthzIn(j.at("value"), 0) {
			add(s)
		}
		if s, ok := j.field(); ok {
			add(s)
		}
	}
	return out
}

// extAuthzIn finds whole configurations of the filter in a value.
func extAuthzIn(s spot, depth int) []spot {
	if typeName(s) == authzType {
		return []spot{typed(s)}
	}
	var out []spot
	if depth < maxDepth {
		for _, k := range s.keys() {
			out = append(out, extAuthzIn(s.key(k), depth+1)...)
		}
		for _, item := range s.items() {
			out = append(out, extAuthzIn(item, depth+1)...)
		}
	}
	return out
}

// field is a configuration of the filter that holds only what the patch sets, as far as it sets a field of it.
func (j *jsonPatch) field() (spot, bool) {
	from := slices.Index(j.path, "typed_config") + 1
	for i := len(j.path) - 1; i > from; i-- {
		if j.path[i] == "typed_config" { // the innermost one
			from = i + 1
			break
		}
	}
	path, value := j.path[from:], j.at("value")
	if len(path) == 0 || !value.is || from == 0 && j.chosen == "" {
		return spot{}, false
	}
	fields := (&extauthzv3.ExtAuthz{}).ProtoReflect().Descriptor().Fields()
	known := false
	for i := range fields.Len() {
		known = known || flatten(string(fields.Get(i).Name())) == flatten(path[0])
	}
	made := value.near
	for _, k := range slices.Backward(path) {
		if number(k) > 0 || k == "0" || k == "-" {
			return spot{}, false // a part of a list
		}
		made = &node{isMap: true, line: value.seen, keys: []string{k}, items: []*node{made}, at: []int{value.seen}}
	}
	s := j.spot
	s.near = made
	return s, known
}

// removedByJSONPatch: an EnvoyPatchPolicy takes away the filter, or what switches it on for routes.
func removedByJSONPatch(in *Input, report func(Finding)) {
	for _, j := range in.jsonPatches() {
		if j.elsewhere() || in.named(j.policy.name) {
			continue
		}
		if what := j.removes(); what != "" {
			report(mended(j.at("path").says("%s: requests pass unchecked", what), "Remove the patch."))
		}
	}
}

func (j *jsonPatch) removes() string {
	value := j.at("value")
	gone := j.op == "remove" || j.op == "move" || j.op == "replace" && len(extAuthzIn(value, 0)) == 0
	last := len(j.path) - 1
	under := func(name string, deep int) bool { return last >= deep && j.path[last-deep] == name }
	switch {
	case j.sets() && under("disabled", 0) && value.truthy() && !slices.Contains(j.path, "typed_per_filter_config") && (j.named() || under("http_filters", 2)):
		return "it switches off a filter, which is the one that asks or may become it"
	case !gone:
		return ""
	case under("typed_per_filter_config", 0), under("typed_per_filter_config", 1) && j.named():
		if j.op == "replace" {
			return ""
		}
		return "it takes away what switches the check on for a route"
	case under("http_filters", 0), under("http_filters", 1), under("http_filters", 2) && under("typed_config", 0):
		return "it takes away a filter by its place, which is that of the one that asks or may become it"
	case j.named() && (last < 0 || last == 0 && j.path[0] == "typed_config"):
		return "it takes away the filter that asks"
	}
	return ""
}

// opens are the places where the patch switches the filter off for routes.
func (j *jsonPatch) opens() []spot {
	value := j.at("value")
	out := switchedOffIn(value, 0)
	i := slices.Index(j.path, "typed_per_filter_config")
	switch {
	case i < 0 || !j.sets():
	case i == len(j.path)-1:
		out = append(out, offs(value)...)
	case strings.Contains(j.path[i+1], "ext_authz"):
		for _, at := range []spot{value.at("disabled"), value.at("config", "disabled")} {
			if at.truthy() {
				out = append(out, at)
			}
		}
		if j.path[len(j.path)-1] == "disabled" && value.truthy() {
			out = append(out, value)
		}
	}
	return out
}

func egPatchFields(in *Input, report func(Finding)) { unreadablePatches(in.jsonExtAuthz(), report) }

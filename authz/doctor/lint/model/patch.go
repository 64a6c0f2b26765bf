package model

import (
	"slices"
	"strconv"
	"strings"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

const (
	extAuthzType = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
	// ManagerType is the type of an HTTP connection manager.
	ManagerType = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)

// Patch is a typed configuration in an EnvoyFilter, if rules look into its type.
type Patch struct {
	source.Location
	Msg proto.Message // nil if it cannot be read
}

// ConfigPatches are the patches of an EnvoyFilter.
func (o *Object) ConfigPatches() []source.Location { return o.At("spec.configPatches").Items() }

// EnvoyFilters are all EnvoyFilters.
func (all Objects) EnvoyFilters() Objects { return all.Of(IstioNetwork, "EnvoyFilter") }

// addPatches reads the changes that EnvoyFilters and EnvoyPatchPolicies make to generated filters.
func (m *Model) addPatches() {
	for _, o := range m.Objects.EnvoyFilters() {
		for _, p := range o.ConfigPatches() {
			at := p.At("patch.value.typed_config").Typed()
			switch at.TypeName() {
			case extAuthzType:
				if msg, ok := m.addExtAuthzPatch(at); ok {
					m.Patches = append(m.Patches, Patch{at, msg})
				}
			case "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation":
				addPatch(m, at, &headermutationv3.HeaderMutation{})
			case ManagerType:
				addPatch(m, at, &hcmv3.HttpConnectionManager{})
			}
		}
	}
	for _, o := range m.Objects.Of(EnvoyGateway, "EnvoyPatchPolicy") {
		for _, p := range o.At("spec.jsonPatches").Items() {
			j := readJSONPatch(o, p.At("operation"))
			m.JSONPatches = append(m.JSONPatches, j)
			if !j.Sets() || j.Elsewhere() {
				continue
			}
			for _, at := range ExtAuthzIn(j.Value()) {
				m.addExtAuthzPatch(at)
			}
			if at, ok := j.field(); ok {
				m.addExtAuthzPatch(at)
			}
		}
	}
}

// readPatch reads a message. If it cannot be read, readPatch adds a fault.
func readPatch[M proto.Message](m *Model, at source.Location, into M) (msg M, ok bool) {
	msg, err := decode(at, into)
	if err != nil {
		m.Faults = append(m.Faults, unreadable(at, err))
	}
	return msg, err == nil || isUnknownField(err)
}

func addPatch[M proto.Message](m *Model, at source.Location, into M) {
	if msg, ok := readPatch(m, at, into); ok {
		m.Patches = append(m.Patches, Patch{at, msg})
	}
}

func (m *Model) addExtAuthzPatch(at source.Location) (msg *extauthzv3.ExtAuthz, ok bool) {
	if msg, ok = readPatch(m, at, &extauthzv3.ExtAuthz{}); ok {
		m.Checks = append(m.Checks, newMessageCheck(ByPatch, at, msg))
	}
	return msg, ok
}

// PatchStripsIdentity reports whether an EnvoyFilter removes the identity headers of clients.
func (m *Model) PatchStripsIdentity() bool {
	return slices.ContainsFunc(m.Patches, func(p Patch) bool { return stripsIdentity(p.Msg) })
}

// PatchMergesSlashes reports whether an EnvoyFilter merges slashes, as path normalization of the mesh would.
func (m *Model) PatchMergesSlashes() bool {
	return slices.ContainsFunc(m.Patches, func(p Patch) bool {
		msg, ok := p.Msg.(*hcmv3.HttpConnectionManager)
		return ok && msg.GetMergeSlashes()
	})
}

// JSONPatch is an operation of an EnvoyPatchPolicy.
type JSONPatch struct {
	source.Location
	Policy *Object
	Op     string
	Path   []string // split at its slashes
	chosen string   // the JSONPath of the value that Path starts from
}

func readJSONPatch(policy *Object, at source.Location) JSONPatch {
	j := JSONPatch{Location: at, Policy: policy, Op: at.At("op").Text(), chosen: at.At("jsonPath").Text()}
	if path := strings.Trim(at.At("path").Text(), "/"); path != "" {
		j.Path = strings.Split(path, "/")
	}
	return j
}

// Value is the value of the operation.
func (j *JSONPatch) Value() source.Location { return j.At("value") }

// NamesExtAuthz reports whether the operation says that it is for the ext_authz filter.
func (j *JSONPatch) NamesExtAuthz() bool {
	return strings.Contains(j.chosen+j.At("path").Text(), "ext_authz")
}

// Elsewhere reports whether the operation says that it is for another filter.
func (j *JSONPatch) Elsewhere() bool { return strings.Contains(j.chosen, "?(") && !j.NamesExtAuthz() }

// Sets reports whether the operation puts a value somewhere.
func (j *JSONPatch) Sets() bool { return j.Op == "add" || j.Op == "replace" }

// EndsWith reports whether the path has a name at a position that is counted from its end.
func (j *JSONPatch) EndsWith(name string, before int) bool {
	last := len(j.Path) - 1
	return last >= before && j.Path[last-before] == name
}

// field is a configuration of the filter with only the field that the patch sets, if it sets one.
func (j *JSONPatch) field() (at source.Location, ok bool) {
	from := 0
	for i, name := range j.Path {
		if name == "typed_config" { // the innermost one counts
			from = i + 1
		}
	}
	path, value := j.Path[from:], j.Value()
	if len(path) == 0 || !value.Exists() || from == 0 && j.chosen == "" {
		return at, false
	}
	for _, name := range path {
		if _, err := strconv.Atoi(name); err == nil || name == "-" {
			return at, false // a part of a list
		}
	}
	fields := (&extauthzv3.ExtAuthz{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		ok = ok || source.Flatten(string(fields.Get(i).Name())) == source.Flatten(path[0])
	}
	return source.Holding(j.Location, path, value), ok
}

// ExtAuthzIn finds complete configurations of the ext_authz filter at any depth of a value.
func ExtAuthzIn(at source.Location) []source.Location { return extAuthzIn(at, 0) }

func extAuthzIn(at source.Location, depth int) []source.Location {
	if at.TypeName() == extAuthzType {
		return []source.Location{at.Typed()}
	}
	var out []source.Location
	if depth < source.MaxDepth {
		for _, below := range at.Below() {
			out = append(out, extAuthzIn(below, depth+1)...)
		}
	}
	return out
}

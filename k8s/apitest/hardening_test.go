package apitest

import (
	"os"
	"path/filepath"
	"testing"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	headersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	istionet "istio.io/api/networking/v1alpha3"
	"sigs.k8s.io/yaml"
)

// routesFromADS is where a control plane's listeners find their routes.
func routesFromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

// edge is what a listener does to requests before and at the check.
type edge struct {
	hcm   *hcmv3.HttpConnectionManager
	authz *authzv3.ExtAuthz
}

// ofBootstrap reads the listener called edge of a configuration for plain Envoy.
func ofBootstrap(t *testing.T, raw []byte) edge {
	t.Helper()
	text, err := yaml.YAMLToJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	if err := b.ValidateAll(); err != nil {
		t.Fatal(err)
	}
	var e edge
	for _, l := range b.StaticResources.Listeners {
		if l.Name == "edge" {
			e.hcm = unpack[*hcmv3.HttpConnectionManager](t, l.FilterChains[0].Filters[0].GetTypedConfig())
		}
	}
	for _, f := range e.hcm.GetHttpFilters() {
		if f.Name == "envoy.filters.http.ext_authz" {
			e.authz = unpack[*authzv3.ExtAuthz](t, f.GetTypedConfig())
		}
	}
	return e
}

func unpack[T proto.Message](t *testing.T, a interface{ UnmarshalNew() (proto.Message, error) }) T {
	t.Helper()
	m, err := a.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	v, ok := m.(T)
	if !ok {
		t.Fatalf("a %T", m)
	}
	return v
}

// ofPatches reads what an EnvoyFilter patches in.
func ofPatches(t *testing.T, e *istionet.EnvoyFilter) edge {
	t.Helper()
	var found edge
	for _, p := range e.ConfigPatches {
		raw, err := protojson.Marshal(p.Patch.Value)
		if err != nil {
			t.Fatal(err)
		}
		var f hcmv3.HttpFilter
		if err := protojson.Unmarshal(raw, &f); err != nil {
			t.Fatal(err)
		}
		if p.ApplyTo == istionet.EnvoyFilter_NETWORK_FILTER {
			found.hcm = unpack[*hcmv3.HttpConnectionManager](t, f.GetTypedConfig())
		} else {
			found.authz = unpack[*authzv3.ExtAuthz](t, f.GetTypedConfig())
		}
	}
	return found
}

// The same request is treated in the same way, whoever configures Envoy: envoy/envoy.yaml is the original.
func TestEveryoneHardensAlike(t *testing.T) {
	original, err := os.ReadFile(filepath.Join(repository, "envoy/envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := ofBootstrap(t, original)
	on := fromDisk()
	standalone, err := os.ReadFile(filepath.Join(repository, "k8s/standalone/envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]edge{"standalone": ofBootstrap(t, standalone)}
	if !proto.Equal(want.authz, got["standalone"].authz) {
		t.Errorf("standalone: the filter differs from that of envoy/envoy.yaml:\n%s", prototext.Format(got["standalone"].authz))
	}
	for overlay, at := range map[string][2]string{"istio": {"istio-system", "tollkeeper"}, "istio/sidecar": {"default", "tollkeeper-sidecar"}} {
		w, err := build(on, overlay)
		if err != nil {
			t.Fatal(err)
		}
		got[overlay] = ofPatches(t, one[istionet.EnvoyFilter](w, at[0], at[1]).v)
		if !proto.Equal(want.authz.GetGrpcService().GetRetryPolicy(), got[overlay].authz.GetGrpcService().GetRetryPolicy()) {
			t.Errorf("%s: checks are tried again in another way", overlay)
		}
	}
	w, err := build(on, "envoy-gateway")
	if err != nil {
		t.Fatal(err)
	}
	patched, err := hardened(one[egv1a1.EnvoyPatchPolicy](w, "default", "tollkeeper").v.Spec.JSONPatches)
	if err != nil {
		t.Fatal(err)
	}
	got["envoy-gateway"] = edge{authz: patched}
	for name, e := range got {
		compareFilter(t, name, want.authz, e.authz)
		if e.hcm != nil {
			compareManager(t, name, want.hcm, e.hcm)
		}
	}
}

func compareFilter(t *testing.T, name string, want, got *authzv3.ExtAuthz) {
	t.Helper()
	for _, c := range []struct {
		field     string
		want, got proto.Message
	}{
		{"decoder_header_mutation_rules", want.DecoderHeaderMutationRules, got.DecoderHeaderMutationRules},
		{"disallowed_headers", want.DisallowedHeaders, got.DisallowedHeaders},
		{"charge_cluster_response_stats", want.ChargeClusterResponseStats, got.ChargeClusterResponseStats},
	} {
		if !proto.Equal(c.want, c.got) {
			t.Errorf("%s: %s is %v, want %v", name, c.field, c.got, c.want)
		}
	}
	type flags struct {
		validate, raw, limits bool
		body                  uint32
	}
	of := func(x *authzv3.ExtAuthz) flags {
		return flags{x.ValidateMutations, x.EncodeRawHeaders, x.EnforceResponseHeaderLimits, x.MaxDeniedResponseBodyBytes}
	}
	if of(got) != of(want) {
		t.Errorf("%s: %+v, want %+v", name, of(got), of(want))
	}
}

func compareManager(t *testing.T, name string, want, got *hcmv3.HttpConnectionManager) {
	t.Helper()
	a := unpack[*headersv3.HeaderMutation](t, want.EarlyHeaderMutationExtensions[0].TypedConfig)
	b := unpack[*headersv3.HeaderMutation](t, got.EarlyHeaderMutationExtensions[0].TypedConfig)
	if !proto.Equal(a, b) {
		t.Errorf("%s: other headers are taken out: %v", name, b)
	}
	if got.PathWithEscapedSlashesAction != want.PathWithEscapedSlashesAction || got.MergeSlashes != want.MergeSlashes ||
		got.NormalizePath.GetValue() != want.NormalizePath.GetValue() ||
		got.CommonHttpProtocolOptions.GetHeadersWithUnderscoresAction() != want.CommonHttpProtocolOptions.GetHeadersWithUnderscoresAction() {
		t.Errorf("%s: paths or names of headers are read in another way", name)
	}
}

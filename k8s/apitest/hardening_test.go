package apitest

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
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
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	istionet "istio.io/api/networking/v1alpha3"
	"sigs.k8s.io/yaml"
)

// routesFromADS is the source of routes for listeners of a control plane.
func routesFromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

// edge are the settings of a listener that protect a request before and at the check.
type edge struct {
	hcm   *hcmv3.HttpConnectionManager
	authz *authzv3.ExtAuthz
}

// ofBootstrap reads the listener called edge in a file with a configuration for plain Envoy.
func ofBootstrap(t *testing.T, file string) edge {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(read(t, filepath.Join(repository, file))))
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

// ofPatches reads the settings that an EnvoyFilter adds.
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

// ofClientTraffic is the connection manager that Envoy Gateway makes of our ClientTrafficPolicy. It always normalizes paths.
func ofClientTraffic(p *egv1a1.ClientTrafficPolicy) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{NormalizePath: wrapperspb.Bool(true), MergeSlashes: !*p.Spec.Path.DisableMergeSlashes}
	if *p.Spec.Headers.WithUnderscoresAction == egv1a1.WithUnderscoresActionRejectRequest {
		m.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST}
	}
	if *p.Spec.Path.EscapedSlashesAction == egv1a1.UnescapeAndRedirect {
		m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT
	}
	early := new(headersv3.HeaderMutation)
	for _, match := range p.Spec.Headers.EarlyRequestHeaders.RemoveOnMatch {
		matcher := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: match.Value}}
		if *match.Type == egv1a1.StringMatchRegularExpression {
			matcher.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: match.Value}}
		}
		early.Mutations = append(early.Mutations, &rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &rulesv3.HeaderMutation_RemoveOnMatch{KeyMatcher: matcher}}})
	}
	packed, err := anypb.New(early)
	if err != nil {
		panic(err)
	}
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{{TypedConfig: packed}}
	return m
}

// Every manifest treats a request as envoy/envoy.yaml does, which is the original.
func TestHardening_IsTheSameEverywhere(t *testing.T) {
	want := ofBootstrap(t, "envoy/envoy.yaml")
	got := map[string]edge{"standalone": ofBootstrap(t, "k8s/standalone/envoy.yaml")}
	if !proto.Equal(want.authz, got["standalone"].authz) {
		t.Errorf("standalone: the filter differs from that of envoy/envoy.yaml:\n%s", prototext.Format(got["standalone"].authz))
	}
	for overlay, at := range map[string][2]string{"istio": {"istio-system", "tollkeeper"}, "istio/sidecar": {"default", "tollkeeper-sidecar"}} {
		w := mustBuild(t, overlay)
		got[overlay] = ofPatches(t, one[istionet.EnvoyFilter](w, at[0], at[1]).v)
		if !proto.Equal(want.authz.GetGrpcService().GetRetryPolicy(), got[overlay].authz.GetGrpcService().GetRetryPolicy()) {
			t.Errorf("%s: the retry policy of checks differs", overlay)
		}
	}
	w := mustBuild(t, "envoy-gateway")
	compareManager(t, "envoy-gateway", want.hcm, ofClientTraffic(one[egv1a1.ClientTrafficPolicy](w, "default", "tollkeeper").v))
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

// forgeries are names that a server may read as one of ours: CGI and its successors turn every character that is neither
// letter nor digit into "_".
var forgeries = []string{
	"x-tollkeeper-account", "x-tollkeeper-plan", "x.tollkeeper.account", "x-tollkeeper.key-id", "x.tollkeeper-subject", "x_tollkeeper.plan",
	"x~tollkeeper+account", "x_tollkeeper_account", "x-tollkeeper_key_id",
}

// stripped reports whether a header is removed before routing, or a request with it refused.
func stripped(t *testing.T, m *hcmv3.HttpConnectionManager, header string) bool {
	t.Helper()
	if m.CommonHttpProtocolOptions.GetHeadersWithUnderscoresAction() == corev3.HttpProtocolOptions_REJECT_REQUEST && strings.Contains(header, "_") {
		return true
	}
	for _, mutation := range unpack[*headersv3.HeaderMutation](t, m.EarlyHeaderMutationExtensions[0].TypedConfig).Mutations {
		if mutation.GetRemoveOnMatch() != nil && nameMatches(mutation.GetRemoveOnMatch().KeyMatcher, header) {
			return true
		}
	}
	return false
}

func nameMatches(m *matcherv3.StringMatcher, name string) bool {
	if p := m.GetPrefix(); p != "" {
		return strings.HasPrefix(name, p)
	}
	re, err := regexp.Compile("^(?:" + m.GetSafeRegex().GetRegex() + ")$")
	return err == nil && m.GetSafeRegex() != nil && re.MatchString(name)
}

func compareManager(t *testing.T, name string, want, got *hcmv3.HttpConnectionManager) {
	t.Helper()
	for _, header := range forgeries {
		if !stripped(t, got, header) {
			t.Errorf("%s: clients can send %s", name, header)
		}
	}
	for _, header := range []string{"x-tollkeepers-friend", "x-request-id", "tollkeeper-account", "xtollkeeper-account"} {
		if stripped(t, got, header) {
			t.Errorf("%s: removes %s", name, header)
		}
	}
	if got.PathWithEscapedSlashesAction != want.PathWithEscapedSlashesAction || got.MergeSlashes != want.MergeSlashes ||
		got.NormalizePath.GetValue() != want.NormalizePath.GetValue() ||
		got.CommonHttpProtocolOptions.GetHeadersWithUnderscoresAction() != want.CommonHttpProtocolOptions.GetHeadersWithUnderscoresAction() {
		t.Errorf("%s: normalizes paths or handles header names differently", name)
	}
}

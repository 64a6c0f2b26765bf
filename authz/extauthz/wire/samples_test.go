package wire

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// checkRequests are messages as Envoy sends them.
func checkRequests(t testing.TB) map[string][]byte {
	t.Helper()
	pack := func(m proto.Message) *anypb.Any {
		out := new(anypb.Any)
		if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil { // as JSON is packed
			t.Fatal(err)
		}
		return out
	}
	claims, err := structpb.NewStruct(map[string]any{"payload": map[string]any{"sub": "u", "n": 1.5, "list": []any{nil, true, "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	typical := typicalRequest()
	plain := proto.CloneOf(typical)
	http := plain.GetAttributes().GetRequest().GetHttp()
	http.Headers = map[string]string{}
	for _, h := range http.GetHeaderMap().GetHeaders() {
		http.Headers[h.GetKey()] = string(h.GetRawValue())
	}
	http.HeaderMap = nil
	full := proto.CloneOf(typical)
	attrs := full.GetAttributes()
	attrs.Source.Labels, attrs.Source.Service, attrs.Source.Principal = map[string]string{"app": "web"}, "web", "spiffe://cluster.local/ns/a"
	attrs.Destination.Address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/p", Mode: 0o600}}}
	attrs.ContextExtensions = map[string]string{"route": "a", "tier": "b"}
	attrs.MetadataContext = &corev3.Metadata{
		FilterMetadata:      map[string]*structpb.Struct{"envoy.filters.http.jwt_authn": claims},
		TypedFilterMetadata: map[string]*anypb.Any{"known": pack(claims), "unknown": {TypeUrl: "type.googleapis.com/example.Unknown", Value: []byte{1}}},
	}
	attrs.RouteMetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"route": claims}}
	attrs.TlsSession = &authv3.AttributeContext_TLSSession{Sni: "api.example.com"}
	attrs.GetRequest().GetHttp().Path = "/v1/caf%C3%A9/items?page=2&q=%20a&q=b"
	attrs.GetRequest().GetHttp().RawBody = []byte(`{"a":[1,2.5,"x"]}`)
	internal := proto.CloneOf(typical)
	internal.GetAttributes().Source.Address = &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
		AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: "l"}, EndpointId: "e",
	}}}
	internal.GetAttributes().GetRequest().GetHttp().Body = "a=1&b=2"
	return map[string][]byte{
		"nothing": nil, "typical": marshal(t, typical), "plain": marshal(t, plain), "full": marshal(t, full), "internal": marshal(t, internal),
	}
}

// typicalRequest is a check as Envoy sends it with encode_raw_headers.
func typicalRequest() *authv3.CheckRequest {
	peer := func(ip string, port uint32) *authv3.AttributeContext_Peer {
		return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}}}
	}
	list := &corev3.HeaderMap{}
	for _, h := range typicalHeaderList {
		list.Headers = append(list.Headers, &corev3.HeaderValue{Key: h.Name, RawValue: []byte(h.Value)})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: peer("203.0.113.77", 51234), Destination: peer("10.20.30.40", 8443),
		Request: &authv3.AttributeContext_Request{
			Time: &timestamppb.Timestamp{Seconds: 1767225600, Nanos: 123456000},
			Http: &authv3.AttributeContext_HttpRequest{
				Id: "14725836901472583690", Method: "GET", Path: "/v1/customers/cus_8842/invoices", Host: "api.example.com",
				Scheme: "https", Protocol: "HTTP/2", Size: -1, HeaderMap: list,
			},
		},
	}}
}

var typicalHeaderList = authz.Headers{
	{Name: ":authority", Value: "api.example.com"},
	{Name: ":path", Value: "/v1/customers/cus_8842/invoices"},
	{Name: ":method", Value: "GET"},
	{Name: ":scheme", Value: "https"},
	{Name: "user-agent", Value: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"},
	{Name: "accept", Value: "application/json"},
	{Name: "accept-encoding", Value: "gzip, deflate, br"},
	{Name: "accept-language", Value: "en-GB,en;q=0.9"},
	{Name: "x-api-key", Value: "tk_live_4fK2mZ8qPp1vYc7Jw9RtBn3XsLd6Hg0aQeUiOk5zVxTy2b1C9"},
	{Name: "x-forwarded-for", Value: "203.0.113.77"},
	{Name: "x-forwarded-proto", Value: "https"},
	{Name: "x-request-id", Value: "1b5e1c1e-6a0c-4b8f-9d9e-6f2f4c2f9a11"},
	{Name: "x-envoy-internal", Value: "true"},
	{Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	{Name: "cache-control", Value: "no-cache"},
}

// typicalAnswer is an answer of the shipped policies to a caller with a good key, with most of the notes that there are.
func typicalAnswer() authz.Answer {
	return authz.Answer{
		ID: "9f0c6a52b1d74e3f8a6f3d2c1b0a9e8d",
		Headers: authz.Headers{
			{Name: "x-tollkeeper-key-id", Value: "key_01J8ZQ3V7N4M2K"}, {Name: "x-tollkeeper-account", Value: "acct_01J8ZQ3V7N4M2K"},
			{Name: "x-tollkeeper-plan", Value: "growth"}, {Name: "x-tollkeeper-decision-id", Value: "9f0c6a52b1d74e3f8a6f3d2c1b0a9e8d"},
		},
		ResponseHeaders: authz.Headers{
			{Name: "ratelimit", Value: `"per-minute";r=5998;t=42`}, {Name: "ratelimit-policy", Value: `"per-minute";q=6000;w=60`},
		},
		RemoveRequestHeaders: []string{"x-api-key", "x-tollkeeper-scopes"},
		NoteID:               true,
		Notes: authz.Headers{
			{Name: "key_id", Value: "key_01J8ZQ3V7N4M2K"}, {Name: "account", Value: "acct_01J8ZQ3V7N4M2K"}, {Name: "plan", Value: "growth"},
			{Name: "rid", Value: "8842c0ffee"},
		},
	}
}

// marshal is a message as it is sent.
func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

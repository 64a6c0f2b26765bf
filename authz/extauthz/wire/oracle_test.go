package wire

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The oracle does the same with protobuf's generated messages. It is slow, and plain enough to be trusted. FuzzDecode and
// FuzzEncode compare this package with it.

// oracleDecode reads a CheckRequest.
func oracleDecode(req *authv3.CheckRequest) *authz.Request {
	attrs := req.GetAttributes()
	out := &authz.Request{
		Source:            oraclePeer(attrs.GetSource()),
		Destination:       oraclePeer(attrs.GetDestination()),
		ContextExtensions: attrs.GetContextExtensions(),
		Metadata:          oracleMetadata(attrs.GetMetadataContext()),
		RouteMetadata:     oracleMetadata(attrs.GetRouteMetadataContext()),
	}
	if t := attrs.GetRequest().GetTime(); t != nil {
		out.Time = t.AsTime()
	}
	out.Described = attrs.GetRequest() != nil
	if s := attrs.GetTlsSession(); s != nil {
		out.TLS = &authz.TLSSession{SNI: s.GetSni()}
	}
	if h := attrs.GetRequest().GetHttp(); h != nil {
		out.HTTP = &authz.HTTP{
			ID: h.GetId(), Method: h.GetMethod(), Scheme: h.GetScheme(), Host: h.GetHost(), Path: h.GetPath(),
			Query: h.GetQuery(), Fragment: h.GetFragment(), Protocol: h.GetProtocol(), Size: h.GetSize(),
			Body: h.GetBody(), RawBody: h.GetRawBody(),
		}
		out.HTTP.Headers, out.HTTP.RawHeaders = oracleHeaders(h)
	}
	return out
}

func oracleHeaders(h *authv3.AttributeContext_HttpRequest) (authz.Headers, bool) {
	if list := h.GetHeaderMap().GetHeaders(); len(list) > 0 {
		out := make(authz.Headers, len(list))
		for i, f := range list {
			v := string(f.GetRawValue())
			if v == "" {
				v = f.GetValue()
			}
			out[i] = authz.Header{Name: strings.ToLower(f.GetKey()), Value: v}
		}
		return out, true
	}
	out := make(authz.Headers, 0, len(h.GetHeaders()))
	for k, v := range h.GetHeaders() {
		out = append(out, authz.Header{Name: strings.ToLower(k), Value: v})
	}
	return out, false
}

func oraclePeer(p *authv3.AttributeContext_Peer) *authz.Peer {
	if p == nil {
		return nil
	}
	return &authz.Peer{
		Address: oracleAddress(p.GetAddress()), Service: p.GetService(), Labels: p.GetLabels(),
		Principal: p.GetPrincipal(), Certificate: p.GetCertificate(),
	}
}

func oracleAddress(a *corev3.Address) *authz.Address {
	if s := a.GetSocketAddress(); s != nil {
		out := &authz.SocketAddress{
			Address: s.GetAddress(), Port: s.GetPortValue(), NamedPort: s.GetNamedPort(),
			ResolverName: s.GetResolverName(), IPv4Compat: s.GetIpv4Compat(),
		}
		_, out.HasPort = s.GetPortSpecifier().(*corev3.SocketAddress_PortValue)
		_, out.HasNamedPort = s.GetPortSpecifier().(*corev3.SocketAddress_NamedPort)
		out.Protocol = int32(s.GetProtocol())
		return &authz.Address{Socket: out}
	}
	if p := a.GetPipe(); p != nil {
		return &authz.Address{Pipe: &authz.PipeAddress{Path: p.GetPath(), Mode: p.GetMode()}}
	}
	if i := a.GetEnvoyInternalAddress(); i != nil {
		out := &authz.InternalAddress{ServerListenerName: i.GetServerListenerName(), EndpointID: i.GetEndpointId()}
		_, out.HasListenerName = i.GetAddressNameSpecifier().(*corev3.EnvoyInternalAddress_ServerListenerName)
		return &authz.Address{Internal: out}
	}
	if a != nil {
		return &authz.Address{}
	}
	return nil
}

func oracleMetadata(m *corev3.Metadata) *authz.Metadata {
	if m == nil {
		return nil
	}
	out := &authz.Metadata{Filter: make(map[string]any, len(m.GetFilterMetadata()))}
	for k, v := range m.GetFilterMetadata() {
		out.Filter[k] = v.AsMap()
	}
	if len(m.GetTypedFilterMetadata()) > 0 {
		out.Typed = make(map[string]any, len(m.GetTypedFilterMetadata()))
		for k, v := range m.GetTypedFilterMetadata() {
			out.Typed[k] = oracleTyped(v)
		}
	}
	return out
}

func oracleTyped(a *anypb.Any) any {
	var out map[string]any
	raw, _ := json.Marshal(struct {
		TypeURL string `json:"typeUrl,omitempty"`
		Value   []byte `json:"value,omitempty"`
	}{a.GetTypeUrl(), a.GetValue()})
	_ = json.Unmarshal(raw, &out)
	return out
}

// oracleEncode makes a CheckResponse.
func oracleEncode(d *authz.Decision) *authv3.CheckResponse {
	resp := &authv3.CheckResponse{
		Status:          &statuspb.Status{Code: int32(codes.PermissionDenied)},
		DynamicMetadata: oracleStruct(oracleAllMetadata(d)),
	}
	if d.Allowed() {
		resp.Status.Code = int32(codes.OK)
		resp.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:                 oracleOptions(d.Headers, toUpstream),
			HeadersToRemove:         oracleTexts(d.RemoveRequestHeaders),
			ResponseHeadersToAdd:    oracleOptions(d.ResponseHeaders, toClient),
			QueryParametersToSet:    oracleParameters(d.SetQueryParameters),
			QueryParametersToRemove: oracleTexts(d.RemoveQueryParameters),
		}}
		return resp
	}
	h := d.Headers
	if !h.Has("x-authz-reason") {
		h = append(h, authz.Header{Name: "x-authz-reason", Value: string(d.DeniedFor())})
	}
	resp.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(d.HTTPStatus())},
		Headers: oracleOptions(h, toDenied),
		Body:    oracleText(d.Body),
	}}
	return resp
}

func oracleText(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func oracleTexts(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = oracleText(s)
	}
	return out
}

func oracleOptions(in authz.Headers, to destination) []*corev3.HeaderValueOption {
	out := make([]*corev3.HeaderValueOption, len(in))
	for i, h := range in {
		add := to == toUpstream && in[:i].Has(h.Name) || to == toClient && (in[:i].Has(h.Name) || in[i+1:].Has(h.Name))
		action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		if add {
			action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
		out[i] = &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: oracleText(h.Name), Value: oracleText(h.Value)}, AppendAction: action}
		//lint:ignore SA1019 it is deprecated, but some releases of Envoy obey only this one
		out[i].Append = wrapperspb.Bool(add)
	}
	return out
}

func oracleParameters(in []authz.Header) []*corev3.QueryParameter {
	out := make([]*corev3.QueryParameter, len(in))
	for i, p := range in {
		out[i] = &corev3.QueryParameter{Key: oracleText(p.Name), Value: oracleText(p.Value)}
	}
	return out
}

func oracleStruct(in map[string]any) *structpb.Struct {
	if len(in) == 0 {
		return nil
	}
	out := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(in))}
	for k, v := range in {
		out.Fields[oracleText(k)] = oracleValue(v)
	}
	return out
}

func oracleValue(v any) *structpb.Value {
	switch v := v.(type) {
	case string:
		return structpb.NewStringValue(oracleText(v))
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return structpb.NewStringValue(oracleText(v.String()))
		}
		return structpb.NewNumberValue(f)
	case map[string]any:
		return structpb.NewStructValue(&structpb.Struct{Fields: oracleStruct(v).GetFields()})
	case []any:
		list := &structpb.ListValue{Values: make([]*structpb.Value, len(v))}
		for i := range v {
			list.Values[i] = oracleValue(v[i])
		}
		return structpb.NewListValue(list)
	}
	out, err := structpb.NewValue(v)
	if err != nil {
		return structpb.NewStringValue(oracleText(fmt.Sprint(v)))
	}
	return out
}

// oracleAllMetadata is the policy's metadata and ours.
func oracleAllMetadata(d *authz.Decision) map[string]any {
	out := maps.Clone(d.Metadata)
	if out == nil {
		out = make(map[string]any)
	}
	if d.ID != "" && d.NoteID {
		out["decision_id"] = d.ID
	}
	if len(d.Notes) > 0 {
		notes := make(map[string]any)
		for _, n := range d.Notes {
			notes[n.Name] = n.Value
		}
		out["tollkeeper"] = notes
	}
	return out
}

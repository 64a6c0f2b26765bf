package extauthz

import (
	"net/url"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// decode reads a CheckRequest. What cannot be understood becomes the request's Fault, never a guess.
func decode(req *authv3.CheckRequest, opt Options) *authz.Request {
	attrs := req.GetAttributes()
	out := &authz.Request{
		Source:            peer(attrs.GetSource()),
		Destination:       peer(attrs.GetDestination()),
		ContextExtensions: attrs.GetContextExtensions(),
		Metadata:          filterMetadata(attrs.GetMetadataContext()),
		RouteMetadata:     filterMetadata(attrs.GetRouteMetadataContext()),
	}
	if t := attrs.GetRequest().GetTime(); t != nil {
		out.Time = t.AsTime()
	}
	if s := attrs.GetTlsSession(); s != nil {
		out.TLS = &authz.TLSSession{SNI: s.GetSni()}
	}
	if h := attrs.GetRequest().GetHttp(); h != nil {
		out.HTTP = &authz.HTTP{
			ID: h.GetId(), Method: h.GetMethod(), Scheme: h.GetScheme(), Host: h.GetHost(), Path: h.GetPath(),
			Query: h.GetQuery(), Fragment: h.GetFragment(), Protocol: h.GetProtocol(), Size: h.GetSize(),
			Body: h.GetBody(), RawBody: h.GetRawBody(),
		}
		out.HTTP.Headers, out.HTTP.RawHeaders = readHeaders(h)
	}
	if fault := readPath(out); fault != "" {
		out.Fault = fault
		return out
	}
	body, fault := readBody(out, opt)
	out.Body, out.Fault = body, fault
	return out
}

// readHeaders prefers the list in which the proxy kept repeated headers apart and their bytes as they were.
func readHeaders(h *authv3.AttributeContext_HttpRequest) (authz.Headers, bool) {
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

// readPath cuts the path into its decoded segments and reads the query's parameters. The path is not a URL, and is not
// parsed as one: in //admin, a URL parser would take admin for a host. All leading slashes go, escapes are decoded
// before the cut. What cannot be decoded, in the path or in the query, is a fault: a policy must not decide on less than
// the upstream may read.
func readPath(r *authz.Request) string {
	var path string
	if r.HTTP != nil {
		path = r.HTTP.Path
	}
	if strings.Contains(path, "#") {
		return "the path has a fragment"
	}
	path, query, _ := strings.Cut(path, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "the path has a malformed escape"
	}
	if !utf8.ValidString(decoded) {
		return "the path is not UTF-8"
	}
	if r.HTTP == nil {
		return ""
	}
	r.HTTP.Segments = strings.Split(strings.TrimLeft(decoded, "/"), "/")
	if r.HTTP.Params, err = url.ParseQuery(query); err != nil {
		return "the query has a malformed escape or a semicolon"
	}
	return ""
}

func peer(p *authv3.AttributeContext_Peer) *authz.Peer {
	if p == nil {
		return nil
	}
	return &authz.Peer{
		Address: address(p.GetAddress()), Service: p.GetService(), Labels: p.GetLabels(),
		Principal: p.GetPrincipal(), Certificate: p.GetCertificate(),
	}
}

func address(a *corev3.Address) *authz.Address {
	if s := a.GetSocketAddress(); s != nil {
		out := &authz.SocketAddress{
			Address: s.GetAddress(), Port: s.GetPortValue(), NamedPort: s.GetNamedPort(),
			ResolverName: s.GetResolverName(), IPv4Compat: s.GetIpv4Compat(),
		}
		_, out.HasPort = s.GetPortSpecifier().(*corev3.SocketAddress_PortValue)
		if s.GetProtocol() != corev3.SocketAddress_TCP {
			out.Protocol = s.GetProtocol().String()
		}
		return &authz.Address{Socket: out}
	}
	if p := a.GetPipe(); p != nil {
		return &authz.Address{Pipe: &authz.PipeAddress{Path: p.GetPath(), Mode: p.GetMode()}}
	}
	if i := a.GetEnvoyInternalAddress(); i != nil {
		return &authz.Address{Internal: &authz.InternalAddress{
			ServerListenerName: i.GetServerListenerName(), EndpointID: i.GetEndpointId(),
		}}
	}
	return nil
}

func filterMetadata(m *corev3.Metadata) *authz.Metadata {
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
			out.Typed[k] = typed(v)
		}
	}
	return out
}

// typed is a message as JSON where its type is known here, and its bare type where it is not.
func typed(a *anypb.Any) any {
	if raw, err := protojson.Marshal(a); err == nil {
		var v structpb.Value
		if protojson.Unmarshal(raw, &v) == nil {
			return v.AsInterface()
		}
	}
	return map[string]any{"@type": a.GetTypeUrl()}
}

// DecodeJSON reads a CheckRequest in its JSON form, as it stands in Envoy's logs and in the explain API, on the same way
// as one that Envoy sent.
func DecodeJSON(raw []byte, opt Options) (*authz.Request, error) {
	var req authv3.CheckRequest
	if err := protojson.Unmarshal(raw, &req); err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "not a CheckRequest: %w", err)
	}
	return decode(&req, opt), nil
}

package policy

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// inputOf builds what is read of the document that policies see: the request under the names and in the shapes of
// OPA's Envoy plugin, and the facts beside it. What the proxy did not send is left out.
func inputOf(want *inputRefs, r *authz.Request, f *authz.Facts) (ast.Value, error) {
	o := rootObject(want, 12, nil)
	if err := putInput(&o, r, f); err != nil {
		return nil, err
	}
	return ast.NewObject(o.fields...), nil
}

// keyOf writes what is read of the document to a key.
func keyOf(k *key, want *inputRefs, r *authz.Request, f *authz.Facts) error {
	o := rootObject(want, 0, k)
	return putInput(&o, r, f)
}

func putInput(o *object, r *authz.Request, f *authz.Facts) error {
	if attributes, ok := o.child("attributes", 8); ok {
		if err := putAttributes(&attributes, r); err != nil {
			return err
		}
		o.putChild("attributes", attributes)
	}
	if version, ok := o.child("version", 2); ok { // for policies that were written for several versions of the plugin
		version.text("ext_authz", "v3")
		version.text("encoding", "protojson")
		o.putChild("version", version)
	}
	putPath(o, r.HTTP)
	if err := putBody(o, &r.Body); err != nil {
		return err
	}
	if r.Source != nil {
		o.text("source_principal", r.Source.Principal)
	}
	return putFacts(o, f)
}

// putPath adds the path in segments and the query. Like the plugin it knows no path without at least one segment.
func putPath(o *object, h *authz.HTTP) {
	segments := noSegments
	var params map[string][]string
	if h != nil {
		params = h.Params
		if len(h.Segments) > 0 {
			segments = h.Segments
		}
	}
	o.list("parsed_path", segments)
	if query, ok := o.child("parsed_query", len(params)); ok {
		for name, values := range inOrder(params, o.key) {
			query.list(name, values)
		}
		o.putChild("parsed_query", query)
	}
}

var noSegments = []string{""}

func putBody(o *object, b *authz.Body) error {
	if b.Skipped {
		return nil
	}
	o.boolean("truncated_body", b.Truncated)
	return o.any("parsed_body", b.Parsed)
}

func putAttributes(o *object, r *authz.Request) error {
	putPeer(o, "source", r.Source)
	putPeer(o, "destination", r.Destination)
	putRequest(o, r)
	o.texts("contextExtensions", r.ContextExtensions)
	if err := putMetadata(o, "metadataContext", r.Metadata); err != nil {
		return err
	}
	if err := putMetadata(o, "routeMetadataContext", r.RouteMetadata); err != nil {
		return err
	}
	if r.TLS != nil {
		if tls, ok := o.child("tlsSession", 1); ok {
			tls.text("sni", r.TLS.SNI)
			o.putChild("tlsSession", tls)
		}
	}
	return nil
}

func putMetadata(o *object, name string, m *authz.Metadata) error {
	if m == nil {
		return nil
	}
	sub, ok := o.child(name, 2)
	if !ok {
		return nil
	}
	if err := sub.json("filterMetadata", m.Filter); err != nil {
		return err
	}
	if err := sub.json("typedFilterMetadata", m.Typed); err != nil {
		return err
	}
	o.putChild(name, sub)
	return nil
}

func putPeer(o *object, name string, p *authz.Peer) {
	if p == nil {
		return
	}
	peer, ok := o.child(name, 5)
	if !ok {
		return
	}
	if p.Address != nil {
		putAddress(&peer, p.Address)
	}
	peer.text("service", p.Service)
	peer.texts("labels", p.Labels)
	peer.text("principal", p.Principal)
	peer.text("certificate", p.Certificate)
	o.putChild(name, peer)
}

func putAddress(peer *object, a *authz.Address) {
	o, ok := peer.child("address", 1)
	if !ok {
		return
	}
	switch {
	case a.Socket != nil:
		putSocket(&o, a.Socket)
	case a.Pipe != nil:
		if pipe, ok := o.child("pipe", 2); ok {
			pipe.text("path", a.Pipe.Path)
			pipe.number("mode", int64(a.Pipe.Mode))
			o.putChild("pipe", pipe)
		}
	case a.Internal != nil:
		if internal, ok := o.child("envoyInternalAddress", 2); ok {
			if a.Internal.HasListenerName || a.Internal.ServerListenerName != "" {
				internal.string("serverListenerName", a.Internal.ServerListenerName)
			}
			internal.text("endpointId", a.Internal.EndpointID)
			o.putChild("envoyInternalAddress", internal)
		}
	}
	peer.putChild("address", o)
}

func putSocket(address *object, s *authz.SocketAddress) {
	o, ok := address.child("socketAddress", 6)
	if !ok {
		return
	}
	o.number("protocol", int64(s.Protocol))
	o.text("address", s.Address)
	if s.HasPort || s.Port != 0 {
		o.integer("portValue", int64(s.Port))
	}
	if s.HasNamedPort || s.NamedPort != "" {
		o.string("namedPort", s.NamedPort)
	}
	o.text("resolverName", s.ResolverName)
	if s.IPv4Compat {
		o.boolean("ipv4Compat", true)
	}
	address.putChild("socketAddress", o)
}

func putRequest(o *object, r *authz.Request) {
	if r.HTTP == nil && r.Time.IsZero() && !r.Described {
		return
	}
	request, ok := o.child("request", 2)
	if !ok {
		return
	}
	if !r.Time.IsZero() {
		if t, ok := request.child("time", 2); ok {
			t.number("seconds", r.Time.Unix())
			t.number("nanos", int64(r.Time.Nanosecond()))
			request.putChild("time", t)
		}
	}
	if r.HTTP != nil {
		if http, ok := request.child("http", 13); ok {
			putHTTP(&http, r.HTTP)
			request.putChild("http", http)
		}
	}
	o.putChild("request", request)
}

func putHTTP(o *object, h *authz.HTTP) {
	o.text("id", h.ID)
	o.text("method", h.Method)
	putHeaders(o, h)
	o.text("path", h.Path)
	o.text("host", h.Host)
	o.text("scheme", h.Scheme)
	o.text("query", h.Query)
	o.text("fragment", h.Fragment)
	o.text("protocol", h.Protocol)
	o.number("size", h.Size)
	o.text("body", h.Body)
	if o.refs.field("rawBody") != nil && len(h.RawBody) > 0 {
		o.string("rawBody", base64.StdEncoding.EncodeToString(h.RawBody))
	}
}

// putHeaders gives policies the headers by name, the values of one name joined as Envoy joins them, and, where they
// came as a list, that list too.
func putHeaders(o *object, h *authz.HTTP) {
	if len(h.Headers) == 0 {
		return
	}
	if headers, ok := o.child("headers", len(h.Headers)); ok {
		putJoined(&headers, h)
		o.putChild("headers", headers)
	}
	if !h.RawHeaders {
		return
	}
	if raw, ok := o.child("headerMap", 1); ok {
		putRaw(&raw, h.Headers)
		o.putChild("headerMap", raw)
	}
}

func putJoined(o *object, h *authz.HTTP) {
	if !o.refs.open() { // a policy that names headers reads few of them
		for _, name := range o.refs.order {
			if h.Headers.Has(name) {
				o.string(name, joined(h, name))
			}
		}
		return
	}
	values := make(map[string]string, len(h.Headers))
	for _, f := range h.Headers {
		if _, there := values[f.Name]; !there {
			values[f.Name] = joined(h, f.Name)
		}
	}
	for name, v := range inOrder(values, o.key) {
		o.string(name, v)
	}
}

// joined are all values of a header. Without a list the proxy has joined them already, and no name comes twice.
func joined(h *authz.HTTP, name string) string {
	values := h.Headers.Values(name)
	if !h.RawHeaders {
		return values[len(values)-1]
	}
	return strings.Join(values, ",")
}

func putRaw(o *object, headers authz.Headers) {
	if o.refs.field("headers") == nil {
		return
	}
	if o.key != nil {
		for _, f := range headers {
			o.key.text(f.Name)
			o.key.text(f.Value)
		}
		o.key.integer(int64(len(headers)))
		o.key.name("headers")
		return
	}
	list := make([]*ast.Term, len(headers))
	for i, f := range headers {
		entry := rootObject(everything(), 2, nil)
		entry.text("key", f.Name)
		entry.text("rawValue", base64.StdEncoding.EncodeToString([]byte(f.Value)))
		list[i] = &ast.Term{Value: ast.NewObject(entry.fields...)}
	}
	o.put("headers", ast.NewArray(slices.Clip(list)...))
}

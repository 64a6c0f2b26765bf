package policy

import (
	"encoding/base64"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// inputOf builds what is read of the document that policies see: the request under the names and in the shapes of
// OPA's Envoy plugin, and the facts beside it. What the proxy did not send is left out.
func inputOf(want *reads, r *authz.Request, f *authz.Facts) (ast.Value, error) {
	o := newObject(want, 12)
	if w := want.field("attributes"); w != nil {
		v, err := attributesOf(w, r)
		if err != nil {
			return nil, err
		}
		o.put("attributes", v)
	}
	if w := want.field("version"); w != nil {
		o.put("version", versionOf(w))
	}
	putPath(&o, r.HTTP)
	if err := putBody(&o, &r.Body); err != nil {
		return nil, err
	}
	if r.Source != nil {
		o.text("source_principal", r.Source.Principal)
	}
	if err := putFacts(&o, f); err != nil {
		return nil, err
	}
	return o.value(), nil
}

// versionOf tells policies that were written for several versions of the plugin which shapes they meet.
func versionOf(want *reads) ast.Value {
	o := newObject(want, 2)
	o.text("ext_authz", "v3")
	o.text("encoding", "protojson")
	return o.value()
}

// putPath adds the path in segments and the query. Like the plugin it knows no path without at least one segment.
func putPath(o *object, h *authz.HTTP) {
	segments := []string{""}
	var params map[string][]string
	if h != nil {
		params = h.Params
		if len(h.Segments) > 0 {
			segments = h.Segments
		}
	}
	o.list("parsed_path", segments)
	w := o.reads.field("parsed_query")
	if w == nil {
		return
	}
	query := newObject(w, len(params))
	for name, values := range params {
		query.list(name, values)
	}
	o.put("parsed_query", query.value())
}

func putBody(o *object, b *authz.Body) error {
	if b.Skipped {
		return nil
	}
	o.put("truncated_body", ast.Boolean(b.Truncated))
	w := o.reads.field("parsed_body")
	if w == nil {
		return nil
	}
	v, err := valueOf(w, b.Parsed)
	if err != nil {
		return err
	}
	o.put("parsed_body", v)
	return nil
}

func attributesOf(want *reads, r *authz.Request) (ast.Value, error) {
	o := newObject(want, 8)
	putPeer(&o, "source", r.Source)
	putPeer(&o, "destination", r.Destination)
	putRequest(&o, r)
	o.texts("contextExtensions", r.ContextExtensions)
	if err := putMetadata(&o, "metadataContext", r.Metadata); err != nil {
		return nil, err
	}
	if err := putMetadata(&o, "routeMetadataContext", r.RouteMetadata); err != nil {
		return nil, err
	}
	if r.TLS != nil {
		tls := newObject(o.reads.field("tlsSession"), 1)
		tls.text("sni", r.TLS.SNI)
		o.put("tlsSession", tls.value())
	}
	return o.value(), nil
}

func putMetadata(o *object, name string, m *authz.Metadata) error {
	w := o.reads.field(name)
	if m == nil || w == nil {
		return nil
	}
	sub := newObject(w, 2)
	if err := sub.json("filterMetadata", m.Filter); err != nil {
		return err
	}
	if err := sub.json("typedFilterMetadata", m.Typed); err != nil {
		return err
	}
	o.put(name, sub.value())
	return nil
}

func putPeer(o *object, name string, p *authz.Peer) {
	w := o.reads.field(name)
	if p == nil || w == nil {
		return
	}
	peer := newObject(w, 5)
	if p.Address != nil {
		peer.put("address", addressOf(w.field("address"), p.Address))
	}
	peer.text("service", p.Service)
	peer.texts("labels", p.Labels)
	peer.text("principal", p.Principal)
	peer.text("certificate", p.Certificate)
	o.put(name, peer.value())
}

func addressOf(want *reads, a *authz.Address) ast.Value {
	o := newObject(want, 1)
	switch {
	case a.Socket != nil:
		o.put("socketAddress", socketOf(want.field("socketAddress"), a.Socket))
	case a.Pipe != nil:
		pipe := newObject(want.field("pipe"), 2)
		pipe.text("path", a.Pipe.Path)
		pipe.number("mode", int64(a.Pipe.Mode))
		o.put("pipe", pipe.value())
	case a.Internal != nil:
		internal := newObject(want.field("envoyInternalAddress"), 2)
		internal.text("serverListenerName", a.Internal.ServerListenerName)
		internal.text("endpointId", a.Internal.EndpointID)
		o.put("envoyInternalAddress", internal.value())
	}
	return o.value()
}

func socketOf(want *reads, s *authz.SocketAddress) ast.Value {
	o := newObject(want, 6)
	o.text("protocol", s.Protocol)
	o.text("address", s.Address)
	if s.HasPort || s.Port != 0 {
		o.put("portValue", integer(int64(s.Port)))
	}
	o.text("namedPort", s.NamedPort)
	o.text("resolverName", s.ResolverName)
	if s.IPv4Compat {
		o.put("ipv4Compat", ast.Boolean(true))
	}
	return o.value()
}

func putRequest(o *object, r *authz.Request) {
	w := o.reads.field("request")
	if w == nil || (r.HTTP == nil && r.Time.IsZero()) {
		return
	}
	request := newObject(w, 2)
	if !r.Time.IsZero() {
		t := newObject(w.field("time"), 2)
		t.number("seconds", r.Time.Unix())
		t.number("nanos", int64(r.Time.Nanosecond()))
		request.put("time", t.value())
	}
	if w := w.field("http"); w != nil && r.HTTP != nil {
		request.put("http", httpOf(w, r.HTTP))
	}
	o.put("request", request.value())
}

func httpOf(want *reads, h *authz.HTTP) ast.Value {
	o := newObject(want, 13)
	o.text("id", h.ID)
	o.text("method", h.Method)
	putHeaders(&o, h)
	o.text("path", h.Path)
	o.text("host", h.Host)
	o.text("scheme", h.Scheme)
	o.text("query", h.Query)
	o.text("fragment", h.Fragment)
	o.text("protocol", h.Protocol)
	o.number("size", h.Size)
	o.text("body", h.Body)
	if want.field("rawBody") != nil && len(h.RawBody) > 0 {
		o.text("rawBody", base64.StdEncoding.EncodeToString(h.RawBody))
	}
	return o.value()
}

// putHeaders gives policies the headers by name, the values of one name joined as Envoy joins them, and, where they
// came as a list, that list too.
func putHeaders(o *object, h *authz.HTTP) {
	if len(h.Headers) == 0 {
		return
	}
	if w := o.reads.field("headers"); w != nil {
		headers := newObject(w, len(h.Headers))
		if h.RawHeaders {
			putJoined(&headers, h.Headers)
		} else {
			for _, f := range h.Headers {
				headers.put(f.Name, ast.String(f.Value))
			}
		}
		o.put("headers", headers.value())
	}
	if w := o.reads.field("headerMap"); w != nil && h.RawHeaders {
		raw := newObject(w, 1)
		raw.put("headers", rawList(h.Headers))
		o.put("headerMap", raw.value())
	}
}

func putJoined(o *object, headers authz.Headers) {
	values := make(map[string][]string, len(headers))
	for _, f := range headers {
		values[f.Name] = append(values[f.Name], f.Value)
	}
	for name, v := range values {
		o.put(name, ast.String(strings.Join(v, ",")))
	}
}

func rawList(headers authz.Headers) ast.Value {
	list := make([]*ast.Term, len(headers))
	for i, f := range headers {
		entry := newObject(everything(), 2)
		entry.text("key", f.Name)
		entry.text("rawValue", base64.StdEncoding.EncodeToString([]byte(f.Value)))
		list[i] = &ast.Term{Value: entry.value()}
	}
	return ast.NewArray(list...)
}

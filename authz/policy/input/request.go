package input

import (
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// putRequest adds the request with the names and shapes of OPA's Envoy plugin. Fields that the proxy did not send are left out.
func (o object) putRequest(r *authz.Request) error {
	if attributes, ok := o.begin("attributes", 8); ok {
		if err := attributes.putAttributes(r); err != nil {
			return err
		}
		o.end("attributes")
	}
	if version, ok := o.begin("version", 2); ok { // for policies that were written for several versions of the plugin
		version.text("ext_authz", "v3")
		version.text("encoding", "protojson")
		o.end("version")
	}
	o.putPath(r.HTTP)
	if err := o.putBody(&r.Body); err != nil {
		return err
	}
	if r.Source != nil {
		o.text("source_principal", r.Source.Principal)
	}
	return nil
}

// putPath adds the path in segments, and the query. As in the plugin, every path has at least one segment.
func (o object) putPath(h *authz.HTTP) {
	segments := noSegments
	var params map[string][]string
	if h != nil {
		params = h.Params
		if len(h.Segments) > 0 {
			segments = h.Segments
		}
	}
	o.texts("parsed_path", segments)
	if query, ok := o.begin("parsed_query", len(params)); ok {
		for name, values := range inOrder(params, o.out) {
			query.texts(name, values)
		}
		o.end("parsed_query")
	}
}

var noSegments = []string{""}

func (o object) putBody(b *authz.Body) error {
	if b.Skipped {
		return nil
	}
	o.boolean("truncated_body", b.Truncated)
	return o.json("parsed_body", b.Parsed)
}

func (o object) putAttributes(r *authz.Request) error {
	o.putPeer("source", r.Source)
	o.putPeer("destination", r.Destination)
	o.putHTTPRequest(r)
	o.textMap("contextExtensions", r.ContextExtensions)
	if err := o.putMetadata("metadataContext", r.Metadata); err != nil {
		return err
	}
	if err := o.putMetadata("routeMetadataContext", r.RouteMetadata); err != nil {
		return err
	}
	if r.TLS != nil {
		if tls, ok := o.begin("tlsSession", 1); ok {
			tls.text("sni", r.TLS.SNI)
			o.end("tlsSession")
		}
	}
	return nil
}

func (o object) putMetadata(name string, m *authz.Metadata) error {
	if m == nil {
		return nil
	}
	metadata, ok := o.begin(name, 2)
	if !ok {
		return nil
	}
	if err := metadata.jsonMap("filterMetadata", m.Filter); err != nil {
		return err
	}
	if err := metadata.jsonMap("typedFilterMetadata", m.Typed); err != nil {
		return err
	}
	o.end(name)
	return nil
}

func (o object) putPeer(name string, p *authz.Peer) {
	if p == nil {
		return
	}
	peer, ok := o.begin(name, 5)
	if !ok {
		return
	}
	if p.Address != nil {
		if address, ok := peer.begin("address", 1); ok {
			address.putAddress(p.Address)
			peer.end("address")
		}
	}
	peer.text("service", p.Service)
	peer.textMap("labels", p.Labels)
	peer.text("principal", p.Principal)
	peer.text("certificate", p.Certificate)
	o.end(name)
}

func (o object) putAddress(a *authz.Address) {
	switch {
	case a.Socket != nil:
		if socket, ok := o.begin("socketAddress", 6); ok {
			socket.putSocket(a.Socket)
			o.end("socketAddress")
		}
	case a.Pipe != nil:
		if pipe, ok := o.begin("pipe", 2); ok {
			pipe.text("path", a.Pipe.Path)
			pipe.integer("mode", int64(a.Pipe.Mode))
			o.end("pipe")
		}
	case a.Internal != nil:
		if internal, ok := o.begin("envoyInternalAddress", 2); ok {
			if a.Internal.HasListenerName || a.Internal.ServerListenerName != "" {
				internal.anyText("serverListenerName", a.Internal.ServerListenerName)
			}
			internal.text("endpointId", a.Internal.EndpointID)
			o.end("envoyInternalAddress")
		}
	}
}

func (o object) putSocket(s *authz.SocketAddress) {
	o.integer("protocol", int64(s.Protocol))
	o.text("address", s.Address)
	if s.HasPort || s.Port != 0 {
		o.anyInteger("portValue", int64(s.Port))
	}
	if s.HasNamedPort || s.NamedPort != "" {
		o.anyText("namedPort", s.NamedPort)
	}
	o.text("resolverName", s.ResolverName)
	if s.IPv4Compat {
		o.boolean("ipv4Compat", true)
	}
}

func (o object) putHTTPRequest(r *authz.Request) {
	if r.HTTP == nil && r.Time.IsZero() && !r.Described {
		return
	}
	request, ok := o.begin("request", 2)
	if !ok {
		return
	}
	if !r.Time.IsZero() {
		if t, ok := request.begin("time", 2); ok {
			t.integer("seconds", r.Time.Unix())
			t.integer("nanos", int64(r.Time.Nanosecond()))
			request.end("time")
		}
	}
	if r.HTTP != nil {
		if http, ok := request.begin("http", 13); ok {
			http.putHTTP(r.HTTP)
			request.end("http")
		}
	}
	o.end("request")
}

func (o object) putHTTP(h *authz.HTTP) {
	o.text("id", h.ID)
	o.text("method", h.Method)
	o.putHeaders(h)
	o.text("path", h.Path)
	o.text("host", h.Host)
	o.text("scheme", h.Scheme)
	o.text("query", h.Query)
	o.text("fragment", h.Fragment)
	o.text("protocol", h.Protocol)
	o.integer("size", h.Size)
	o.text("body", h.Body)
	if len(h.RawBody) > 0 && o.wants("rawBody") {
		o.out.base64("rawBody", string(h.RawBody))
	}
}

// putHeaders adds the headers by name, with the values of one name joined as Envoy joins them. If they came as a list,
// it adds the list too.
func (o object) putHeaders(h *authz.HTTP) {
	if len(h.Headers) == 0 {
		return
	}
	if headers, ok := o.begin("headers", len(h.Headers)); ok {
		headers.putJoined(h)
		o.end("headers")
	}
	if !h.RawHeaders {
		return
	}
	if raw, ok := o.begin("headerMap", 1); ok {
		if raw.wants("headers") {
			raw.putHeaderList(h.Headers)
		}
		o.end("headerMap")
	}
}

func (o object) putJoined(h *authz.HTTP) {
	if !o.refs.open() { // most policies name few headers
		for _, name := range o.refs.order {
			if h.Headers.Has(name) {
				o.out.text(name, joined(h, name))
			}
		}
		return
	}
	values := make(map[string]string, len(h.Headers))
	for _, f := range h.Headers {
		if _, found := values[f.Name]; !found {
			values[f.Name] = joined(h, f.Name)
		}
	}
	for name, v := range inOrder(values, o.out) {
		o.out.text(name, v)
	}
}

// joined returns all values of a header. Unless headers came as a list, the proxy has joined them, and each name comes
// once.
func joined(h *authz.HTTP, name string) string {
	values := h.Headers.Values(name)
	if !h.RawHeaders {
		return values[len(values)-1]
	}
	return strings.Join(values, ",")
}

// putHeaderList adds every header as an object of its own. The objects are complete even if rules read only parts of them.
func (o object) putHeaderList(headers authz.Headers) {
	o.out.array("headers", len(headers))
	for _, h := range headers {
		o.out.object("", 2)
		if h.Name != "" {
			o.out.text("key", h.Name)
		}
		if h.Value != "" {
			o.out.base64("rawValue", h.Value)
		}
		o.out.end("")
	}
	o.out.end("headers")
}

package model

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// ProtocolOptions is the key of a cluster's HTTP options.
const ProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// HTTP2 returns the options of HTTP/2, and whether the cluster speaks it.
func (t *Target) HTTP2() (*corev3.Http2ProtocolOptions, bool) {
	msg, _ := Unpack(t.Msg.GetTypedExtensionProtocolOptions()[ProtocolOptions])
	if p, ok := msg.(*httpv3.HttpProtocolOptions); ok {
		if explicit := p.GetExplicitHttpConfig(); explicit != nil {
			return explicit.GetHttp2ProtocolOptions(), explicit.GetHttp2ProtocolOptions() != nil
		}
		if auto := p.GetAutoConfig(); auto != nil { // by ALPN, which needs TLS
			return auto.GetHttp2ProtocolOptions(), t.encrypted()
		}
		return nil, false
	}
	//lint:ignore SA1019 Envoy still takes it
	old := t.Msg.GetHttp2ProtocolOptions()
	return old, old != nil
}

// addresses are the addresses of the cluster in the file.
func (t *Target) addresses() []*corev3.Address {
	var out []*corev3.Address
	for _, l := range t.Msg.GetLoadAssignment().GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			out = append(out, e.GetEndpoint().GetAddress())
		}
	}
	return out
}

// Hosts are the hosts of the cluster in the file.
func (t *Target) Hosts() []string {
	var out []string
	for _, a := range t.addresses() {
		if s := a.GetSocketAddress(); s != nil {
			out = append(out, s.GetAddress())
		}
	}
	return out
}

// Local reports whether connections of the cluster stay on the machine.
func (t *Target) Local() bool {
	all := t.addresses()
	return len(all) > 0 && !slices.ContainsFunc(all, func(a *corev3.Address) bool {
		return a.GetPipe() == nil && a.GetEnvoyInternalAddress() == nil && !Loopback(a.GetSocketAddress().GetAddress())
	})
}

// Loopback reports whether a host is this machine.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

// Protection is how a transport socket protects a connection.
type Protection int

// The protections.
const (
	Clear     Protection = iota // not encrypted
	Encrypted                   // by TLS, or by another socket that encrypts and verifies the server
	Doubtful                    // unknown, because the type of the socket is
)

// Socket is a transport socket of a cluster, without the wrappers around it.
type Socket struct {
	source.Location
	Protection
	TLS  *tlsv3.UpstreamTlsContext // nil if it is not TLS
	Type string
}

// Sockets are the sockets that connections of a cluster may use. A host that matches none of transport_socket_matches uses
// transport_socket. If that is missing, the connection is not encrypted.
func (t *Target) Sockets() []Socket {
	var out []Socket
	all := false
	for i, m := range t.Msg.GetTransportSocketMatches() {
		out = append(out, readSocket(t.At("transport_socket_matches").Index(i).At("transport_socket"), 0))
		all = all || len(m.GetMatch().GetFields()) == 0
	}
	if !all {
		out = append(out, readSocket(t.At("transport_socket"), 0))
	}
	return out
}

// readSocket reads a transport socket, or the one inside a wrapper.
func readSocket(at source.Location, depth int) Socket {
	if !at.Exists() || strings.HasSuffix(at.At("name").Text(), "raw_buffer") {
		return Socket{Location: at, Protection: Clear}
	}
	config := at.At("typed_config")
	name := config.At(source.TypeKey).Text()
	if strings.HasSuffix(name, ".TypedStruct") {
		name = cmp.Or(config.At("type_url").Text(), name)
		config = config.At("value")
	}
	name = name[strings.LastIndex(name, "/")+1:]
	switch strings.TrimPrefix(name, "envoy.extensions.transport_sockets.") {
	case "raw_buffer.v3.RawBuffer", "starttls.v3.UpstreamStartTlsConfig": // not encrypted at first
		return Socket{Location: at, Protection: Clear}
	case "internal_upstream.v3.InternalUpstreamTransport", "alts.v3.Alts", "s2a.v3.S2AConfiguration":
		return Socket{Location: at, Protection: Encrypted}
	case "quic.v3.QuicUpstreamTransport":
		return readTLS(config.At("upstream_tls_context"))
	case "tls.v3.UpstreamTlsContext":
		return readTLS(config)
	}
	if inner := config.At("transport_socket"); inner.Exists() && depth < source.MaxDepth {
		return readSocket(inner, depth+1)
	}
	return Socket{Location: at, Protection: Doubtful, Type: cmp.Or(name, at.At("name").Text())}
}

func readTLS(at source.Location) Socket {
	msg, _ := decode(at, &tlsv3.UpstreamTlsContext{})
	if msg == nil {
		msg = &tlsv3.UpstreamTlsContext{}
	}
	return Socket{Location: at, Protection: Encrypted, TLS: msg}
}

func (t *Target) encrypted() bool {
	return slices.ContainsFunc(t.Sockets(), func(s Socket) bool { return s.Protection != Clear })
}

// InMesh reports whether istiod decides for every endpoint whether to speak TLS.
func (t *Target) InMesh() bool {
	return t.At("transport_socket_matches").Any(func(s source.Location) bool { return s.At("match.tlsMode").Text() == "istio" })
}

// Validation returns how the certificate of a server is verified. secret reports that a part of it is in a secret, or all of it
// if it is nil.
func Validation(at source.Location, tls *tlsv3.UpstreamTlsContext) (v *tlsv3.CertificateValidationContext, where source.Location, secret bool) {
	common := tls.GetCommonTlsContext()
	at = at.At("common_tls_context")
	if combined := common.GetCombinedValidationContext(); combined != nil {
		return combined.GetDefaultValidationContext(), at.At("combined_validation_context.default_validation_context"),
			combined.GetValidationContextSdsSecretConfig() != nil
	}
	return common.GetValidationContext(), at.At("validation_context"), common.GetValidationContextSdsSecretConfig() != nil
}

package lint

import (
	"cmp"
	"net"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// The rules of this file look at what connections to Tollkeeper are wrapped in.

// protection is what a transport socket does to what passes through it.
type protection int

const (
	plain     protection = iota // readable on the way
	encrypted                   // by TLS, or by what stands in its place and verifies who answers by itself
	doubtful                    // of a type that nobody here knows
)

// socket is a transport socket of a cluster, without the wrappers around it.
type socket struct {
	spot
	protection
	tls   *tlsv3.UpstreamTlsContext // nil if it is not TLS
	named string
}

// sockets are those that connections of a cluster may get. What matches none of transport_socket_matches gets
// transport_socket, which is plain if it is missing.
func (t *target) sockets() []socket {
	var out []socket
	all := false
	for i, m := range t.msg.GetTransportSocketMatches() {
		out = append(out, socketAt(t.at("transport_socket_matches").index(i).at("transport_socket"), 0))
		all = all || len(m.GetMatch().GetFields()) == 0
	}
	if !all {
		out = append(out, socketAt(t.at("transport_socket"), 0))
	}
	return out
}

// socketAt reads a transport socket. Wrappers hold another one.
func socketAt(s spot, depth int) socket {
	if !s.is || strings.HasSuffix(s.at("name").text(), "raw_buffer") {
		return socket{spot: s, protection: plain}
	}
	config := s.at("typed_config")
	name := config.at(typeKey).text()
	if strings.HasSuffix(name, ".TypedStruct") {
		name = cmp.Or(config.at("type_url").text(), name)
		config = config.at("value")
	}
	name = name[strings.LastIndex(name, "/")+1:]
	switch short := strings.TrimPrefix(name, "envoy.extensions.transport_sockets."); short {
	case "raw_buffer.v3.RawBuffer", "starttls.v3.UpstreamStartTlsConfig": // which begins in the clear
		return socket{spot: s, protection: plain}
	case "internal_upstream.v3.InternalUpstreamTransport", "alts.v3.Alts", "s2a.v3.S2AConfiguration":
		return socket{spot: s, protection: encrypted}
	case "quic.v3.QuicUpstreamTransport":
		return tlsAt(config.at("upstream_tls_context"))
	case "tls.v3.UpstreamTlsContext":
		return tlsAt(config)
	}
	if inner := config.at("transport_socket"); inner.is && depth < maxDepth {
		return socketAt(inner, depth+1)
	}
	return socket{spot: s, protection: doubtful, named: cmp.Or(name, s.at("name").text())}
}

func tlsAt(s spot) socket {
	msg, _ := decode(s, &tlsv3.UpstreamTlsContext{})
	if msg == nil {
		msg = &tlsv3.UpstreamTlsContext{}
	}
	return socket{spot: s, protection: encrypted, tls: msg}
}

// encrypted reports whether TLS, or what a mesh puts in its place, may be spoken.
func (t *target) encrypted() bool {
	return slices.ContainsFunc(t.sockets(), func(s socket) bool { return s.protection != plain })
}

// meshed reports whether istiod decides for every endpoint whether TLS is spoken.
func (t *target) meshed() bool {
	return slices.ContainsFunc(t.at("transport_socket_matches").items(), func(s spot) bool {
		return s.at("match", "tlsMode").text() == "istio"
	})
}

// unprotected: who listens, or who answers, is not known.
func unprotected(in *Input, report func(Finding)) {
	for _, t := range in.targets() {
		if t.local() {
			continue
		}
		for _, s := range t.sockets() {
			switch {
			case s.tls != nil:
				verifies(s.spot, s.tls, report)
			case s.protection == doubtful:
				f := s.says("nobody here knows whether %q encrypts, and verifies who answers", s.named)
				f.Severity = Warning
				report(f)
			case s.protection == plain:
				f := s.says("checks, with the credentials in them, cross the network in the clear, and whoever answers is believed")
				if t.meshed() {
					f.Severity = Warning
					f.Wrong += ", at endpoints that are not in the mesh"
				}
				report(f)
			}
		}
	}
}

// unprotectedGoogle: the same where gRPC's own library asks, which has no cluster.
func unprotectedGoogle(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		g := a.authz.GetGrpcService().GetGoogleGrpc()
		if g == nil || g.GetChannelCredentials().GetCredentialSpecifier() != nil || len(g.GetChannelCredentialsPlugin()) > 0 || localTarget(g.GetTargetUri()) {
			continue
		}
		report(a.at("grpc_service", "google_grpc", "channel_credentials").says(
			"checks, with the credentials in them, cross the network in the clear, and whoever answers is believed"))
	}
}

// localTarget reports whether an address as gRPC writes them does not leave the machine.
func localTarget(uri string) bool {
	if strings.HasPrefix(uri, "unix") {
		return true
	}
	host, _, err := net.SplitHostPort(uri[strings.LastIndex(uri, "/")+1:])
	return err == nil && loopback(host)
}

func verifies(at spot, tls *tlsv3.UpstreamTlsContext, report func(Finding)) {
	v, where, secret := validation(at, tls)
	names := where.at("match_typed_subject_alt_names")
	switch {
	case v.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED:
		report(where.at("trust_chain_verification").says("certificates that cannot be verified are accepted"))
	case !secret && !rooted(v):
		report(where.says("whoever answers is believed: no certificate is verified"))
	case slices.ContainsFunc(v.GetMatchTypedSubjectAltNames(), anybody):
		f := names.says("a matcher takes any name: any certificate of the CA is good, whoever it was made out to")
		f.Severity = Warning
		report(f)
	case len(v.GetMatchTypedSubjectAltNames()) > 0 || certain(v) || tls.GetAutoSniSanValidation() || v == nil:
	case secret:
		f := names.says("any certificate of the CA is good, whoever it was made out to, unless the secret names one")
		f.Severity = Info
		report(f)
	default:
		f := names.says("any certificate of the CA is good, whoever it was made out to")
		f.Severity = Warning
		report(f)
	}
}

// rooted reports whether certificates are verified by anything. Names alone are not: anybody can make such a certificate.
func rooted(v *tlsv3.CertificateValidationContext) bool {
	return v.GetTrustedCa() != nil || v.GetCaCertificateProviderInstance() != nil || v.GetSystemRootCerts() != nil ||
		v.GetCustomValidatorConfig() != nil || certain(v)
}

// certain reports whether only certain certificates are good.
func certain(v *tlsv3.CertificateValidationContext) bool {
	return len(v.GetVerifyCertificateHash()) > 0 || len(v.GetVerifyCertificateSpki()) > 0
}

// anybody reports whether a matcher takes a name that nobody has.
func anybody(m *tlsv3.SubjectAltNameMatcher) bool { return matches(m.GetMatcher(), "anybody.invalid") }

// validation is how the certificate of a server is verified. Secret: part of it stands in a secret, or all if it is nil.
func validation(at spot, tls *tlsv3.UpstreamTlsContext) (v *tlsv3.CertificateValidationContext, where spot, secret bool) {
	common := tls.GetCommonTlsContext()
	at = at.at("common_tls_context")
	if combined := common.GetCombinedValidationContext(); combined != nil {
		return combined.GetDefaultValidationContext(), at.at("combined_validation_context", "default_validation_context"),
			combined.GetValidationContextSdsSecretConfig() != nil
	}
	return common.GetValidationContext(), at.at("validation_context"), common.GetValidationContextSdsSecretConfig() != nil
}

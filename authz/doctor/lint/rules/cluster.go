package rules

import (
	"net"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// This file has the rules about the cluster of Tollkeeper in Envoy.

var notHTTP2 = rule.Rule{
	ID: "TK140", Severity: rule.Error, Since: since, Title: "The cluster does not speak HTTP/2.",
	Why:    "gRPC needs it: every check fails.",
	Remedy: "Set explicit_http_config: {http2_protocol_options: {}} in its HttpProtocolOptions.",
	Checks: each((*model.Model).Targets, func(_ *model.Model, t model.Target, report rule.Report) {
		if _, ok := t.HTTP2(); !ok {
			report(rule.At(t.At("typed_extension_protocol_options"), "it does not speak HTTP/2, which gRPC needs: every check fails"))
		}
	}),
}

var frequentPings = rule.Rule{
	ID: "TK141", Severity: rule.Warning, Since: since, Title: "Keepalive pings come too often.",
	Why:    "Tollkeeper closes the connection with too_many_pings, and the checks on it fail.",
	Remedy: "Set connection_keepalive.interval to 30s.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		const least = 5 * time.Second // the server enforces it
		for _, t := range in.Targets() {
			o, _ := t.HTTP2()
			if every := o.GetConnectionKeepalive().GetInterval(); every != nil && every.AsDuration() < least {
				at := t.At("typed_extension_protocol_options").Key(model.ProtocolOptions).
					At("explicit_http_config.http2_protocol_options.connection_keepalive.interval")
				report(rule.At(at, "it pings every %v, and Tollkeeper closes connections that ping more often than every %v", every.AsDuration(), least))
			}
		}
	}},
}

var oneReplica = rule.Rule{
	ID: "TK142", Severity: rule.Warning, Since: since, Title: "All checks go to one replica.",
	Why:    "The others are idle, and a new one gets nothing.",
	Remedy: "Use STRICT_DNS with the name of a headless Service. One replica needs none.",
	Checks: each((*model.Model).Targets, func(in *model.Model, t model.Target, report rule.Report) {
		switch t.Msg.GetType() {
		case clusterv3.Cluster_LOGICAL_DNS:
			report(rule.At(t.At("type"), "with LOGICAL_DNS every connection goes to the first address of the name: other replicas get nothing"))
		case clusterv3.Cluster_STRICT_DNS:
			for _, host := range t.Hosts() {
				s := in.Objects.Service(host)
				if s != nil && s.At("spec.clusterIP").Text() != "None" && s.At("spec.type").Text() != "ExternalName" && !in.Objects.HasOnePod(s) {
					report(rule.At(t.At("load_assignment"), "%s is the address of a Service that is not headless: a worker sends all its checks to one replica", host))
				}
			}
		}
	}),
}

var openConnection = rule.Rule{
	ID: "TK143", Severity: rule.Error, Since: since, Title: "Envoy trusts any server that answers.",
	Why:    "An attacker on the network can read credentials, or answer instead of Tollkeeper and let every request pass.",
	Remedy: "Use a TLS transport socket with a validation context that names Tollkeeper's certificate.",
	Checks: []rule.Check{openClusters, openGoogleGRPC, openInMesh, openBackends},
}

func openClusters(in *model.Model, report rule.Report) {
	for _, t := range in.Targets() {
		if t.Local() {
			continue
		}
		for _, s := range t.Sockets() {
			switch {
			case s.TLS != nil:
				unverified(s.Location, s.TLS, report)
			case s.Protection == model.Doubtful:
				report(rule.At(s.Location, "this version of tollkeeper does not know whether %q encrypts, and verifies the server", s.Type).As(rule.Warning))
			case s.Protection == model.Clear && t.InMesh():
				report(rule.At(s.Location, inTheClear+", at endpoints that are not in the mesh").As(rule.Warning))
			case s.Protection == model.Clear:
				report(rule.At(s.Location, inTheClear))
			}
		}
	}
}

// openGoogleGRPC looks at filters that use gRPC's own library, which has no cluster.
func openGoogleGRPC(in *model.Model, report rule.Report) {
	for _, c := range in.ChecksBy(model.ByFilter) {
		g := c.Msg.GetGrpcService().GetGoogleGrpc()
		if g == nil || g.GetChannelCredentials().GetCredentialSpecifier() != nil || len(g.GetChannelCredentialsPlugin()) > 0 || isLocal(g.GetTargetUri()) {
			continue
		}
		report(rule.At(c.At("grpc_service.google_grpc.channel_credentials"), inTheClear))
	}
}

// isLocal reports whether a target of gRPC's library is on this machine.
func isLocal(target string) bool {
	if strings.HasPrefix(target, "unix") {
		return true
	}
	host, _, err := net.SplitHostPort(target[strings.LastIndex(target, "/")+1:])
	return err == nil && model.Loopback(host)
}

// unverified reports how another server could pass for Tollkeeper in spite of TLS.
func unverified(at source.Location, tls *tlsv3.UpstreamTlsContext, report rule.Report) {
	const anyName = "any certificate of the CA is accepted, with any name"
	v, where, secret := model.Validation(at, tls)
	names := where.At("match_typed_subject_alt_names")
	pinned := len(v.GetVerifyCertificateHash()) > 0 || len(v.GetVerifyCertificateSpki()) > 0
	// Names alone verify nothing: anyone can make a certificate with them.
	verified := pinned || v.GetTrustedCa() != nil || v.GetCaCertificateProviderInstance() != nil || v.GetSystemRootCerts() != nil ||
		v.GetCustomValidatorConfig() != nil
	switch {
	case v.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED:
		report(rule.At(where.At("trust_chain_verification"), "certificates that cannot be verified are accepted"))
	case !secret && !verified:
		report(rule.At(where, "any server is trusted: no certificate is verified"))
	case slices.ContainsFunc(v.GetMatchTypedSubjectAltNames(), takesAnyName):
		report(rule.At(names, "a matcher accepts any name: "+anyName).As(rule.Warning))
	case len(v.GetMatchTypedSubjectAltNames()) > 0 || pinned || tls.GetAutoSniSanValidation() || v == nil:
	case secret:
		report(rule.At(names, anyName+", unless the secret names one").As(rule.Info))
	default:
		report(rule.At(names, anyName).As(rule.Warning))
	}
}

// takesAnyName reports whether a matcher accepts a name that no server has.
func takesAnyName(m *tlsv3.SubjectAltNameMatcher) bool {
	return model.Matches(m.GetMatcher(), "any.invalid")
}

// openInMesh looks at DestinationRules. Without one, the mesh encrypts a connection if both ends can.
func openInMesh(in *model.Model, report rule.Report) {
	for _, c := range in.ChecksBy(model.ByProvider) {
		o := in.Objects.DestinationRule(c.Host())
		if o == nil {
			continue
		}
		tls := o.At("spec.trafficPolicy.tls")
		switch tls.At("mode").Text() {
		case "DISABLE":
			report(rule.At(tls.At("mode"), inTheClear).As(rule.Warning).
				FixedBy("Use ISTIO_MUTUAL if Tollkeeper is in the mesh, and MUTUAL or SIMPLE with its own TLS if it is not."))
		case "SIMPLE", "MUTUAL":
			if tls.At("insecureSkipVerify").True() || !tls.At("subjectAltNames").Exists() {
				report(rule.At(tls, "any server with a certificate of the CA is trusted").As(rule.Warning).
					FixedBy("Name Tollkeeper's certificate in subjectAltNames, and do not skip verification."))
			}
		}
	}
}

// openBackends looks for backends for which Envoy Gateway is not told to use TLS.
func openBackends(in *model.Model, report rule.Report) {
	for _, b := range in.Backends() {
		o := in.Objects.Find(b.Group, b.Kind, b.Namespace, b.Name)
		if o == nil || o.At("spec.tls").Exists() || isLocalBackend(o) {
			continue
		}
		if slices.ContainsFunc(in.Objects.Of(model.GatewayAPI, "BackendTLSPolicy").In(b.Namespace), func(p *model.Object) bool {
			return slices.ContainsFunc(p.Targets(), func(r source.Location) bool {
				return r.At("kind").Text() == b.Kind && r.At("name").Text() == b.Name
			})
		}) {
			continue
		}
		report(rule.At(b.Location, inTheClear).As(rule.Warning).
			FixedBy("Give Tollkeeper a certificate, and add a BackendTLSPolicy for its " + b.Kind + "."))
	}
}

// isLocalBackend reports whether a Backend is a socket or this machine.
func isLocalBackend(o *model.Object) bool {
	endpoints := o.At("spec.endpoints")
	return len(endpoints.Items()) > 0 && !endpoints.Any(func(s source.Location) bool {
		return !s.At("unix").Exists() && !model.Loopback(s.At("ip.address").Text()) && s.At("fqdn.hostname").Text() != "localhost"
	})
}

var deadReplicas = rule.Rule{
	ID: "TK148", Severity: rule.Warning, Since: since, Title: "Envoy does not learn which replicas are healthy.",
	Why:    "Until a connection to it fails, checks go to a replica that is gone.",
	Remedy: "Add a grpc_health_check for envoy.service.auth.v3.Authorization, or outlier_detection.",
	Checks: each((*model.Model).Targets, func(_ *model.Model, t model.Target, report rule.Report) {
		eds := t.Msg.GetType() == clusterv3.Cluster_EDS // the control plane removes hosts that are not ready
		if len(t.Msg.GetHealthChecks()) == 0 && t.Msg.GetOutlierDetection() == nil && !t.Local() && !eds {
			report(rule.At(t.At("health_checks"), "until a connection to it fails, checks go to a replica that is gone"))
		}
	}),
}

var unknownCluster = rule.Rule{
	ID: "TK149", Severity: rule.Error, Since: since, Title: "The cluster of the check does not exist.",
	Why:    "Envoy refuses the configuration, or every check fails.",
	Remedy: "Add the cluster, or correct its name.",
	Checks: each(by(model.ByFilter), func(_ *model.Model, c *model.ExtAuthz, report rule.Report) {
		e, name := c.Manager.Envoy, c.Msg.GetGrpcService().GetEnvoyGrpc().GetClusterName()
		dynamic := e.Bootstrap.GetDynamicResources().GetCdsConfig() != nil || e.Bootstrap.GetDynamicResources().GetAdsConfig() != nil
		if _, ok := e.Cluster(name); name == "" || ok || dynamic && !e.Dump {
			return
		}
		report(rule.At(c.At("grpc_service.envoy_grpc.cluster_name"), "there is no cluster %q: every check fails", name))
	}),
}

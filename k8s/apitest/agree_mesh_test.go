package apitest

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3" // named in patches
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	meshv1 "istio.io/api/mesh/v1alpha1"
	istionet "istio.io/api/networking/v1alpha3"
	istiosec "istio.io/api/security/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"
)

// meshConfig is the part of the mesh's configuration that k8s/istio/mesh.yaml sets.
func meshConfig() (*meshv1.MeshConfig, error) {
	raw, err := os.ReadFile(filepath.Join(repository, "k8s/istio/mesh.yaml"))
	if err != nil {
		return nil, err
	}
	var values struct {
		MeshConfig map[string]any `json:"meshConfig"`
	}
	if err := yaml.UnmarshalStrict(raw, &values); err != nil {
		return nil, err
	}
	spec, err := json.Marshal(values.MeshConfig)
	if err != nil {
		return nil, err
	}
	var m meshv1.MeshConfig
	return &m, protojson.Unmarshal(spec, &m)
}

// istioAgrees wants CUSTOM policies to name the provider of mesh.yaml, and the provider to name our Service.
func istioAgrees(w world) (f faults) {
	mesh, err := meshConfig()
	if err != nil {
		return faults{err.Error()}
	}
	p := mesh.ExtensionProviders[0].GetEnvoyExtAuthzGrpc()
	if p == nil || p.FailOpen || p.StatusOnError != "503" || p.Timeout.AsDuration() <= 0 {
		f.addf("mesh.yaml: %v", p)
	}
	if n := mesh.GetPathNormalization().GetNormalization(); n != meshv1.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES {
		f.addf("mesh.yaml: does not normalize //admin to /admin: %v", n)
	}
	for _, a := range all[istiosec.AuthorizationPolicy](w) {
		if a.v.Action != istiosec.AuthorizationPolicy_CUSTOM {
			f = append(f, callersAgree(w, a)...)
			continue
		}
		if a.v.GetProvider().GetName() != mesh.ExtensionProviders[0].Name {
			f.addf("%s: uses the provider %q, which mesh.yaml does not define", a, a.v.GetProvider().GetName())
		}
		if (a.v.Selector == nil) == (len(a.v.TargetRefs) == 0) || len(a.v.Rules) == 0 {
			f.addf("%s: wants either a selector or targetRefs, and rules", a)
		}
	}
	for _, d := range all[istionet.DestinationRule](w) {
		if d.v.Host != p.Service {
			f.addf("%s: is for the host %q, want %q", d, d.v.Host, p.Service)
		}
		if d.v.TrafficPolicy.GetTls().GetMode() != istionet.ClientTLSSettings_ISTIO_MUTUAL {
			f.addf("%s: no mTLS", d)
		}
	}
	s := one[corev1.Service](w, "tollkeeper", "tollkeeper")
	if s == nil || len(all[istionet.DestinationRule](w)) == 0 {
		return f
	}
	if p.Service != "tollkeeper.tollkeeper.svc.cluster.local" {
		f.addf("mesh.yaml: the service is %q", p.Service)
	}
	if !slices.ContainsFunc(s.v.Spec.Ports, func(port corev1.ServicePort) bool {
		return port.Port == int32(p.Port) && port.AppProtocol != nil && *port.AppProtocol == "grpc"
	}) {
		f.addf("%s: no gRPC at port %d", s, p.Port)
	}
	if s.v.Spec.ClusterIP == corev1.ClusterIPNone {
		f.addf("%s: is headless, so Istio sends checks to the original destination of the request", s)
	}
	return f
}

// callersAgree wants a policy of callers to select Tollkeeper, and to name ports that it has.
func callersAgree(w world, a *named[istiosec.AuthorizationPolicy]) (f faults) {
	d := one[appsv1.Deployment](w, "tollkeeper", "tollkeeper")
	if d == nil {
		return nil
	}
	if len(selectedByLabels(w, a.Metadata.Namespace, a.v.Selector.GetMatchLabels())) != 1 {
		f.addf("%s: selects no pods", a)
	}
	for _, r := range a.v.Rules {
		for _, to := range r.To {
			for _, port := range to.Operation.Ports {
				if port != metricsPort && !hasPort(d.v, intstr.Parse(port)) {
					f.addf("%s: %s has no port %s", a, d, port)
				}
				if port != metricsPort && len(r.From) == 0 {
					f.addf("%s: lets every caller in", a)
				}
			}
		}
	}
	return f
}

// metricsPort is open to every caller of the mesh. Only components/monitoring opens it.
const metricsPort = "9004"

// envoyFiltersAreValid wants the patches to decode strictly into Envoy's types, and to be valid.
func envoyFiltersAreValid(w world) (f faults) {
	for _, e := range all[istionet.EnvoyFilter](w) {
		if e.v.GetWorkloadSelector() == nil && len(e.v.TargetRefs) == 0 {
			f.addf("%s: applies to every proxy", e)
		}
		for _, p := range e.v.ConfigPatches {
			raw, err := protojson.Marshal(p.Patch.Value)
			if err != nil {
				f.addf("%s: %v", e, err)
				continue
			}
			var filter hcmv3.HttpFilter // of the same shape as a network filter: a name, and a message of any type
			if err := protojson.Unmarshal(raw, &filter); err != nil {
				f.addf("%s: %v", e, err)
				continue
			}
			if err := validate(filter.GetTypedConfig()); err != nil {
				f.addf("%s: %v", e, err)
			}
		}
	}
	return f
}

// validate checks a message by the rules of Envoy's API. It fills in the required fields that a patch leaves to Istio.
func validate(a *anypb.Any) error {
	m, err := a.UnmarshalNew()
	if err != nil {
		return err
	}
	if hcm, ok := m.(*hcmv3.HttpConnectionManager); ok {
		hcm.StatPrefix = "patched"
		hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "patched"}}
		hcm.GetRds().ConfigSource = routesFromADS()
		for _, ext := range hcm.EarlyHeaderMutationExtensions {
			if err := validate(ext.TypedConfig); err != nil {
				return err
			}
		}
	}
	if x, ok := m.(*authzv3.ExtAuthz); ok && x.GetGrpcService() != nil {
		x.GetGrpcService().TargetSpecifier = &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "patched"}}
	}
	return m.(interface{ ValidateAll() error }).ValidateAll()
}

// filterOfEnvoyGateway is the name that Envoy Gateway 1.9 gives the filter of our SecurityPolicy. filterName matches the
// path of a patch, and captures the expression that finds the filter.
const filterOfEnvoyGateway = "envoy.filters.http.ext_authz/securitypolicy/default/tollkeeper"

var filterName = regexp.MustCompile(`^\.\.http_filters\[\?\(@\.name =~ /(.*)/\)\]\.typed_config$`)

// gatewayAgrees wants the objects for Envoy Gateway to target one Gateway, and to be allowed to use our Service.
func gatewayAgrees(w world) (f faults) {
	for _, s := range all[egv1a1.SecurityPolicy](w) {
		x := s.v.Spec.ExtAuth
		if x == nil || x.FailOpen == nil || *x.FailOpen || x.StatusOnError == nil || *x.StatusOnError != 503 || x.Timeout == nil {
			f.addf("%s: wants failOpen: false, statusOnError: 503 and a timeout", s)
			continue
		}
		for _, ref := range x.GRPC.BackendRefs {
			service := one[corev1.Service](w, string(*ref.Namespace), string(ref.Name))
			if service == nil || !slices.ContainsFunc(service.v.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == int32(*ref.Port) }) {
				f.addf("%s: no Service %s has port %d", s, ref.Name, *ref.Port)
			}
			if !granted(w, s.Metadata.Namespace, string(*ref.Namespace), string(ref.Name)) {
				f.addf("%s: no ReferenceGrant allows it to use %s", s, ref.Name)
			}
		}
	}
	f = append(f, tlsAgrees(w)...)
	gateways := make(map[string]bool)
	for _, s := range all[egv1a1.SecurityPolicy](w) {
		gateways[s.Metadata.Namespace+"/"+string(s.v.Spec.TargetRefs[0].Name)] = true
	}
	for _, c := range all[egv1a1.ClientTrafficPolicy](w) {
		gateways[c.Metadata.Namespace+"/"+string(c.v.Spec.TargetRefs[0].Name)] = true
	}
	for _, p := range all[egv1a1.EnvoyPatchPolicy](w) {
		at := p.Metadata.Namespace + "/" + string(p.v.Spec.TargetRef.Name)
		gateways[at] = true
		for _, patch := range p.v.Spec.JSONPatches {
			if !strings.HasPrefix(patch.Name, at+"/") {
				f.addf("%s: patches %q, which is not a listener of %s", p, patch.Name, at)
			}
			if m := filterName.FindStringSubmatch(*patch.Operation.JSONPath); m == nil || !regexp.MustCompile(m[1]).MatchString(filterOfEnvoyGateway) {
				f.addf("%s: %q does not find the filter %s", p, *patch.Operation.JSONPath, filterOfEnvoyGateway)
			}
		}
	}
	if len(gateways) > 1 {
		f.addf("the policies target several Gateways: %v", slices.Sorted(maps.Keys(gateways)))
	}
	return f
}

func granted(w world, from, to, service string) bool {
	for _, g := range all[gwv1beta1.ReferenceGrant](w) {
		a := slices.ContainsFunc(g.v.Spec.From, func(x gwv1beta1.ReferenceGrantFrom) bool {
			return x.Kind == "SecurityPolicy" && x.Group == egv1a1.GroupName && string(x.Namespace) == from
		})
		b := slices.ContainsFunc(g.v.Spec.To, func(x gwv1beta1.ReferenceGrantTo) bool {
			return x.Kind == "Service" && x.Group == "" && (x.Name == nil || string(*x.Name) == service)
		})
		if a && b && g.Metadata.Namespace == to {
			return true
		}
	}
	return false
}

// tlsAgrees wants Envoy to expect the name and the authority of Tollkeeper's certificate.
func tlsAgrees(w world) (f faults) {
	certs, err := build(fromDisk(), "cert-manager")
	if err != nil {
		return faults{err.Error()}
	}
	cert := certificate(certs, false)
	for _, b := range all[gwv1.BackendTLSPolicy](w) {
		ref := b.v.Spec.TargetRefs[0]
		s := one[corev1.Service](w, b.Metadata.Namespace, string(ref.Name))
		if s == nil || !slices.ContainsFunc(s.v.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == string(*ref.SectionName) }) {
			f.addf("%s: no Service %s has a port %s", b, ref.Name, *ref.SectionName)
		}
		if !slices.Contains(cert.v.Spec.DNSNames, string(b.v.Spec.Validation.Hostname)) {
			f.addf("%s: the certificate is not valid for %q", b, b.v.Spec.Validation.Hostname)
		}
		if string(b.v.Spec.Validation.CACertificateRefs[0].Name) != cert.v.Spec.SecretName {
			f.addf("%s: the authority is not read from %s", b, cert.v.Spec.SecretName)
		}
	}
	return f
}

// hardened are the settings of the ext_authz filter that patches add.
func hardened(patches []egv1a1.EnvoyJSONPatchConfig) (*authzv3.ExtAuthz, error) {
	fields := make(map[string]json.RawMessage)
	for _, p := range patches {
		fields[strings.TrimPrefix(*p.Operation.Path, "/")] = p.Operation.Value.Raw
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	var x authzv3.ExtAuthz
	if err := protojson.Unmarshal(raw, &x); err != nil {
		return nil, err
	}
	return &x, x.ValidateAll()
}

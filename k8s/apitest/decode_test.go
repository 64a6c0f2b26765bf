package apitest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	certv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	promv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	istionet "istio.io/api/networking/v1alpha3"
	istiosec "istio.io/api/security/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	sigsjson "sigs.k8s.io/json"
)

// kinds are the Go types of the shipped objects.
var kinds = map[string]func() any{
	"v1 Namespace":                            func() any { return new(corev1.Namespace) },
	"v1 ServiceAccount":                       func() any { return new(corev1.ServiceAccount) },
	"v1 ConfigMap":                            func() any { return new(corev1.ConfigMap) },
	"v1 Secret":                               func() any { return new(corev1.Secret) },
	"v1 Service":                              func() any { return new(corev1.Service) },
	"v1 PersistentVolumeClaim":                func() any { return new(corev1.PersistentVolumeClaim) },
	"apps/v1 Deployment":                      func() any { return new(appsv1.Deployment) },
	"batch/v1 Job":                            func() any { return new(batchv1.Job) },
	"policy/v1 PodDisruptionBudget":           func() any { return new(policyv1.PodDisruptionBudget) },
	"autoscaling/v2 HorizontalPodAutoscaler":  func() any { return new(autoscalingv2.HorizontalPodAutoscaler) },
	"networking.k8s.io/v1 NetworkPolicy":      func() any { return new(netv1.NetworkPolicy) },
	"cert-manager.io/v1 Certificate":          func() any { return new(certv1.Certificate) },
	"cert-manager.io/v1 Issuer":               func() any { return new(certv1.Issuer) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return new(promv1.ServiceMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return new(promv1.PrometheusRule) },

	"gateway.networking.k8s.io/v1 BackendTLSPolicy":      func() any { return new(gwv1.BackendTLSPolicy) },
	"gateway.networking.k8s.io/v1beta1 ReferenceGrant":   func() any { return new(gwv1beta1.ReferenceGrant) },
	"gateway.envoyproxy.io/v1alpha1 SecurityPolicy":      func() any { return new(egv1a1.SecurityPolicy) },
	"gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy": func() any { return new(egv1a1.ClientTrafficPolicy) },
	"gateway.envoyproxy.io/v1alpha1 EnvoyPatchPolicy":    func() any { return new(egv1a1.EnvoyPatchPolicy) },
	"networking.istio.io/v1 DestinationRule":             func() any { return new(istionet.DestinationRule) },
	"networking.istio.io/v1alpha3 EnvoyFilter":           func() any { return new(istionet.EnvoyFilter) },
	"security.istio.io/v1 AuthorizationPolicy":           func() any { return new(istiosec.AuthorizationPolicy) },
	"security.istio.io/v1 PeerAuthentication":            func() any { return new(istiosec.PeerAuthentication) },
}

// decode reads an object strictly: a field that its type does not have, that is spelt in another case or that is given
// twice is an error.
func decode(apiVersion, kind string, raw []byte) (any, error) {
	make, ok := kinds[apiVersion+" "+kind]
	if !ok {
		return nil, fmt.Errorf("%s %s: unknown type: add it to kinds", apiVersion, kind)
	}
	v := make()
	if spec, ok := v.(proto.Message); ok {
		return v, decodeIstio(raw, spec)
	}
	return v, strictly(raw, v)
}

func strictly(raw []byte, v any) error {
	faults, err := sigsjson.UnmarshalStrict(raw, v)
	return errors.Join(append(faults, err)...)
}

// decodeIstio reads an object of Istio, whose own decoder ignores unknown fields.
func decodeIstio(raw []byte, spec proto.Message) error {
	var o struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              json.RawMessage `json:"spec"`
	}
	if err := strictly(raw, &o); err != nil {
		return err
	}
	return protojson.Unmarshal(o.Spec, spec)
}

// The overlays build, and every object in them decodes into its real type.
func TestOverlays_ObjectsAreOfTheirTypes(t *testing.T) {
	every(t, func(t *testing.T, w world) {
		if len(w) == 0 {
			t.Error("the overlay is empty")
		}
	})
}

func TestDecode_IsStrict(t *testing.T) {
	for _, c := range []struct{ apiVersion, kind, json, want string }{
		{"apps/v1", "Deployment", `{"spec": {"replica": 1}}`, "replica"},
		{"apps/v1", "Deployment", `{"spec": {"Replicas": 1}}`, "Replicas"},
		{"v1", "Service", `{"spec": {"ports": [{"port": 1, "port": 2}]}}`, "duplicate"},
		{"security.istio.io/v1", "AuthorizationPolicy", `{"spec": {"rule": []}}`, "rule"},
		{"security.istio.io/v1", "AuthorizationPolicy", `{"specs": {}, "spec": {}}`, "specs"},
		{"gateway.envoyproxy.io/v1alpha1", "SecurityPolicy", `{"spec": {"extAuth": {"failopen": true}}}`, "failopen"},
		{"example.com/v1", "Thing", `{}`, "unknown type"},
	} {
		if _, err := decode(c.apiVersion, c.kind, []byte(c.json)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.json, err, c.want)
		}
	}
}

func TestOverlays_HoldTheirObjects(t *testing.T) {
	for overlay, want := range map[string][]string{
		"base": {
			"Deployment tollkeeper/tollkeeper", "Service tollkeeper/tollkeeper", "ConfigMap tollkeeper/tollkeeper-policies",
			"ServiceAccount tollkeeper/tollkeeper", "PodDisruptionBudget tollkeeper/tollkeeper", "NetworkPolicy tollkeeper/default-deny",
			"NetworkPolicy tollkeeper/tollkeeper",
		},
		"namespace":       {"PersistentVolumeClaim tollkeeper/tollkeeper-data", "Namespace /tollkeeper"},
		"istio/namespace": {"PersistentVolumeClaim tollkeeper/tollkeeper-data", "Namespace /tollkeeper"},
		"standalone":      {"Deployment tollkeeper/envoy", "Deployment tollkeeper/upstream"},
		"standalone/cert-manager": {
			"Issuer tollkeeper/tollkeeper-ca", "Certificate tollkeeper/tollkeeper", "Certificate tollkeeper/envoy-client",
			"Certificate tollkeeper/envoy-public",
		},
		"istio": {
			"AuthorizationPolicy istio-system/tollkeeper", "EnvoyFilter istio-system/tollkeeper", "DestinationRule tollkeeper/tollkeeper",
			"PeerAuthentication tollkeeper/tollkeeper", "AuthorizationPolicy tollkeeper/tollkeeper-callers",
		},
		"istio/sidecar":  {"AuthorizationPolicy default/tollkeeper-sidecar", "EnvoyFilter default/tollkeeper-sidecar"},
		"istio/waypoint": {"AuthorizationPolicy default/tollkeeper-waypoint", "NetworkPolicy tollkeeper/tollkeeper-waypoint"},
		"envoy-gateway": {
			"SecurityPolicy default/tollkeeper", "ClientTrafficPolicy default/tollkeeper", "EnvoyPatchPolicy default/tollkeeper",
			"BackendTLSPolicy tollkeeper/tollkeeper", "ReferenceGrant tollkeeper/tollkeeper",
		},
		"migrate":    {"Job tollkeeper/tollkeeper-migrate", "NetworkPolicy tollkeeper/tollkeeper-migrate"},
		"monitoring": {"ServiceMonitor tollkeeper/tollkeeper", "PrometheusRule tollkeeper/tollkeeper"},
	} {
		w := mustBuild(t, overlay)
		for _, name := range want {
			if !slices.ContainsFunc(w, func(o *object) bool { return o.String() == name }) {
				t.Errorf("%s: has no %s", overlay, name)
			}
		}
		for _, o := range w {
			if o.Kind == "Secret" {
				t.Errorf("%s: holds a Secret", overlay)
			}
		}
	}
}

package apitest

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestOverlays_ObjectsAgree(t *testing.T) {
	every(t, func(t *testing.T, w world) {
		for _, name := range slices.Sorted(maps.Keys(agreements)) {
			for _, fault := range agreements[name](w) {
				t.Errorf("%s: %s", name, fault)
			}
		}
	})
}

// Each of these mistakes is noticed, by the check that is meant for it.
func TestAgreements_NoticeMistakes(t *testing.T) {
	for name, c := range map[string]struct{ overlay, file, old, new, noticed string }{
		"a field that is not there":     {"base", "base/deployment.yaml", "replicas: 1", "replica: 1", "replica"},
		"two on the embedded store":     {"base", "base/deployment.yaml", "replicas: 1", "replicas: 2", "more than one"},
		"a rolling update":              {"base", "base/deployment.yaml", "{type: Recreate}", "{type: RollingUpdate}", "wait for the file"},
		"another label":                 {"base", "base/service.yaml", "selector: {app.kubernetes.io/name: tollkeeper}", "selector: {app: tollkeeper}", "0 Deployments"},
		"a port by another name":        {"base", "base/service.yaml", "targetPort: grpc", "targetPort: http", "no port http"},
		"no protocol":                   {"base", "base/service.yaml", ", appProtocol: grpc", "", "does not name its protocol"},
		"a probe of a wrong port":       {"base", "base/deployment.yaml", "grpc: {port: 9003, service", "grpc: {port: 9004, service", "probes port 9004"},
		"a probe by another name":       {"base", "base/deployment.yaml", "service: envoy.service.auth.v3.Authorization", "service: readiness", `probes the service "readiness"`},
		"a writable image":              {"base", "base/deployment.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "writable root file system"},
		"a privilege":                   {"base", "base/deployment.yaml", "drop: [ALL]", "drop: [NET_RAW]", "unrestricted capabilities"},
		"a group in the admin token":    {"base", "base/deployment.yaml", "fsGroupChangePolicy: OnRootMismatch", "fsGroupChangePolicy: Always", "readable for its group"},
		"a token":                       {"base", "base/deployment.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "token for the API"},
		"memory that is not asked for":  {"base", "base/deployment.yaml", "memory: 512Mi, ", "", "has no requests"},
		"a volume by another name":      {"base", "base/deployment.yaml", "configMap: {name: tollkeeper-policies}", "configMap: {name: policies}", "no ConfigMap policies"},
		"a file without a volume":       {"base", "base/tollkeeper.yaml", "secrets/pepper", "secrets/salt", "the file /run/tollkeeper/secrets/salt"},
		"a Secret without a maker":      {"standalone", "standalone/envoy-deployment.yaml", "secretName: envoy-client", "secretName: client", "nothing creates the Secret client"},
		"a certificate elsewhere":       {"standalone", "standalone/client.yaml", "/run/envoy/client/tls.crt", "/run/envoy/certs/tls.crt", "/run/envoy/certs/tls.crt"},
		"an Envoy that is shut out":     {"standalone", "standalone/envoy-deployment.yaml", "tollkeeper-client: \"true\"", "tollkeeper-client: \"no\"", "does not let"},
		"a way to nowhere":              {"standalone", "standalone/envoy-policy.yaml", "port: 8080", "port: 8081", "leads to no pods"},
		"no default deny":               {"base", "base/networkpolicy.yaml", "policyTypes: [Ingress, Egress]\n---", "policyTypes: [Egress]\n---", "no policy denies"},
		"a policy for a missing port":   {"base", "base/networkpolicy.yaml", "{port: grpc", "{port: http", "no port http"},
		"a budget that stops drains":    {"base", "base/pdb.yaml", "maxUnavailable: 1", "maxUnavailable: 0", "prevents the drain"},
		"a budget for others":           {"base", "base/pdb.yaml", "name: tollkeeper}}", "name: envoy}}", "selects no Deployment"},
		"another provider":              {"istio", "istio/gateway/authorizationpolicy.yaml", "provider: {name: tollkeeper-authz}", "provider: {name: tollgate}", "tollgate"},
		"a rule for another host":       {"istio", "istio/destinationrule.yaml", "host: tollkeeper.", "host: tollgate.", "tollgate"},
		"plaintext in the mesh":         {"istio", "istio/destinationrule.yaml", "ISTIO_MUTUAL", "DISABLE", "no mTLS"},
		"callers of another port":       {"istio", "istio/authorizationpolicy.yaml", `ports: ["9001"]`, `ports: ["9002"]`, "no port 9002"},
		"callers of other pods":         {"istio", "istio/authorizationpolicy.yaml", "name: tollkeeper}}", "name: envoy}}", "AuthorizationPolicy tollkeeper/tollkeeper-callers: selects no pods"},
		"a headless Service":            {"base", "base/service.yaml", "  selector:", "  clusterIP: None\n  selector:", "is headless"},
		"a headless Service in Istio":   {"istio", "base/service.yaml", "  selector:", "  clusterIP: None\n  selector:", "original destination"},
		"a Service of one family":       {"base", "base/service.yaml", "ipFamilyPolicy: PreferDualStack", "ipFamilyPolicy: SingleStack", "IP families of the cluster"},
		"a listener of one family":      {"standalone", "standalone/envoy.yaml", `"::", ipv4_compat: true, port_value: 8443`, "0.0.0.0, port_value: 8443", "on IPv4 only"},
		"a cluster without a Service":   {"standalone", "standalone/envoy.yaml", "address: tollkeeper.tollkeeper.svc", "address: tollgate.tollkeeper.svc", "no Service has"},
		"issuers over one family":       {"issuers", "components/issuers/networkpolicy.yaml", "::/0", "0.0.0.0/0", "one IP family only"},
		"pods without the label":        {"base", "base/kustomization.yaml", "includeTemplates: true", "includeTemplates: false", "its pods have part-of"},
		"objects without the label":     {"istio/waypoint", "istio/waypoint/kustomization.yaml", "part-of: tollkeeper", "part-of: istio", `has part-of "istio"`},
		"a volume for two pods":         {"namespace", "namespace/pvc.yaml", "ReadWriteOncePod", "ReadWriteOnce", "two pods of one node"},
		"a volume that is pruned":       {"namespace", "namespace/kustomization.yaml", "part-of: tollkeeper-data", "part-of: tollkeeper", "has part-of"},
		"an Envoy that is never ended":  {"standalone", "standalone/envoy-deployment.yaml", "path: /live", "path: /ready", "while it drains"},
		"Envoys in one zone":            {"standalone", "standalone/envoy-deployment.yaml", "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "not spread by topology.kubernetes.io/zone"},
		"an update that does not fit":   {"standalone", "standalone/envoy-deployment.yaml", "cpu: 100m", "cpu: 500m", "does not fit"},
		"disk that is not asked for":    {"base", "base/deployment.yaml", ", ephemeral-storage: 64Mi", "", "ephemeral storage"},
		"a client that is shut in":      {"base", "base/networkpolicy.yaml", "  policyTypes: [Egress]\n  egress:\n  - to: [{podSelector: {matchLabels: {app.kubernetes.io/name: tollkeeper}}}]", "  policyTypes: [Egress]\n  egress:\n  - to: [{podSelector: {matchLabels: {app.kubernetes.io/name: envoy}}}]", "may not connect"},
		"a misspelt setting of Envoy":   {"istio", "istio/gateway/envoyfilter.yaml", "validate_mutations", "validate_mutation", "validate_mutation"},
		"a value that Envoy refuses":    {"istio", "istio/gateway/envoyfilter.yaml", "regex: \"(?i)x[^a-z0-9]tollkeeper[^a-z0-9].*\"", "regex: ''", "Regex"},
		"a policy that fails open":      {"envoy-gateway", "envoy-gateway/securitypolicy.yaml", "failOpen: false", "failOpen: true", "failOpen: false"},
		"a grant for others":            {"envoy-gateway", "envoy-gateway/referencegrant.yaml", "namespace: default", "namespace: edge", "no ReferenceGrant"},
		"a name that is not certified":  {"envoy-gateway", "envoy-gateway/backendtlspolicy.yaml", "hostname: tollkeeper.tollkeeper.svc", "hostname: tollkeeper.svc", "is not valid for"},
		"a patch for another listener":  {"envoy-gateway", "envoy-gateway/envoypatchpolicy.yaml", "name: default/eg/http", "name: default/edge/http", "not a listener"},
		"a patch for another filter":    {"envoy-gateway", "envoy-gateway/envoypatchpolicy.yaml", `http\\.ext_authz`, `http\\.extauthz`, "does not find the filter"},
		"two Gateways":                  {"envoy-gateway", "envoy-gateway/clienttrafficpolicy.yaml", "name: eg}", "name: edge}", "several Gateways"},
		"metrics that are not served":   {"monitoring", "components/monitoring/deployment.yaml", "TOLLKEEPER_LISTEN_METRICS", "TOLLKEEPER_METRICS", "nothing serves"},
		"a monitor that finds nothing":  {"monitoring", "components/monitoring/servicemonitor.yaml", "port: metrics", "port: admin", "finds no port"},
		"an autoscaler beside a number": {"postgres", "components/postgres/deployment.yaml", "replicas: null", "replicas: 3", "undoes the autoscaler"},
		"an autoscaler down to one":     {"postgres", "components/postgres/hpa.yaml", "minReplicas: 3", "minReplicas: 1", "one pod may be all"},
		"more pods than connections":    {"postgres", "components/postgres/hpa.yaml", "maxReplicas: 12", "maxReplicas: 14", "too many for PostgreSQL"},
		"a gap in a rollout":            {"postgres", "components/postgres/deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 1", "ends a pod before"},
		"an end before Envoy notices":   {"postgres", "components/postgres/deployment.yaml", "value: 8s", "value: 5s", "takes up to 5s to notice"},
		"a kill before the leases":      {"postgres", "components/postgres/deployment.yaml", "value: 8s", "value: 20s", "while it returns its leases"},
		"a volume for several":          {"postgres", "components/postgres/deployment.yaml", "        persistentVolumeClaim: null\n        emptyDir: {sizeLimit: 1Gi}", "        persistentVolumeClaim: {claimName: tollkeeper-data}", "one volume in several pods"},
		"any installation":              {"postgres", "components/postgres/deployment.yaml", "TOLLKEEPER_STORE_POSTGRES_INSTALLATION", "INSTALLATION", "accepts an empty database"},
		"an installation if there is":   {"postgres", "components/postgres/deployment.yaml", "key: installation}", "key: installation, optional: true}", "need not have"},
		"a URL that is not there":       {"postgres", "components/postgres/deployment.yaml", "database/url", "database/uri", "database/uri, which no volume holds"},
		"the owner in every pod":        {"postgres", "components/postgres/deployment.yaml", "secretName: tollkeeper-database", "secretName: tollkeeper-database-owner", "password of the owner"},
		"a database that is shut out":   {"postgres", "components/postgres/networkpolicy.yaml", "port: 5432", "port: 5433", "may not connect to the database"},
		"a migration that is shut in":   {"migrate", "migrate/networkpolicy.yaml", "port: 5432", "port: 5433", "may not connect to the database"},
		"a migration of other pods":     {"migrate", "migrate/networkpolicy.yaml", "name: tollkeeper-migrate}}", "name: migrate}}", "selects no pods"},
		"a migration without a URL":     {"migrate", "migrate/job.yaml", "--url-file=/run/tollkeeper/database/url", "--url-file=/run/tollkeeper/url", "the file /run/tollkeeper/url"},
		"a dead pod in Istio":           {"postgres, istio", "components/postgres/kustomization.yaml", "/spec/trafficPolicy/outlierDetection", "/spec/trafficPolicy/outlierDetections", "outlierDetections"},
		"a dead pod in Envoy Gateway":   {"postgres, envoy-gateway", "components/postgres/kustomization.yaml", "{kind: SecurityPolicy, name: tollkeeper}", "{kind: SecurityPolicy, name: other}", "whose node is gone"},
	} {
		t.Run(name, func(t *testing.T) { notice(t, c.overlay, c.file, c.old, c.new, c.noticed) })
	}
}

func notice(t *testing.T, overlay, file, old, with, noticed string) {
	on := fromDisk()
	raw, err := on.ReadFile("/k8s/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte(old)) {
		t.Fatalf("%s does not hold %q", file, old)
	}
	if err := on.WriteFile("/k8s/"+file, bytes.Replace(raw, []byte(old), []byte(with), 1)); err != nil {
		t.Fatal(err)
	}
	w, err := build(on, overlay)
	if text, ok := combinations[overlay]; ok {
		w, err = buildWith(on, text)
	}
	var said faults
	if err != nil {
		said.addf("%v", err)
	}
	for _, agree := range agreements {
		said = append(said, agree(w)...)
	}
	if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, noticed) }) {
		t.Errorf("not noticed; the checks found: %q", said)
	}
}

// The ConfigMap holds all shipped policies, unchanged, and no tests.
func TestConfigMap_HoldsTheShippedPolicies(t *testing.T) {
	w := mustBuild(t, "base")
	got := one[corev1.ConfigMap](w, "tollkeeper", "tollkeeper-policies").v.Data
	files, err := filepath.Glob(filepath.Join(repository, "policies", "*"))
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for _, name := range files {
		if ext := filepath.Ext(name); ext != ".rego" && ext != ".yaml" || strings.HasSuffix(name, "_test.rego") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want[filepath.Base(name)] = string(b)
	}
	if !maps.Equal(got, want) {
		t.Errorf("files %q, want %q with the same content", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

package apitest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// stack is the standalone overlay, running.
type stack struct {
	tollkeeper *pod
	envoy      *pod
	addr       string // of Envoy, for callers
	admin      string // of Envoy, for its statistics
	secrets    material
}

// startStandalone runs all three Deployments of the overlay with certificates as cert-manager would make them.
func startStandalone(t *testing.T) *stack {
	t.Helper()
	w := mustBuild(t, "standalone")
	s := &stack{secrets: issue(t, mustBuild(t, "standalone/cert-manager"))}
	var a addresses
	s.tollkeeper, a = serve(t, w, s.secrets)

	s.startEnvoy(t, w, "address: tollkeeper.tollkeeper.svc.cluster.local, port_value: 9001", loopback(portOf(t, a.GRPC)))
	return s
}

// startEnvoy runs the sample service, and Envoy with those texts replaced in its configuration.
func (s *stack) startEnvoy(t *testing.T, w world, rewrite ...string) {
	t.Helper()
	free, err := harness.FreePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	upstream := runPod(t, w, deployment(t, w, "upstream"), envoy(t), nil,
		onAny(8080), onAny(free[0]))
	awaitPort(t, upstream, free[0])
	s.envoy = runPod(t, w, deployment(t, w, "envoy"), envoy(t), s.secrets, append(rewrite,
		"address: 127.0.0.1, port_value: 9901", loopback(free[1]),
		onAny(8443), onAny(free[2]),
		onAny(9902), onAny(free[3]),
		"address: upstream.tollkeeper.svc.cluster.local, port_value: 8080", loopback(free[0]))...)
	awaitPort(t, s.envoy, free[3])
	probes := one[appsv1.Deployment](w, "tollkeeper", "envoy").v.Spec.Template.Spec.Containers[0]
	for _, probe := range []*corev1.Probe{probes.StartupProbe, probes.ReadinessProbe, probes.LivenessProbe} {
		await(t, s.envoy, func() error { // as the kubelet probes it
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", free[3], probe.HTTPGet.Path))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", probe.HTTPGet.Path, resp.Status)
			}
			return nil
		})
	}
	s.addr, s.admin = fmt.Sprintf("127.0.0.1:%d", free[2]), fmt.Sprintf("127.0.0.1:%d", free[1])
}

// onAny is the address of a listener on IPv6 and IPv4.
func onAny(port int) string {
	return fmt.Sprintf(`address: "::", ipv4_compat: true, port_value: %d`, port)
}

func loopback(port int) string { return fmt.Sprintf("address: 127.0.0.1, port_value: %d", port) }

func portOf(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}

func awaitPort(t *testing.T, p *pod, port int) {
	t.Helper()
	await(t, p, func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// answer is the response to a caller.
type answer struct {
	status int
	reason string
	body   map[string]any
}

func (s *stack) get(t *testing.T, path string, headers ...string) answer {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.secrets["envoy-public"]["ca.crt"])
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, ForceAttemptHTTP2: true}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, reason: resp.Header.Get("x-authz-reason")}
	_ = json.Unmarshal(raw, &a.body) // the body may be empty
	return a
}

// The standalone overlay works through a real Envoy: callers over TLS, checks over mTLS.
func TestStandalone_EndToEnd(t *testing.T) {
	s := startStandalone(t)
	s.tollkeeper.exec(t, "account", "create", "acme", "--plan", "free")
	var key struct{ ID, Key string }
	if err := json.Unmarshal([]byte(s.tollkeeper.exec(t, "key", "create", "--account", "acme", "--output", "json")), &key); err != nil {
		t.Fatal(err)
	}
	await(t, s.envoy, func() error { // until Envoy has found Tollkeeper
		if a := s.get(t, "/"); a.status != http.StatusForbidden || a.reason != "key_missing" {
			return fmt.Errorf("without a key: %+v", a)
		}
		return nil
	})
	forged := []string{"X-Tollkeeper-Account", "evil", "x-tollkeeper-plan", "evil", "x-tollkeeper-key-id", "evil", "x.tollkeeper.account", "evil"}
	good := s.get(t, "//v1/../orders", append(forged, "x-api-key", key.Key)...)
	if good.status != http.StatusOK || good.body["account"] != "acme" || good.body["plan"] != "free" || good.body["key_id"] != key.ID ||
		good.body["api_key"] != nil || good.body["path"] != "/orders" {
		t.Errorf("with a key: %+v", good)
	}
	if a := s.get(t, "/", "x-api-key", key.Key, "x-api-key", "tk_live_other"); a.status != http.StatusForbidden || a.reason != "credential_ambiguous" {
		t.Errorf("with two keys: %+v", a)
	}
	if err := s.tollkeeper.Stop(patience); err != nil {
		t.Errorf("Tollkeeper ended with %v", err)
	}
	if a := s.get(t, "/", "x-api-key", key.Key); a.status != http.StatusServiceUnavailable || a.body["account"] != nil {
		t.Errorf("without Tollkeeper: %+v", a)
	}
}

// Tollkeeper answers only a client with Envoy's certificate.
func TestStandalone_RequiresAClientCertificate(t *testing.T) {
	w := mustBuild(t, "standalone")
	secrets := issue(t, mustBuild(t, "standalone/cert-manager"))
	_, a := serve(t, w, secrets)
	for name, want := range map[string]bool{"envoy-client": true, "envoy-public": false, "no certificate": false} {
		if err := healthOver(t, a.GRPC, secrets["tollkeeper-tls"]["ca.crt"], secrets[name]); (err == nil) != want {
			t.Errorf("with %s: %v", name, err)
		}
	}
}

// Envoy itself accepts its configurations: it checks more than their types do.
func TestStandalone_EnvoyConfigurationsAreValid(t *testing.T) {
	w := mustBuild(t, "standalone")
	for _, name := range []string{"envoy", "upstream"} {
		p := runPod(t, w, deployment(t, w, name), "/bin/true", issue(t, mustBuild(t, "standalone/cert-manager")))
		<-p.Done()
		out, err := exec.CommandContext(t.Context(), envoy(t), "--mode", "validate", "--config-path", p.at("/etc/envoy/envoy.yaml")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "OK") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

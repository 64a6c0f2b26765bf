package apitest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	promv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/kustomize/api/krusty"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// binaries builds Tollkeeper and finds Envoy when the first test needs them. TestMain sets the folder.
var (
	binaryDir string
	binaries  = sync.OnceValues(func() (found struct{ tollkeeper, envoy string }, err error) {
		ctx := context.Background()           // not that of the first test
		root, err := filepath.Abs(repository) // processes run in other folders
		if err == nil {
			found.tollkeeper, err = harness.BuildTollkeeper(ctx, root, binaryDir)
		}
		if err == nil {
			found.envoy, err = harness.FindEnvoy(ctx, root)
		}
		return found, err
	})
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("APITEST_CLUSTER"); dir != "" {
		os.Exit(standIn(dir, os.Args[1:]))
	}
	dir, err := os.MkdirTemp("", "tollkeeper-k8s-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binaryDir = dir
	m.Run()
}

func tollkeeper(t *testing.T) string {
	t.Helper()
	found, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return found.tollkeeper
}

func envoy(t *testing.T) string {
	t.Helper()
	tollkeeper(t)
	found, _ := binaries()
	return found.envoy
}

// onLoopback rewrites the ports of the manifests, so that the server chooses free ones on loopback.
var onLoopback = []string{`":9001"`, `"127.0.0.1:0"`, `"127.0.0.1:9002"`, `"127.0.0.1:0"`, `":9003"`, `"127.0.0.1:0"`, ":9004", "127.0.0.1:0"}

// addresses are where a server listens, as its log says.
type addresses struct{ GRPC, Admin, Health, Metrics string }

// serve runs the Tollkeeper of an overlay.
func serve(t *testing.T, w world, secrets material) (*pod, addresses) {
	t.Helper()
	return serveAt(t, w, secrets, onLoopback...)
}

func serveAt(t *testing.T, w world, secrets material, rewrite ...string) (*pod, addresses) {
	t.Helper()
	if secrets == nil {
		secrets = make(material)
	}
	secrets["tollkeeper"] = map[string][]byte{"pepper": []byte("a pepper for a test\n")}
	p := runPod(t, w, deployment(t, w, "tollkeeper"), tollkeeper(t), secrets, rewrite...)
	var a addresses
	if err := json.Unmarshal([]byte(p.line(t, `"msg":"serving"`)), &a); err != nil {
		t.Fatal(err)
	}
	return p, a
}

func mustBuild(t *testing.T, overlay string) world {
	t.Helper()
	w, err := build(fromDisk(), overlay)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// The ConfigMaps start the binary, the probes find it ready, the CLI works as in `kubectl exec`, and it ends in time.
func TestBase_StartsTheServer(t *testing.T) {
	w := mustBuild(t, "base")
	p, a := serve(t, w, nil)
	conn, err := grpc.NewClient(a.Health, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
		await(t, p, func() error {
			r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err == nil && r.Status != healthpb.HealthCheckResponse_SERVING {
				err = errors.New(r.Status.String())
			}
			return err
		})
	}
	if out := p.exec(t, "policy", "check", p.at("/run/tollkeeper/policies")); !strings.Contains(out, "free") {
		t.Errorf("policy check printed %q", out)
	}
	if out := p.exec(t, "status"); !strings.Contains(out, "free") || strings.Contains(out, "policy fault  ") {
		t.Errorf("status printed %q", out)
	}
	began := time.Now()
	if err := p.Stop(patience); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	grace := *one[appsv1.Deployment](w, "tollkeeper", "tollkeeper").v.Spec.Template.Spec.TerminationGracePeriodSeconds
	if took := time.Since(began); took > time.Duration(grace)*time.Second/2 {
		t.Errorf("the server took %v of %d s to end", took, grace)
	}
}

// The Job copies the volume of one pod into the database, from which several serve then.
func TestCopy_MovesTheVolume(t *testing.T) {
	alone, _ := serve(t, mustBuild(t, "base"), nil)
	alone.exec(t, "account", "create", "acme", "--plan", "free")
	alone.exec(t, "key", "create", "--account", "acme", "--name", "laptop")
	if err := alone.Stop(patience); err != nil {
		t.Fatal(err)
	}
	secrets := database(t)
	runJob(t, "copy", secrets, "/var/lib/tollkeeper", alone.at("/var/lib/tollkeeper"))
	w, err := buildWith(fromDisk(), combinations["postgres"])
	if err != nil {
		t.Fatal(err)
	}
	p, _ := serve(t, w, secrets)
	if out := p.exec(t, "key", "list", "--account", "acme"); !strings.Contains(out, "laptop") {
		t.Errorf("key list printed %q", out)
	}
}

// A pod refuses an empty database in place of the right one, although it remembers none.
func TestPostgres_RefusesAnotherDatabase(t *testing.T) {
	w, err := buildWith(fromDisk(), combinations["postgres"])
	if err != nil {
		t.Fatal(err)
	}
	secrets := database(t)
	secrets["tollkeeper-database"]["installation"] = []byte("01234567-89ab-cdef-0123-456789abcdef")
	secrets["tollkeeper"] = map[string][]byte{"pepper": []byte("a pepper for a test\n")}
	p := runPod(t, w, deployment(t, w, "tollkeeper"), tollkeeper(t), secrets, onLoopback...)
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatal("the server runs, want it refused")
	}
	if out := p.Log(); p.Err() == nil || !strings.Contains(out, "this node serves installation 01234567") {
		t.Errorf("the server ended with %v and wrote %q", p.Err(), out)
	}
}

var metricName = regexp.MustCompile(`\btollkeeper_[a-z_]+`)

// The metrics that the alerts use exist, and are served without a token.
func TestRules_UseExistingMetrics(t *testing.T) {
	w, err := buildWith(fromDisk(), combinations["standalone, metrics"])
	if err != nil {
		t.Fatal(err)
	}
	_, a := serve(t, w, issue(t, mustBuild(t, "standalone/cert-manager")))
	served := make(map[string]bool)
	for line := range strings.Lines(fetch(t, "http://"+a.Metrics+"/metrics")) {
		served[metricName.FindString(line)] = true
	}
	// These appear only with the first fault.
	served["tollkeeper_policy_fault"], served["tollkeeper_issuer_fault"] = true, true
	for _, r := range all[promv1.PrometheusRule](w) {
		for _, g := range r.v.Spec.Groups {
			for _, rule := range g.Rules {
				for _, name := range metricName.FindAllString(rule.Expr.String(), -1) {
					if !served[name] {
						t.Errorf("%s uses the metric %s, which is not served", rule.Alert, name)
					}
				}
			}
		}
	}
}

// A policy fault has to wake the operator: until it is fixed, no change of the policies takes effect.
func TestRules_PolicyFaultsAreCritical(t *testing.T) {
	severities := make(map[string]string)
	for _, r := range all[promv1.PrometheusRule](mustBuild(t, "monitoring")) {
		for _, rule := range r.v.Spec.Groups[0].Rules {
			for _, name := range metricName.FindAllString(rule.Expr.String(), -1) {
				severities[name] = rule.Labels["severity"]
			}
		}
	}
	for _, name := range []string{"tollkeeper_policy_fault", "tollkeeper_policy_kept"} {
		if severities[name] != "critical" {
			t.Errorf("the alert on %s has severity %q, want critical", name, severities[name])
		}
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// doctor finds nothing worse than a note in the shipped manifests.
func TestDoctor_FindsNothing(t *testing.T) {
	on := fromDisk()
	dir := t.TempDir()
	write := func(name string, folder string) {
		out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(on, folder)
		if err != nil {
			t.Fatal(err)
		}
		text, err := out.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, overlay := range overlays {
		write(strings.ReplaceAll(overlay, "/", "-"), path.Join("/k8s", overlay))
	}
	for _, overlay := range []string{"base", "istio", "envoy-gateway", "standalone"} {
		if _, err := buildWith(on, "resources: [../"+overlay+"]\ncomponents: [../components/postgres]\n"+several(t, on, overlay)); err != nil {
			t.Fatal(err)
		}
		write("several-"+overlay, "/k8s/mine")
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	mesh := filepath.Join(repository, "k8s/istio/mesh.yaml")
	for _, args := range [][]string{
		{"istio", mesh, at("istio.yaml")},
		{"istio", mesh, at("istio.yaml"), at("istio-sidecar.yaml"), at("istio-waypoint.yaml")},
		{"istio", mesh, at("istio-gateway-api.yaml")},
		{"envoy-gateway", at("envoy-gateway.yaml")},
		{"envoy", filepath.Join(repository, "k8s/standalone/envoy.yaml")},
		{at("standalone.yaml")},
		{at("base.yaml")},
		{"istio", mesh, at("several-istio.yaml")},
		{"envoy-gateway", at("several-envoy-gateway.yaml")},
		{at("several-standalone.yaml")},
		{at("several-base.yaml")},
	} {
		out, err := exec.CommandContext(t.Context(), tollkeeper(t), append([]string{"doctor"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("doctor %q: %v\n%s", args, err, out)
		}
	}
}

package nodes

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

const nodeCount = 4

// fleet is four nodes on one PostgreSQL, the Envoys before them, and the service behind.
type fleet struct {
	t      *testing.T
	pg     *pgtest.Server
	url    string
	nodes  []*node
	envoys []*harness.Proxy
	served atomic.Int64 // requests that reached the service
	http   *http.Client
}

// node is one Tollkeeper, on the same ports and data from one run to the next.
type node struct {
	*harness.Tollkeeper
	admin *admin.Client
	way   *pgtest.Proxy // to the database
}

// layout says how requests reach the nodes.
type layout struct {
	envoys    int           // 1: it asks all nodes; nodeCount: each asks one
	staleness time.Duration // revocation.max_staleness
}

func startFleet(t *testing.T, l layout) *fleet {
	t.Helper()
	pg, err := pgtest.Start(pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("PostgreSQL wrote:\n%s", lastLines(pg.Log(), 15))
		}
		_ = pg.Close()
	})
	if err := pg.CreateDatabase("tollkeeper"); err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, pg: pg, url: pg.URL("tollkeeper"), http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}, Timeout: 30 * time.Second,
	}}
	t.Cleanup(f.http.CloseIdleConnections)
	f.migrate()
	f.startNodes(l)
	f.startEnvoys(l)
	return f
}

// migrate makes the schema, as an operator does before the first start.
func (f *fleet) migrate() {
	f.t.Helper()
	path, err := binary()
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(path, "store", "migrate", "--url-file", f.urlFile(f.url))
	cmd.Env, cmd.Dir = append(os.Environ(), "TOLLKEEPER_STORE=postgres"), f.t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("store migrate: %v\n%s", err, out)
	}
}

func (f *fleet) urlFile(url string) string {
	f.t.Helper()
	name := filepath.Join(f.t.TempDir(), "url")
	if err := os.WriteFile(name, []byte(url), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return name
}

// startNodes starts the nodes with the shipped rules and the plans of the test.
func (f *fleet) startNodes(l layout) {
	f.t.Helper()
	path, err := binary()
	if err != nil {
		f.t.Fatal(err)
	}
	dir := filepath.Join(f.t.TempDir(), "policies")
	if err := os.CopyFS(dir, policies.Files); err != nil {
		f.t.Fatal(err)
	}
	// The shipped routes charge limits that these plans do not have.
	for name, text := range map[string]string{"plans.yaml": plansYAML, "routes.yaml": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	f.t.Setenv("XDG_CONFIG_HOME", f.t.TempDir()) // where a server leaves its address for the command line
	f.nodes = make([]*node, nodeCount)
	var starting sync.WaitGroup
	for i := range f.nodes {
		n := &node{way: pgtest.NewProxy(f.t, f.pg)}
		f.nodes[i] = n
		extra := fmt.Sprintf("store: {postgres: {url_file: %q}}\nrevocation: {max_staleness: %v}\nlog: {decisions: \"off\"}\n",
			f.urlFile(n.way.URL(f.url)), l.staleness)
		starting.Go(func() {
			var err error
			n.Tollkeeper, err = harness.StartTollkeeper(f.t.Context(), harness.TollkeeperOptions{Binary: path, Policies: dir, Extra: extra})
			if err != nil {
				f.t.Error(err)
			}
		})
	}
	starting.Wait()
	f.t.Cleanup(f.closeNodes)
	for _, n := range f.nodes {
		if n.Tollkeeper == nil {
			f.t.FailNow()
		}
		token, err := n.Token()
		if err != nil {
			f.t.Fatal(err)
		}
		n.admin = admin.NewClient(n.AdminURL(), token)
	}
}

func (f *fleet) closeNodes() {
	for i, n := range f.nodes {
		if n.Tollkeeper == nil {
			continue
		}
		if f.t.Failed() {
			f.t.Logf("node %d wrote:\n%s", i, lastLines(n.Log(), 15))
		}
		_ = n.Close()
	}
}

// endpoint is the only one in envoy.yaml.
const endpoint = "{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9001}}}}"

// startEnvoys starts one Envoy that asks all nodes in turn, or one for each node, which then runs the shipped file as it is.
func (f *fleet) startEnvoys(l layout) {
	f.t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { f.served.Add(1) }))
	f.t.Cleanup(service.Close)
	var port int
	if _, err := fmt.Sscanf(service.URL, "http://127.0.0.1:%d", &port); err != nil {
		f.t.Fatal(err)
	}
	if l.envoys == nodeCount {
		for _, n := range f.nodes {
			f.startEnvoy(harness.ProxyOptions{Layout: harness.Loopback, Tollkeepers: []string{n.Address()}, Upstream: port}, nil)
		}
		return
	}
	all := harness.ProxyOptions{Layout: harness.Loopback, Upstream: port}
	all.Layout.Tollkeepers = nil
	var endpoints []string
	for i, n := range f.nodes {
		all.Tollkeepers = append(all.Tollkeepers, n.Address())
		all.Layout.Tollkeepers = append(all.Layout.Tollkeepers, fmt.Sprintf("{socket_address: {address: 127.0.0.1, port_value: %d}}", 9001+i))
		endpoints = append(endpoints, fmt.Sprintf("{endpoint: {address: %s}}", all.Layout.Tollkeepers[i]))
	}
	f.startEnvoy(all, func(config string) string {
		config = strings.Replace(config, endpoint, strings.Join(endpoints, ", "), 1)
		// What tls.yaml has for several Tollkeepers.
		return strings.Replace(config, "  - name: tollkeeper\n    type: STATIC\n", `  - name: tollkeeper
    type: STATIC
    lb_policy: ROUND_ROBIN
    common_lb_config: {update_merge_window: 0s}
    outlier_detection: {consecutive_5xx: 3, interval: 1s, base_ejection_time: 3s, max_ejection_percent: 50}
`, 1)
	})
}

func (f *fleet) startEnvoy(o harness.ProxyOptions, change func(string) string) {
	f.t.Helper()
	root, err := harness.ModuleRoot(".")
	if err != nil {
		f.t.Fatal(err)
	}
	if o.Binary, err = harness.FindEnvoy(f.t.Context(), root); err != nil {
		f.t.Fatal(err)
	}
	if o.Config, err = os.ReadFile(filepath.Join(root, "envoy", o.Layout.File)); err != nil {
		f.t.Fatal(err)
	}
	if change != nil {
		o.Config = []byte(change(string(o.Config)))
	}
	p, err := harness.StartProxy(f.t.Context(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = p.Stop() })
	f.envoys = append(f.envoys, p)
}

// lastLines is the end of a log.
func lastLines(log string, n int) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// await polls until a condition holds.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
	}
}

var binaryDir string // lives as long as the test run; TestMain sets it

// binary compiles the server when the first test asks for it.
var binary = sync.OnceValues(func() (string, error) {
	root, err := harness.ModuleRoot(".")
	if err != nil {
		return "", err
	}
	return harness.BuildTollkeeper(context.Background(), root, binaryDir)
})

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tollkeeper-nodes-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binaryDir = dir
	m.Run()
}

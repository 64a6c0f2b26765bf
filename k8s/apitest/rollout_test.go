package apitest

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// podsName is what a plain Envoy asks in place of the Service.
const podsName = "tollkeeper-pods.tollkeeper.svc.cluster.local"

// dnsLag is how long a change of the pods takes to be in the answers: a cache of CoreDNS keeps them for 5 s.
const dnsLag = 5 * time.Second

// forSeveral changes the configuration of the standalone Envoy as the command in the README does.
var forSeveral = strings.NewReplacer(
	"address: tollkeeper.tollkeeper", "address: tollkeeper-pods.tollkeeper", "# outlier_detection", "outlier_detection")

// several writes the configuration of an Envoy that asks several pods into a user's folder, if an overlay has an Envoy, and returns the
// part of the user's kustomization.yaml that uses it.
func several(t *testing.T, on filesys.FileSystem, overlay string) string {
	t.Helper()
	if overlay != "standalone" {
		return ""
	}
	raw, err := on.ReadFile("/k8s/standalone/envoy.yaml")
	if err == nil {
		err = on.WriteFile("/k8s/mine/envoy.yaml", []byte(forSeveral.Replace(string(raw))))
	}
	if err != nil {
		t.Fatal(err)
	}
	return example(t, "# configMapGenerator of kustomization.yaml", "")
}

// severalPods is a user's overlay of several pods behind a plain Envoy, with a plan for a test under load.
func severalPods(t *testing.T) world {
	t.Helper()
	on := fromDisk()
	raw, err := on.ReadFile("/policies/plans.yaml")
	if err == nil {
		const large = "  plans:\n    large: {limits: {monthly: {units: 10000000, window: month, per: account}}}\n"
		err = on.WriteFile("/k8s/mine/plans.yaml", []byte(strings.Replace(string(raw), "  plans:\n", large, 1)))
	}
	if err != nil {
		t.Fatal(err)
	}
	w, err := buildWith(on, "resources: [../standalone]\ncomponents: [../components/postgres]\n"+several(t, on, "standalone")+
		"- {name: tollkeeper-policies, namespace: tollkeeper, behavior: merge, files: [plans.yaml]}\n")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// database makes a database with the two roles of the README, and its tables as the Job does. It returns the Secrets for it.
func database(t *testing.T) material {
	t.Helper()
	s, err := pgtest.Start(pgtest.Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	sql := "CREATE ROLE tollkeeper_owner LOGIN PASSWORD '" + pgtest.Password + "'" // the role tollkeeper is there
	for _, step := range []struct{ database, sql string }{
		{"postgres", sql}, {"postgres", "CREATE DATABASE app"}, {"app", "CREATE SCHEMA tollkeeper AUTHORIZATION tollkeeper_owner"},
	} {
		if err := s.Exec(t.Context(), step.database, step.sql); err != nil {
			t.Fatal(err)
		}
	}
	secrets := material{
		"tollkeeper-database-owner": {"url": []byte(s.URLOf("tollkeeper_owner", "app"))},
		"tollkeeper-database":       {"url": []byte(s.URLOf("tollkeeper", "app"))},
	}
	id := strings.Fields(runJob(t, "migrate", secrets).line(t, "installation"))
	secrets["tollkeeper-database"]["installation"] = []byte(id[len(id)-1])
	return secrets
}

// runJob runs the Job of a folder to its end.
func runJob(t *testing.T, folder string, secrets material, rewrite ...string) *pod {
	t.Helper()
	w := mustBuild(t, folder)
	job := all[batchv1.Job](w)[0]
	p := runPod(t, w, podsOf{job.object, &job.v.Spec.Template}, tollkeeper(t), secrets, rewrite...)
	if err := p.Err(); err != nil {
		t.Fatalf("the Job ended with %v", err)
	}
	return p
}

// rollout is what a Deployment controller, a kubelet and CoreDNS do to the pods of Tollkeeper.
type rollout struct {
	t       *testing.T
	w       world
	secrets material
	zone    *zone
	subnet  [2]byte // 127.x.y.0: every pod has an address of its own, and all have the port of the manifest
	started byte
	pods    []*replica
	lagging sync.WaitGroup
}

type replica struct {
	*pod
	addr netip.Addr
}

// start starts a pod, and returns when it is ready.
func (r *rollout) start() *replica {
	r.t.Helper()
	r.started++
	n := &replica{addr: netip.AddrFrom4([4]byte{127, r.subnet[0], r.subnet[1], r.started})}
	var a addresses
	// A check may take long: other processes use this machine too, and the test is not about them.
	rewrite := []string{
		`":9001"`, fmt.Sprintf("%q", n.addr.String()+":9001"),
		"store: bolt", "store: bolt\nrequest: {timeout: 5s}\nlog: {decisions: \"off\"}",
	}
	n.pod, a = serveAt(r.t, r.w, r.secrets, append(rewrite, onLoopback...)...)
	conn, err := grpc.NewClient(a.Health, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	probe := one[appsv1.Deployment](r.w, "tollkeeper", "tollkeeper").v.Spec.Template.Spec.Containers[0].ReadinessProbe
	await(r.t, n.pod, func() error {
		resp, err := healthpb.NewHealthClient(conn).Check(r.t.Context(), &healthpb.HealthCheckRequest{Service: *probe.GRPC.Service})
		if err == nil && resp.Status != healthpb.HealthCheckResponse_SERVING {
			err = fmt.Errorf("%v", resp.Status)
		}
		return err
	})
	r.pods = append(r.pods, n)
	return n
}

// later does what takes effect when DNS has noticed.
func (r *rollout) later(f func()) {
	r.lagging.Go(func() {
		time.Sleep(dnsLag)
		f()
	})
}

// replaceAll replaces all pods by the strategy of the Deployment: with maxSurge 1 and maxUnavailable 0 a new pod is available before an
// old one is told to end, and the next one starts at once.
func (r *rollout) replaceAll() {
	r.t.Helper()
	spec := one[appsv1.Deployment](r.w, "tollkeeper", "tollkeeper").v.Spec
	var ending sync.WaitGroup
	for _, old := range slices.Clone(r.pods) {
		fresh := r.start()
		r.later(func() { r.zone.add(fresh.addr) })
		time.Sleep(time.Duration(spec.MinReadySeconds) * time.Second)
		r.later(func() { r.zone.remove(old.addr) })
		r.pods = slices.DeleteFunc(r.pods, func(p *replica) bool { return p == old })
		ending.Go(func() { r.end(old) })
	}
	ending.Wait()
	r.lagging.Wait()
}

// end ends a pod as the kubelet does.
func (r *rollout) end(p *replica) {
	r.t.Helper()
	grace := *one[appsv1.Deployment](r.w, "tollkeeper", "tollkeeper").v.Spec.Template.Spec.TerminationGracePeriodSeconds
	if err := p.Stop(time.Duration(grace) * time.Second); err != nil {
		r.t.Errorf("pod %s ended with %v", p.addr, err)
	}
}

// caller is an account and its key, and what it got.
type caller struct {
	account, limit, key string
	pause               time.Duration // on average
	allowed             int64
}

// answered is one answer.
type answered struct {
	at     time.Time
	took   time.Duration
	status int
	reason string
}

// under has callers send requests until stop is called, which returns all answers.
func (s *stack) under(t *testing.T, callers []*caller) (stop func() []answered) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.secrets["envoy-public"]["ca.crt"])
	done := make(chan struct{})
	var sending sync.WaitGroup
	var mu sync.Mutex
	var all []answered
	for _, c := range callers {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, ForceAttemptHTTP2: true}
		client := &http.Client{Transport: tr}
		sending.Go(func() {
			defer client.CloseIdleConnections()
			for {
				select {
				case <-done:
					return
				case <-time.After(rand.N(2*c.pause + 1)):
				}
				a := s.send(client, c)
				mu.Lock()
				if all = append(all, a); a.status == http.StatusOK {
					c.allowed++
				}
				mu.Unlock()
			}
		})
	}
	stop = sync.OnceValue(func() []answered {
		close(done)
		sending.Wait()
		return all
	})
	t.Cleanup(func() { stop() })
	return stop
}

// send has no context: a request that is sent is answered, so that its outcome is known.
func (s *stack) send(client *http.Client, c *caller) answered {
	a := answered{at: time.Now()}
	req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+"/", nil)
	if err != nil {
		a.reason = err.Error()
		return a
	}
	req.Header.Set("X-Api-Key", c.key)
	resp, err := client.Do(req)
	if err != nil {
		a.reason = err.Error()
		return a
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	a.took, a.status, a.reason = time.Since(a.at), resp.StatusCode, resp.Header.Get("x-authz-reason")
	return a
}

// healthy is how many Tollkeepers Envoy considers healthy.
func (s *stack) healthy(t *testing.T) string {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(fetch(t, "http://"+s.admin+"/stats?filter=cluster.tollkeeper.membership_healthy")))
	lines.Scan()
	_, n, _ := strings.Cut(lines.Text(), ": ")
	return n
}

// TestRollout_LosesNoRequest replaces three pods under load through a real Envoy, in the order and with the timings of the manifests. Not one
// request fails, of callers with a quota and of callers with a rate besides, and the ledger has exactly what was allowed.
func TestRollout_LosesNoRequest(t *testing.T) {
	w, secrets := severalPods(t), database(t)
	s := &stack{secrets: issue(t, mustBuild(t, "standalone/cert-manager"))}
	for name, content := range secrets {
		s.secrets[name] = content
	}
	r := &rollout{t: t, w: w, secrets: s.secrets, zone: startZone(t, podsName)}
	r.subnet = [2]byte{byte(1 + rand.N(250)), byte(rand.N(250))}
	for range 3 {
		r.zone.add(r.start().addr)
	}
	s.startEnvoy(t, w, "timeout: 0.3s ", "timeout: 6s ", "    dns_refresh_rate: 2s\n", fmt.Sprintf(`    dns_refresh_rate: 2s
    typed_dns_resolver_config:
      name: envoy.network.dns_resolver.cares
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
        resolvers: [{socket_address: {address: 127.0.0.1, port_value: %d}}]
        dns_resolver_options: {no_default_search_domain: true}
`, r.zone.port()))
	var callers []*caller
	for i := range 4 {
		// Without limits per minute: of these a pod that has just joined has no share until the next minute, and may refuse.
		callers = append(callers, r.customer(i, "large", 2*time.Millisecond), r.customer(100+i, "large", 200*time.Millisecond))
	}
	await(t, s.envoy, func() error {
		if n := s.healthy(t); n != "3" {
			return fmt.Errorf("%s of 3 are healthy", n)
		}
		return nil
	})
	stop := s.under(t, callers)
	began := time.Now()
	r.replaceAll()
	report(t, stop(), began)
	r.wantChargedOnce(callers)
}

// customer makes an account with a key, at one pod.
func (r *rollout) customer(n int, plan string, pause time.Duration) *caller {
	r.t.Helper()
	c := &caller{account: fmt.Sprintf("%s-%d", plan, n), limit: "monthly", pause: pause}
	r.pods[n%len(r.pods)].exec(r.t, "account", "create", c.account, "--plan", plan)
	var key struct{ Key string }
	made := r.pods[n%len(r.pods)].exec(r.t, "key", "create", "--account", c.account, "--output", "json")
	if err := json.Unmarshal([]byte(made), &key); err != nil {
		r.t.Fatal(err)
	}
	c.key = key.Key
	return c
}

// report fails the test if a request failed.
func report(t *testing.T, all []answered, began time.Time) {
	t.Helper()
	failed := 0
	var took []time.Duration
	for _, a := range all {
		took = append(took, a.took)
		if a.status == http.StatusOK {
			continue
		}
		if failed++; failed <= 20 {
			t.Errorf("after %v: %d %s, which took %v", a.at.Sub(began).Round(time.Millisecond), a.status, a.reason, a.took.Round(time.Millisecond))
		}
	}
	slices.Sort(took)
	t.Logf("%d requests in %v, %d failed; p50 %v, p99 %v, max %v", len(all), time.Since(began).Round(time.Second), failed,
		took[len(took)/2].Round(10*time.Microsecond), took[len(took)*99/100].Round(10*time.Microsecond), took[len(took)-1].Round(time.Millisecond))
	if len(all) < 500 {
		t.Errorf("%d requests were sent, want 500 at least", len(all))
	}
}

// wantChargedOnce ends all pods, and asks another one what they have charged.
func (r *rollout) wantChargedOnce(callers []*caller) {
	r.t.Helper()
	var ending sync.WaitGroup
	for _, p := range r.pods {
		ending.Go(func() { r.end(p) })
	}
	ending.Wait()
	r.pods = nil
	last := r.start()
	for _, c := range callers {
		var limits []struct {
			Limit       string
			Spent       int64
			Outstanding map[string]int64
			Stranded    int64
		}
		shown := last.exec(r.t, "quota", "show", "--account", c.account, "--output", "json")
		if err := json.Unmarshal([]byte(shown), &limits); err != nil {
			r.t.Fatal(err)
		}
		for _, l := range limits {
			if l.Limit == c.limit && (l.Spent != c.allowed || len(l.Outstanding) > 0 || l.Stranded != 0) {
				r.t.Errorf("%s: %d requests were allowed, and the ledger has %+v", c.account, c.allowed, l)
			}
			if l.Limit == c.limit {
				c.limit = ""
			}
		}
		if c.limit != "" {
			r.t.Errorf("%s: no limit %s", c.account, c.limit)
		}
	}
}

package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// running is a server on free ports, with clients.
type running struct {
	*Server
	t      testing.TB
	checks authv3.AuthorizationClient
	health healthpb.HealthClient
	admin  *admin.Client
	token  string
	stop   func() error // stops it and returns what Run returned; further calls return the same
}

func configFor(dir string) config.Config {
	cfg := config.Default()
	cfg.Listen = config.Listen{GRPC: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	cfg.Shutdown = config.Shutdown{}
	cfg.DataDir = filepath.Join(dir, "data")
	cfg.Log.Decisions = "off"
	cfg.Request.Timeout.Duration = 5 * time.Second
	cfg.Policy.ReloadInterval.Duration = 5 * time.Millisecond
	return cfg
}

func start(t testing.TB, cfg config.Config) *running {
	t.Helper()
	return startLogging(t, cfg, slog.New(slog.DiscardHandler))
}

func startLogging(t testing.TB, cfg config.Config, log *slog.Logger) *running {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	s, err := New(t.Context(), cfg, "test", log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn, err := grpc.NewClient(s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	token, err := admin.ReadToken(filepath.Join(cfg.DataDir, admin.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	r := &running{
		Server: s, t: t, checks: authv3.NewAuthorizationClient(conn), health: healthpb.NewHealthClient(conn),
		admin: admin.NewClient("http://"+s.AdminAddr(), token), token: token,
	}
	r.stop = sync.OnceValue(func() error {
		cancel()
		return errors.Join(<-done, conn.Close())
	})
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// check sends one check and returns the status and the reason of a denial, 200 for an allow.
func (r *running) check(key string) (int, string) {
	r.t.Helper()
	return r.ask("x-api-key", key, nil)
}

// ask sends one check with that header and with metadata of filters before ours. It returns the status and the reason of a
// denial, 200 for an allow.
func (r *running) ask(header, value string, filters *corev3.Metadata) (int, string) {
	r.t.Helper()
	resp, err := r.checks.Check(r.t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/v1/x", Headers: map[string]string{header: value},
		}},
		MetadataContext: filters,
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.GetStatus().GetCode() == 0 {
		return 200, ""
	}
	for _, h := range resp.GetDeniedResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-authz-reason" {
			return int(resp.GetDeniedResponse().GetStatus().GetCode()), h.GetHeader().GetValue()
		}
	}
	return int(resp.GetDeniedResponse().GetStatus().GetCode()), ""
}

func (r *running) status() (s admin.Status) {
	r.t.Helper()
	r.do("GET", "/v1/status", nil, &s)
	return s
}

func (r *running) want(key string, status int, reason string) {
	r.t.Helper()
	if s, why := r.check(key); s != status || why != reason {
		r.t.Errorf("got %d %q, want %d %q", s, why, status, reason)
	}
}

func (r *running) do(method, path string, in, out any) {
	r.t.Helper()
	if err := r.admin.Do(r.t.Context(), method, path, in, out); err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// newKey makes an account on that plan with a key.
func (r *running) newKey(account, plan string) admin.Key {
	r.t.Helper()
	var k admin.Key
	r.do("POST", "/v1/accounts", admin.AccountCreate{ID: account, Plan: plan}, nil)
	r.do("POST", "/v1/keys", admin.KeyCreate{Account: account}, &k)
	return k
}

// await polls until a condition holds.
func (r *running) await(what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("gave up waiting until %s", what)
		}
	}
}

func (r *running) metrics() string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.AdminAddr()+"/metrics", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(raw)
}

func TestServer_RemembersWhatItAcknowledged(t *testing.T) {
	cfg := configFor(t.TempDir())
	r := start(t, cfg)
	kept, revoked := r.newKey("acme", "free"), r.newKey("bob", "free")
	r.do("POST", "/v1/keys/"+revoked.ID+"/revoke", map[string]string{}, nil)
	for range 5 {
		r.want(kept.Key, 200, "")
	}
	r.want(revoked.Key, 403, "key_revoked")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	r = start(t, cfg)
	r.want(kept.Key, 200, "")
	r.want(revoked.Key, 403, "key_revoked")
	var quotas []admin.Quota
	r.do("GET", "/v1/quota?key="+kept.ID, nil, &quotas)
	for _, q := range quotas {
		if q.Limit == "daily" && (q.Spent != 6 || q.Stranded != 0 || len(q.Outstanding) > 1) {
			t.Errorf("after an orderly restart: %+v", q)
		}
	}
}

func TestServer_HealthSaysServing(t *testing.T) {
	r := start(t, configFor(t.TempDir()))
	for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
		r.await("health says SERVING", func() bool {
			resp, err := r.health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			return err == nil && resp.GetStatus() == healthpb.HealthCheckResponse_SERVING
		})
	}
}

const policyV1 = "package envoy.authz\n\nallow := {\"allowed\": false, \"http_status\": 418, \"reason\": \"version_one\"}\n"

// TestReload_UnderLoad replaces the policy by a broken one and by a good one: no caller sees an error.
func TestReload_UnderLoad(t *testing.T) {
	dir := t.TempDir()
	cfg := configFor(dir)
	cfg.Policy.Paths = []string{filepath.Join(dir, "policies")}
	file := filepath.Join(dir, "policies", "authz.rego")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(policyV1)
	r := start(t, cfg)
	r.want("", 418, "version_one")

	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if status, reason := r.check(""); status != 418 || reason != "version_one" && reason != "version_two" {
					t.Errorf("under load: %d %q", status, reason)
					return
				}
			}
		})
	}
	write("package envoy.authz\n\nallow := {\"allowed\": nope}\n")
	var status admin.Status
	r.await("the broken policy is refused", func() bool {
		r.do("GET", "/v1/status", nil, &status)
		return status.PolicyFault != ""
	})
	if !strings.Contains(status.PolicyFault, "authz.rego:3:") {
		t.Errorf("the fault does not say where: %s", status.PolicyFault)
	}
	if m := r.metrics(); !strings.Contains(m, `tollkeeper_policy_fault{code="rego_unsafe_var_error",column="22",file="`+file+`",line="3"} 1`) {
		t.Errorf("the metric does not say where: %s", grep(m, "policy"))
	}
	write(strings.Replace(policyV1, "one", "two", 1))
	r.await("the good policy is in force", func() bool {
		_, reason := r.check("")
		return reason == "version_two"
	})
	cancel()
	load.Wait()
	if m := r.metrics(); strings.Contains(m, "tollkeeper_policy_fault{") {
		t.Errorf("the fault stays: %s", grep(m, "policy"))
	}
}

// TestReload_OnHangup sends the signal to a server on the shipped policies, which must not end it.
func TestReload_OnHangup(t *testing.T) {
	r := start(t, configFor(t.TempDir()))
	r.want("", 403, "key_missing")
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.await("the policies were read again", func() bool {
		return strings.Contains(r.metrics(), `tollkeeper_policy_loads_total{outcome="ok"} 2`)
	})
	r.want("", 403, "key_missing")
}

func grep(text, word string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// TestServer_HeldInMetrics has a check, and finds what the server leased for it in the metrics.
func TestServer_HeldInMetrics(t *testing.T) {
	r := start(t, configFor(t.TempDir()))
	r.want(r.newKey("acme", "free").Key, 200, "")
	m := r.metrics()
	for _, want := range []string{`tollkeeper_holders{state="put_away"} 0`, `tollkeeper_leased_units{limit="daily"} `} {
		if !strings.Contains(m, want) {
			t.Errorf("no %s in %s", want, grep(m, "tollkeeper_"))
		}
	}
	for _, not := range []string{`tollkeeper_holders{state="in_use"} 0`, `tollkeeper_leased_units{limit="daily"} 0`, "tollkeeper_write_ahead_log_bytes 0"} {
		if strings.Contains(m, not+"\n") || !strings.Contains(m, strings.TrimSuffix(not, "0")) {
			t.Errorf("%s: %s", not, grep(m, "tollkeeper_"))
		}
	}
}

package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles/tlstest"
)

// ping asks for the health of checks through a new connection, with those credentials.
func ping(t *testing.T, address string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(strings.Replace("passthrough:///"+address, "passthrough:///unix:", "unix:", 1), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestTLS_LetsInListedClients(t *testing.T) {
	ours, edges := tlstest.NewCA(t), tlstest.NewCA(t)
	files := ours.Write(t, t.TempDir(), edges, time.Hour, "tollkeeper.test")
	cfg := configFor(t.TempDir())
	cfg.TLS = config.TLS{CertFile: files.Cert, KeyFile: files.Key, ClientCAFile: files.CA, ClientNames: []string{"envoy.edge.svc"}}
	var log syncBuffer
	r := startLogging(t, cfg, slog.New(slog.NewTextHandler(&log, nil)))
	as := func(ca *tlstest.CA, names ...string) credentials.TransportCredentials {
		c := &tls.Config{ServerName: "tollkeeper.test", RootCAs: x509.NewCertPool()}
		c.RootCAs.AppendCertsFromPEM(ours.PEM)
		if len(names) > 0 {
			pair, err := tls.X509KeyPair(ca.Issue(t, time.Hour, names...))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		return credentials.NewTLS(c)
	}
	if err := ping(t, r.GRPCAddr(), as(edges, "envoy.edge.svc")); err != nil {
		t.Errorf("the Envoy on the list: %v", err)
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"another name":   as(edges, "other.edge.svc"),
		"another CA":     as(ours, "envoy.edge.svc"),
		"no certificate": as(nil),
		"no TLS":         insecure.NewCredentials(),
	} {
		if err := ping(t, r.GRPCAddr(), creds); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := strings.Count(log.String(), "client refused in the TLS handshake"); n != 1 {
		t.Errorf("%d lines about refusals: %s", n, log.String())
	}
	m := r.metrics()
	for _, want := range []string{`tollkeeper_tls_expiry_timestamp_seconds{file="cert_file"}`, `tollkeeper_tls_expiry_timestamp_seconds{file="client_ca_file"}`,
		`tollkeeper_tls_reloads_total{outcome="failed"} 0`, "tollkeeper_tls_fault 0", "tollkeeper_tls_clients_refused_total "} {
		if !strings.Contains(m, want) {
			t.Errorf("no %s in\n%s", want, grep(m, "tls"))
		}
	}

	// A renewal is heeded without being told.
	_ = ours.Write(t, files.Dir, edges, time.Hour, "tollkeeper.test")
	r.await("the new certificate is in use", func() bool { return strings.Contains(r.metrics(), `tollkeeper_tls_reloads_total{outcome="ok"} 1`) })
	if err := ping(t, r.GRPCAddr(), as(edges, "envoy.edge.svc")); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
}

// TestTLS_LogsTheNamesOfRefusedClients, quoted.
func TestTLS_LogsTheNamesOfRefusedClients(t *testing.T) {
	ours, edges := tlstest.NewCA(t), tlstest.NewCA(t)
	files := ours.Write(t, t.TempDir(), edges, time.Hour, "tollkeeper.test")
	cfg := configFor(t.TempDir())
	cfg.TLS = config.TLS{CertFile: files.Cert, KeyFile: files.Key, ClientCAFile: files.CA, ClientNames: []string{"envoy.edge.svc"}}
	var log syncBuffer
	r := startLogging(t, cfg, slog.New(slog.NewJSONHandler(&log, nil)))
	pair, err := tls.X509KeyPair(edges.Issue(t, time.Hour, "spiffe://cluster.local/ns/evil/sa/default"))
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{ServerName: "tollkeeper.test", RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
	c.RootCAs.AppendCertsFromPEM(ours.PEM)
	if err := ping(t, r.GRPCAddr(), credentials.NewTLS(c)); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
	r.await("it is in the log", func() bool { return strings.Contains(log.String(), `spiffe://cluster.local/ns/evil/sa/default`) })
}

func TestTLS_UnusableFilesStopTheStart(t *testing.T) {
	ca := tlstest.NewCA(t)
	files := ca.Write(t, t.TempDir(), ca, -time.Minute, "tollkeeper.test")
	cfg := configFor(t.TempDir())
	cfg.TLS = config.TLS{CertFile: files.Cert, KeyFile: files.Key}
	_, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err == nil || !strings.HasPrefix(err.Error(), "tls.cert_file: "+files.Cert+": the certificate expired on ") {
		t.Errorf("%v", err)
	}
}

func TestSocket_Life(t *testing.T) {
	dir, err := os.MkdirTemp("", "tk") // a path of a socket must not be long
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "checks.sock")
	cfg := configFor(t.TempDir())
	cfg.Listen.GRPC = config.UnixPrefix + path

	// A socket that a killed process left behind is replaced.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()

	r := start(t, cfg)
	if err := ping(t, r.GRPCAddr(), insecure.NewCredentials()); err != nil {
		t.Errorf("through the socket: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listen("grpc", cfg.Listen.GRPC); err == nil || !strings.Contains(err.Error(), "listen.grpc: "+path+" is in use by another process") {
		t.Errorf("a second server: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the socket: %v, %v", entries, err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}

	for name, c := range map[string]struct{ path, want string }{
		"a file":     {filepath.Join(dir, "file"), "is there and is no socket"},
		"no folder":  {filepath.Join(dir, "nowhere", "x.sock"), "no such file"},
		"the folder": {dir, "is there and is no socket"},
	} {
		if name == "a file" {
			if err := os.WriteFile(c.path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := listen("grpc", config.UnixPrefix+c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSocket_OfASuccessorStays: a server that ends must not remove the socket of a new server on the same path.
func TestSocket_OfASuccessorStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if len(path) > 100 {
		t.Fatalf("%q is too long for a socket", path)
	}
	next := func() net.Listener {
		l, err := listenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	closed := func(l net.Listener) {
		_ = l.Close()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the successor's socket: %v", err)
		}
	}
	first := next()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := next()
	closed(first)
	_ = second.Close() // a second Close must not remove it, even if the next file has the same inode number
	next()
	closed(second)
}

func TestPorts_OfHealthAndMetricsDoNothingElse(t *testing.T) {
	cfg := configFor(t.TempDir())
	cfg.Listen.Health, cfg.Listen.Metrics = "127.0.0.1:0", "127.0.0.1:0"
	r := start(t, cfg)
	if err := ping(t, r.HealthAddr(), insecure.NewCredentials()); err != nil {
		t.Errorf("health: %v", err)
	}
	conn, err := grpc.NewClient(r.HealthAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a check on the health port: %v", err)
	}
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/metrics", 200}, {"HEAD", "/metrics", 200}, {"POST", "/metrics", 405}, {"GET", "/", 404}, {"GET", "/v1/status", 404}, {"GET", "/metrics/x", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+r.MetricsAddr()+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != c.want || c.want == 200 && c.method == "GET" && !strings.Contains(string(text), "tollkeeper_decisions_total") {
			t.Errorf("%s %s: %d, %v", c.method, c.path, resp.StatusCode, err)
		}
	}
}

// TestShutdown_WatchersOfHealth are told that the server leaves, and do not hold it up.
func TestShutdown_WatchersOfHealth(t *testing.T) {
	r := start(t, configFor(t.TempDir()))
	watch, err := r.health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", resp, err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("it was told %v, %v", resp, err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Canceled { // not Unavailable: the server did not have to close the connection
		t.Errorf("its end: %v", err)
	}
}

// TestShutdown_AnswersUntilTheDelayIsOver: health says NOT_SERVING, and checks are still answered.
func TestShutdown_AnswersUntilTheDelayIsOver(t *testing.T) {
	cfg := configFor(t.TempDir())
	cfg.Shutdown.Delay.Duration = 300 * time.Millisecond
	cfg.Listen.Health = "127.0.0.1:0"
	r := start(t, cfg)
	conn, err := grpc.NewClient(r.HealthAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	says := func(c healthpb.HealthClient) healthpb.HealthCheckResponse_ServingStatus {
		resp, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	probe := healthpb.NewHealthClient(conn)
	r.await("it serves", func() bool { return says(r.health) == healthpb.HealthCheckResponse_SERVING })

	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- r.stop() }()
	r.await("it says that it leaves", func() bool { return says(probe) == healthpb.HealthCheckResponse_NOT_SERVING })
	if got := says(r.health); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the port for checks says %v", got)
	}
	r.want("", 403, "key_missing")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < cfg.Shutdown.Delay.Duration {
		t.Errorf("it ended after %v", took)
	}
}

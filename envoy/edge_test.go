package envoy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles/tlstest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// Names in the certificates: Tollkeeper's as tls.yaml expects it, and Envoy's as the Tollkeeper of the tests expects it.
const (
	tollkeeperName = "tollkeeper.internal"
	envoyName      = "spiffe://cluster.local/ns/edge/sa/envoy"
)

// edge is a stack behind tls.yaml. Its addr accepts clients without TLS, and relays them to Envoy over TLS.
type edge struct {
	*stack
	public, internal *tlstest.CA         // issuers of the certificate for clients, and of those between Envoy and Tollkeeper
	dir              string              // replaces /etc/envoy/; ends with a slash
	server           tlstest.Files       // Tollkeeper's
	trust            *tls.Config         // of the clients
	other            *harness.Tollkeeper // the second one, if there are two
}

// edgeOptions say how to start an edge.
type edgeOptions struct {
	two        bool                      // start two Tollkeepers; otherwise tls.yaml names one twice
	tollkeeper harness.TollkeeperOptions // newEdge sets policies and TLS
	client     func(e *edge)             // writes Envoy's client certificate; nil: a valid one
	files      func(e *edge)             // writes all certificates; nil: from new CAs
	change     func(config string) string
}

func newEdge(t *testing.T, o edgeOptions) *edge {
	t.Helper()
	e := &edge{public: tlstest.NewCA(t), internal: tlstest.NewCA(t), dir: t.TempDir() + "/"}
	copyFiles(t, "sds", filepath.Join(e.dir, "sds"))
	for _, name := range []string{"edge.yaml", "client.yaml", "tollkeeper-ca.yaml"} {
		path := filepath.Join(e.dir, "sds", name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), harness.TLS.Dir, e.dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e.stack = &stack{t: t, http: httpClient(t, false), Upstream: startUpstream(t)}
	if o.client == nil {
		o.client = func(e *edge) { e.internal.Write(t, e.dir+"certs/tollkeeper", e.internal, time.Hour, envoyName) }
	}
	if o.files == nil {
		o.files = func(e *edge) {
			e.public.Write(t, e.dir+"certs/edge", e.public, time.Hour, "api.example.com")
			e.server = e.internal.Write(t, t.TempDir(), e.internal, time.Hour, tollkeeperName)
			o.client(e)
		}
	}
	o.files(e)

	o.tollkeeper.Policies = ownPolicies(t)
	o.tollkeeper.Extra += fmt.Sprintf("tls: {cert_file: %q, key_file: %q, client_ca_file: %q, client_names: [%q]}\n", e.server.Cert, e.server.Key, e.server.CA, envoyName)
	e.tk = startTollkeeper(t, o.tollkeeper)
	addresses := []string{e.tk.Address(), e.tk.Address()}
	if o.two {
		e.other = startTollkeeper(t, o.tollkeeper)
		addresses[1] = e.other.Address()
	}
	e.proxy = startLayout(t, harness.ProxyOptions{Layout: harness.TLS, Tollkeepers: addresses, Upstream: e.Port(), Dir: e.dir}, o.change)
	e.trust = &tls.Config{ServerName: "api.example.com", RootCAs: x509.NewCertPool()}
	e.trust.RootCAs.AppendCertsFromPEM(e.public.PEM)
	// Without ALPN Envoy detects the client's protocol by itself.
	e.addr = relay(t, func(client net.Conn) {
		if server, err := tls.Dial("tcp", e.proxy.Addr(), e.trust); err == nil {
			splice(client, server)
		}
	})
	return e
}

// newSidecar is a stack behind sidecar.yaml.
func newSidecar(t *testing.T) *stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "tk") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &stack{t: t, http: httpClient(t, false), Upstream: startUpstream(t)}
	s.tk = startTollkeeper(t, harness.TollkeeperOptions{Policies: ownPolicies(t), Socket: filepath.Join(dir, "tollkeeper.sock")})
	s.proxy = startLayout(t, harness.ProxyOptions{Layout: harness.Sidecar, Tollkeepers: []string{s.tk.Address()}, Upstream: s.Port()}, nil)
	s.addr = s.proxy.Addr()
	return s
}

// relay accepts connections until the test ends, and returns its address.
func relay(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() {
				serve(c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// splice copies bytes both ways until one side closes.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_, _ = pair[0].Close(), pair[1].Close()
		})
	}
	both.Wait()
}

package envoy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles/tlstest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

const page = "https://app.example.com"

// preflight asks what a browser asks before it sends a request from a page.
func (e *edge) preflight(origin, method string, headers ...string) reply {
	e.t.Helper()
	lines := []string{"OPTIONS /v1/orders HTTP/1.1", "Origin: " + origin, "Access-Control-Request-Method: " + method}
	if len(headers) > 0 {
		lines = append(lines, "Access-Control-Request-Headers: "+strings.Join(headers, ","))
	}
	return exchange(e.t, e.addr, lines...)
}

func TestCORS_PreflightsAndDenials(t *testing.T) {
	e := newEdge(t, edgeOptions{})
	key := e.customer("acme", "three")

	r := e.preflight(page, "POST", "x-api-key")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": page, "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE",
		"Access-Control-Allow-Headers": "authorization,content-type,x-api-key", "Access-Control-Max-Age": "600",
	} {
		if got := r.Header.Get(name); r.StatusCode != http.StatusOK || got != want {
			t.Errorf("preflight: %d, %s: %q, want %q", r.StatusCode, name, got, want)
		}
	}
	for _, origin := range []string{"https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null"} {
		if r := e.preflight(origin, "POST"); r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: allowed by %v", origin, r.Header)
		}
	}
	if n := e.Count(); n != 0 {
		t.Errorf("%d preflights reached the upstream", n)
	}
	if m, err := e.tk.Metrics(t.Context()); err != nil || !strings.Contains(m, "tollkeeper_decision_seconds_count 0\n") {
		t.Errorf("preflights were checked: %v", err)
	}

	// A page may read why it was denied.
	for want, send := range map[string]func() reply{
		"":            func() reply { return e.get("/v1/orders", key.Text, "origin", page) },
		"key_missing": func() reply { return get(t, e.http, e.addr, "/v1/orders", "origin", page) },
	} {
		r := send()
		exposed := strings.Split(r.Header.Get("Access-Control-Expose-Headers"), ",")
		if r.Header.Get("X-Authz-Reason") != want || r.Header.Get("Access-Control-Allow-Origin") != page || !slices.Contains(exposed, "x-authz-reason") {
			t.Errorf("%q: %d %v", want, r.StatusCode, r.Header)
		}
	}
	// An OPTIONS that is no preflight is a request like any other.
	e.Reset()
	e.wantDenial(exchange(t, e.addr, "OPTIONS /v1/orders HTTP/1.1", "Origin: "+page), http.StatusForbidden, "key_missing")
	e.wantDenial(exchange(t, e.addr, "OPTIONS /v1/orders HTTP/1.1"), http.StatusForbidden, "key_missing")
}

// TestMTLS_RefusesUnknownEnvoys have no right certificate: their clients are refused, and never let through.
func TestMTLS_RefusesUnknownEnvoys(t *testing.T) {
	issue := func(life time.Duration, name string) func(e *edge) {
		return func(e *edge) { e.internal.Write(t, e.dir+"certs/tollkeeper", e.internal, life, name) }
	}
	shown := "          - {name: client, sds_config: {path_config_source: {path: /etc/envoy/sds/client.yaml}, resource_api_version: V3}}\n"
	for name, o := range map[string]edgeOptions{
		"no certificate": {change: func(config string) string {
			return strings.Replace(config, "          tls_certificate_sds_secret_configs:\n"+shown, "", 1)
		}},
		"a certificate that is not there": {client: func(e *edge) {
			issue(time.Hour, envoyName)(e)
			if err := os.Remove(e.dir + "certs/tollkeeper/tls.key"); err != nil {
				t.Fatal(err)
			}
		}},
		"another name": {client: issue(time.Hour, "spiffe://cluster.local/ns/other/sa/envoy")},
		"another CA":   {client: func(e *edge) { tlstest.NewCA(t).Write(t, e.dir+"certs/tollkeeper", e.internal, time.Hour, envoyName) }},
		"expired":      {client: issue(-time.Minute, envoyName)},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, o)
			key := e.customer("acme", "free")
			for range 3 {
				if r := e.get("/", key.Text); r.StatusCode != http.StatusServiceUnavailable || r.body != "" {
					t.Errorf("%d %q", r.StatusCode, r.body)
				}
			}
			if n := e.Count(); n != 0 {
				t.Errorf("%d requests reached the upstream", n)
			}
			if log := e.proxy.Log(); !strings.Contains(log, `"details":"ext_authz_error"`) || !strings.Contains(log, `"flags":"UAEX"`) {
				t.Errorf("the access log: %s", lastLines(log, 3))
			}
			for of, want := range map[string]string{"no certificate": "didn't provide a certificate", "another name": "spiffe://cluster.local/ns/other/sa/envoy"} {
				if name == of && !strings.Contains(e.tk.Log(), want) {
					t.Errorf("Tollkeeper does not say whom it refused: %s", lastLines(e.tk.Log(), 3))
				}
			}
		})
	}
}

// Whoever takes Tollkeeper's place with a certificate of the same CA, such as another client, is not asked.
func TestMTLS_RefusesUnknownTollkeepers(t *testing.T) {
	for name, names := range map[string][]string{"another name": {"envoy.internal"}, "the name as URI": {"spiffe://" + tollkeeperName}} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, edgeOptions{})
			key := e.customer("acme", "free")
			e.internal.Write(t, e.server.Dir, e.internal, time.Hour, names...)
			if err := e.tk.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := e.tk.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if r := e.get("/", key.Text); r.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("%d %q", r.StatusCode, r.body)
				}
			}
			if n := e.Count(); n != 0 {
				t.Errorf("%d requests reached the upstream", n)
			}
		})
	}
}

// replace puts a file in the place of another in one step.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

// TestMTLS_RotationLosesNoRequest moves both sides to certificates of a new CA, in the order in which an operator
// does it, while connections come and go. No request fails, and in the end nobody has anything of the old CA.
func TestMTLS_RotationLosesNoRequest(t *testing.T) {
	for round := 1; rotateUnderLoad(t, round); round++ {
	}
}

// rotateUnderLoad returns whether the round is to be repeated. Envoy's files are replaced as Kubernetes does it, and
// Tollkeeper's one after the other.
func rotateUnderLoad(t *testing.T, round int) bool {
	t.Helper()
	var client, public *tlstest.Volume
	put := func(v *tlstest.Volume, ca *tlstest.CA, trusted []byte, name string) {
		cert, key := ca.Issue(t, time.Hour, name)
		v.Put(t, map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": trusted})
	}
	e := newEdge(t, edgeOptions{
		tollkeeper: harness.TollkeeperOptions{Listen: "max_connection_age: 100ms"},
		files: func(e *edge) {
			client, public = &tlstest.Volume{Dir: e.dir + "certs/tollkeeper"}, &tlstest.Volume{Dir: e.dir + "certs/edge"}
			put(client, e.internal, e.internal.PEM, envoyName)
			put(public, e.public, nil, "api.example.com")
			e.server = e.internal.Write(t, t.TempDir(), e.internal, time.Hour, tollkeeperName)
		},
	})
	key := e.customer("acme", "large")
	before := e.shown()
	load := e.underLoad(4, key.Text)
	next := tlstest.NewCA(t)
	both := append(append([]byte(nil), e.internal.PEM...), next.PEM...)
	reloads := 0
	settle := func() {
		reloads++
		await(t, func() bool {
			m, err := e.tk.Metrics(t.Context())
			return err == nil && strings.Contains(m, fmt.Sprintf("tollkeeper_tls_reloads_total{outcome=\"ok\"} %d\n", reloads))
		})
		await(t, e.newConnections(5))
	}

	// First all trust both, then all show the new ones, then all trust the new ones alone.
	replace(t, e.server.CA, both)
	put(client, e.internal, both, envoyName)
	settle()
	cert, private := next.Issue(t, time.Hour, tollkeeperName)
	replace(t, e.server.Key, private)
	replace(t, e.server.Cert, cert)
	put(client, next, both, envoyName)
	settle()
	replace(t, e.server.CA, next.PEM)
	put(client, next, next.PEM, envoyName)
	settle()
	put(public, e.public, nil, "api.example.com")
	await(t, func() bool { return !bytes.Equal(e.shown(), before) })

	if e.tooBusy(load.stop(), round) {
		return true
	}
	// Nothing of the old CA is good any more, so what was just used was new.
	put(client, e.internal, next.PEM, envoyName)
	await(t, func() bool { return e.get("/", key.Text).StatusCode == http.StatusServiceUnavailable })
	return false
}

// shown is the certificate that Envoy shows its clients.
func (e *edge) shown() []byte {
	e.t.Helper()
	conn, err := tls.Dial("tcp", e.proxy.Addr(), e.trust)
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Raw
}

// newConnections returns a condition that holds when Envoy has opened n more connections to Tollkeeper.
func (s *stack) newConnections(n int64) func() bool {
	s.t.Helper()
	count := func() int64 {
		stats, err := s.proxy.Stats(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return stats["cluster.tollkeeper.upstream_cx_total"]
	}
	before := count()
	return func() bool { return count() >= before+n }
}

// Connections end for the sake of balance, and no request with them.
func TestMaxConnectionAge_LosesNoCheck(t *testing.T) {
	for round := 1; ; round++ {
		s := runStack(t, harness.TollkeeperOptions{Policies: ownPolicies(t), Listen: "max_connection_age: 50ms"}, nil)
		load := s.underLoad(4, s.customer("acme", "large").Text)
		await(t, s.newConnections(20))
		if !s.tooBusy(load.stop(), round) {
			return
		}
	}
}

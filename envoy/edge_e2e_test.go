package envoy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles/tlstest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

const page = "https://app.example.com"

// preflight sends a CORS preflight, as a browser does before a request from a page.
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

	// A page can read the reason of a denial.
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
	// An OPTIONS request that is not a preflight is checked.
	e.Reset()
	e.wantDenial(exchange(t, e.addr, "OPTIONS /v1/orders HTTP/1.1", "Origin: "+page), http.StatusForbidden, "key_missing")
	e.wantDenial(exchange(t, e.addr, "OPTIONS /v1/orders HTTP/1.1"), http.StatusForbidden, "key_missing")
}

// TestMTLS_RefusesUnknownEnvoys starts Envoys without a valid certificate: they deny every request.
func TestMTLS_RefusesUnknownEnvoys(t *testing.T) {
	issue := func(life time.Duration, name string) func(e *edge) {
		return func(e *edge) { e.internal.Write(t, e.dir+"certs/tollkeeper", e.internal, life, name) }
	}
	shown := "          - {name: client, sds_config: {path_config_source: {path: /etc/envoy/sds/client.yaml}, resource_api_version: V3}}\n"
	for name, o := range map[string]edgeOptions{
		"no certificate": {change: func(config string) string {
			return strings.Replace(config, "          tls_certificate_sds_secret_configs:\n"+shown, "", 1)
		}},
		"a missing certificate": {client: func(e *edge) {
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
					t.Errorf("Tollkeeper's log does not name the refused client: %s", lastLines(e.tk.Log(), 3))
				}
			}
		})
	}
}

// Envoy does not ask a server with another certificate of the same CA, such as a client's.
func TestMTLS_RefusesUnknownTollkeepers(t *testing.T) {
	for name, names := range map[string][]string{"another name": {"envoy.internal"}, "the name as URI": {"spiffe://" + tollkeeperName}} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, edgeOptions{})
			key := e.customer("acme", "free")
			e.internal.Write(t, e.server.Dir, e.internal, time.Hour, names...)
			if err := e.tk.Restart(t.Context()); err != nil {
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

// TestMTLS_RotationLosesNoRequest moves both sides to certificates of a new CA, in the order that the README describes,
// while connections open and close. No request fails, and at the end the old CA is not used any more.
func TestMTLS_RotationLosesNoRequest(t *testing.T) {
	for round := 1; rotateUnderLoad(t, round); round++ {
	}
}

// rotateUnderLoad returns true if the round has to be repeated. It replaces Envoy's files as Kubernetes does, and
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
	load := e.underLoad(4, "x-api-key", key.Text)
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

	// First both sides trust both CAs, then both use new certificates, then both trust the new CA only.
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
	// A certificate of the old CA is refused now, so the last requests used new ones.
	put(client, e.internal, next.PEM, envoyName)
	await(t, func() bool { return e.get("/", key.Text).StatusCode == http.StatusServiceUnavailable })
	return false
}

// shown is the certificate that Envoy presents to its clients.
func (e *edge) shown() []byte {
	e.t.Helper()
	conn, err := tls.Dial("tcp", e.proxy.Addr(), e.trust)
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Raw
}

// newConnections returns a condition that becomes true when Envoy has opened n more connections to Tollkeeper.
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

// Connections that reach their maximum age end without losing a check.
func TestMaxConnectionAge_LosesNoCheck(t *testing.T) {
	for round := 1; ; round++ {
		s := runStack(t, harness.TollkeeperOptions{Policies: ownPolicies(t), Listen: "max_connection_age: 50ms"}, nil)
		load := s.underLoad(4, "x-api-key", s.customer("acme", "large").Text)
		await(t, s.newConnections(20))
		if !s.tooBusy(load.stop(), round) {
			return
		}
	}
}

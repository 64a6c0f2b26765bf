package envoy

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles/tlstest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// TestFiles_AreValid has Envoy validate each file.
func TestFiles_AreValid(t *testing.T) {
	root, err := harness.ModuleRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	binary, err := harness.FindEnvoy(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []harness.Layout{harness.Loopback, harness.TLS, harness.Sidecar} {
		text, err := os.ReadFile(l.File)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if l.Dir != "" { // the files that it names have to exist
			copyFiles(t, "sds", filepath.Join(dir, "sds"))
			text = []byte(strings.ReplaceAll(string(text), l.Dir, dir+"/"))
		}
		file := filepath.Join(dir, l.File)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), binary, "-c", file, "--mode", "validate").CombinedOutput(); err != nil || strings.Contains(string(out), "eprecat") {
			t.Errorf("%s: %v\n%s", l.File, err, out)
		}
	}
}

// TestFiles_Agree holds that the files protect in the same way: they differ only where their comments say so.
func TestFiles_Agree(t *testing.T) {
	var first map[string]any
	for _, l := range []harness.Layout{harness.Loopback, harness.TLS, harness.Sidecar} {
		text, err := os.ReadFile(l.File)
		if err != nil {
			t.Fatal(err)
		}
		hcm := managerOf(t, text)
		authz := filterOf(t, hcm, "envoy.filters.http.ext_authz")
		service := authz["grpc_service"].(map[string]any)
		if l.File == harness.TLS.File { // only here there is another Tollkeeper for a retry
			retry := service["retry_policy"].(map[string]any)
			if retry["retry_on"] != "connect-failure,refused-stream,reset-before-request" {
				t.Errorf("%s: retries on %v", l.File, retry["retry_on"])
			}
			delete(retry, "retry_host_predicate")
			delete(retry, "host_selection_retry_max_attempts")
			retry["num_retries"] = 1
		}
		for _, differs := range []string{"http_filters", "route_config"} {
			delete(hcm, differs)
		}
		all := map[string]any{"manager": hcm, "ext_authz": authz}
		if first == nil {
			first = all
		}
		if !reflect.DeepEqual(first, all) {
			a, _ := yaml.Marshal(first)
			b, _ := yaml.Marshal(all)
			t.Errorf("%s differs from %s:\n%s\n---\n%s", l.File, harness.Loopback.File, a, b)
		}
	}
}

// managerOf is the configuration of the HTTP connection manager in a file.
func managerOf(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var file struct {
		StaticResources struct {
			Listeners []struct {
				FilterChains []struct {
					Filters []struct {
						TypedConfig map[string]any `yaml:"typed_config"`
					} `yaml:"filters"`
				} `yaml:"filter_chains"`
			} `yaml:"listeners"`
		} `yaml:"static_resources"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.StaticResources.Listeners[0].FilterChains[0].Filters[0].TypedConfig
}

func filterOf(t *testing.T, hcm map[string]any, name string) map[string]any {
	t.Helper()
	for _, f := range hcm["http_filters"].([]any) {
		if f := f.(map[string]any); f["name"] == name {
			return f["typed_config"].(map[string]any)
		}
	}
	t.Fatalf("no filter %s", name)
	return nil
}

// TestFiles_Protect sends requests through the files that the other tests do not use.
func TestFiles_Protect(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) *stack{
		harness.TLS.File:     func(t *testing.T) *stack { return newEdge(t, edgeOptions{}).stack },
		harness.Sidecar.File: newSidecar,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			key, second := s.customer("acme", "free"), s.key("acme")
			for _, http2 := range []bool{false, true} {
				s.Reset()
				r := get(t, httpClient(t, http2), s.addr, "/v1", append([]string{"x-api-key", key.Text}, forged...)...)
				if r.StatusCode != http.StatusOK {
					t.Fatalf("http2 %v: %d %s", http2, r.StatusCode, r.body)
				}
				s.wantIdentity(name, key)
			}
			s.Reset()
			s.wantDenial(get(t, s.http, s.addr, "/v1", forged...), http.StatusForbidden, "key_missing")
			s.wantDenial(exchange(t, s.addr, "GET / HTTP/1.1", "x-api-key: "+key.Text, "X-Api-Key: "+second.Text), http.StatusForbidden, "credential_ambiguous")
			for _, path := range []string{"/admin/x", "//admin/x", "/a/../admin/x", "/%61dmin/x", `/a/..\admin/x`} {
				s.wantDenial(exchange(t, s.addr, "GET "+path+" HTTP/1.1", "x-api-key: "+key.Text), http.StatusForbidden, "permission_denied")
			}
			if r := exchange(t, s.addr, "GET /a%2f..%2fadmin HTTP/1.1", "x-api-key: "+key.Text); r.StatusCode != http.StatusTemporaryRedirect || s.Count() != 0 {
				t.Errorf("escaped slashes: %d, %d forwarded", r.StatusCode, s.Count())
			}
			s.wantDenial(askForWebSocket(t, s.addr), http.StatusForbidden, "key_missing")
			if got := echoOverWebSocket(t, s.addr, "x-api-key", key.Text); got != "hello" {
				t.Errorf("the echo was %q", got)
			}
			if _, err := echo(t, dialGRPC(t, s.addr), "x-api-key", key.Text); err != nil {
				t.Errorf("gRPC: %v", err)
			}
			s.wantIdentity("gRPC", key)

			if err := s.tk.Stop(); err != nil {
				t.Fatal(err)
			}
			s.Reset()
			if r := s.get("/", key.Text); r.StatusCode != http.StatusServiceUnavailable || s.Count() != 0 {
				t.Errorf("without Tollkeeper: %d, %d forwarded", r.StatusCode, s.Count())
			}
			if err := s.tk.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			await(t, func() bool { return s.get("/", key.Text).StatusCode == http.StatusOK })
		})
	}
}

// Clients with ALPN get HTTP/2 if they offer it, and clients without TLS get nothing.
func TestTLSListener_NegotiatesTheProtocol(t *testing.T) {
	e := newEdge(t, edgeOptions{})
	key := e.customer("acme", "free")
	for _, c := range []struct {
		http2 bool
		proto string
	}{{true, "HTTP/2.0"}, {false, "HTTP/1.1"}} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(c.http2)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols, TLSClientConfig: e.trust.Clone()}, Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+e.proxy.Addr()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-api-key", key.Text)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if r := readAll(t, resp); r.StatusCode != http.StatusOK || r.Proto != c.proto {
			t.Errorf("%s: %d over %s", c.proto, r.StatusCode, r.Proto)
		}
	}
	if resp, err := http.Get("http://" + e.proxy.Addr() + "/"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("without TLS: %d", resp.StatusCode)
	}
}

func TestEdge_ChargesAndExemptsRoutes(t *testing.T) {
	e := newEdge(t, edgeOptions{})
	payg := e.customer("payg", "payg")
	e.cli(nil, "quota", "credit", "--account", "payg", "--limit", "credits", "--units", "100")

	// A request is charged by the Tollkeeper route that its Envoy route names.
	if r := e.get("/v2/render/page", payg.Text); r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("Ratelimit"), `"credits";r=97`) {
		t.Errorf("a render: %d, ratelimit %q", r.StatusCode, r.Header.Get("Ratelimit"))
	}
	if r := e.get("/v2/renderer", payg.Text); r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("Ratelimit"), `"credits";r=96`) {
		t.Errorf("another route: %d, ratelimit %q", r.StatusCode, r.Header.Get("Ratelimit"))
	}

	// Exactly the exempt paths are exempt, and forged identities are removed there too.
	for path, want := range map[string]int{
		"/assets/logo.png": 200, "/assets": 200, "/healthz": 200,
		"/assetsx": 403, "/assets/../v1": 403, "/assets/%2e%2e/v1": 403, "/x/assets/logo.png": 403, "/Assets/logo.png": 403,
		"/assets/logo.png?v=%31;a": 200, "/assets/%2e%2e;/v1/orders": 403, "/assets/..%3b/v1/orders": 403, "/assets/%2E%2E;a=b/v1/orders": 403,
	} {
		e.Reset()
		r := exchange(t, e.addr, "GET "+path+" HTTP/1.1", "x-tollkeeper-account: evil")
		if r.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, r.StatusCode, want)
		}
		if last, ok := e.Last(); ok && last.Headers.Get("X-Tollkeeper-Account") != "" {
			t.Errorf("%s: a forged identity reached the upstream", path)
		}
	}
}

// TestAccessLog_NamesTheRoute of a request that is allowed and of one that is denied, and none of one that is not checked.
func TestAccessLog_NamesTheRoute(t *testing.T) {
	e := newEdge(t, edgeOptions{})
	payg := e.customer("payg", "payg")
	e.cli(nil, "quota", "credit", "--account", "payg", "--limit", "credits", "--units", "100")
	e.get("/v2/render/page", payg.Text)
	e.get("/v2/render/page", "")
	e.get("/assets/logo.png", "")
	got := make(map[string]any)
	await(t, func() bool {
		for line := range strings.Lines(e.proxy.Log()) {
			var entry struct {
				Path    string
				Details string
				Route   any
			}
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Details != "" {
				got[entry.Details+" "+entry.Path] = entry.Route
			}
		}
		return len(got) >= 3
	})
	want := map[string]any{"via_upstream /v2/render/page": "render", "ext_authz_denied /v2/render/page": "render", "via_upstream /assets/logo.png": nil}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// blocks returns the README's fenced blocks of a kind.
func blocks(t *testing.T, kind string) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, part := range strings.Split(string(text), "```"+kind+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		out = append(out, block)
	}
	return out
}

// TestREADME_CertificatesWork runs the README's commands that make certificates, and serves with these.
func TestREADME_CertificatesWork(t *testing.T) {
	var commands string
	for _, b := range blocks(t, "sh") {
		if strings.Contains(b, "openssl req") {
			commands = b
		}
	}
	e := newEdge(t, edgeOptions{files: func(e *edge) {
		run := exec.CommandContext(t.Context(), "bash", "-euc", commands)
		run.Dir = t.TempDir()
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		at := func(path string) string { return filepath.Join(run.Dir, "try", path) }
		copyFiles(t, at("certs"), filepath.Join(e.dir, "certs"))
		e.server = tlstest.Files{Dir: at("tollkeeper"), Cert: at("tollkeeper/tls.crt"), Key: at("tollkeeper/tls.key"), CA: at("tollkeeper/ca.crt")}
		var err error
		if e.public.PEM, err = os.ReadFile(at("public.crt")); err != nil {
			t.Fatal(err)
		}
	}})
	if r := e.get("/", e.customer("acme", "free").Text); r.StatusCode != http.StatusOK {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

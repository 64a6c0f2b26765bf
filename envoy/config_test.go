package envoy

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// forged are identity headers that a client might send, in several spellings.
var forged = []string{
	"x-tollkeeper-account", "evil", "X-Tollkeeper-Account", "evil", "X-TOLLKEEPER-PLAN", "evil",
	"x-Tollkeeper-Key-Id", "evil", "x-tollkeeper-", "evil", "X-tollkeeper-anything-else", "evil",
}

func TestConfig_StripsForgedIdentity(t *testing.T) {
	f := newFixture(t)
	f.say(allow(&authv3.OkHttpResponse{}))
	for _, http2 := range []bool{false, true} {
		f.Reset()
		if r := get(t, httpClient(t, http2), f.addr, "/", forged...); r.StatusCode != http.StatusOK {
			t.Fatalf("http2 %v: status %d", http2, r.StatusCode)
		}
		last, _ := f.Last()
		for name := range last.Headers {
			if strings.HasPrefix(strings.ToLower(name), "x-tollkeeper-") {
				t.Errorf("http2 %v: %s reached the upstream", http2, name)
			}
		}
	}
	for _, q := range f.questions() {
		for _, h := range q.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if strings.HasPrefix(strings.ToLower(h.GetKey()), "x-tollkeeper-") {
				t.Errorf("the check contains %s", h.GetKey())
			}
		}
	}
	if n := len(f.questions()); n != 2 {
		t.Errorf("%d checks, want 2", n)
	}
}

func TestConfig_CheckAndUpstreamSeeTheSamePath(t *testing.T) {
	f := newFixture(t)
	f.say(allow(&authv3.OkHttpResponse{}))
	for _, c := range []struct {
		target string
		status int
		path   string // that both see; empty: Envoy neither checks nor forwards the request
	}{
		{"/plain", 200, "/plain"},
		{"//admin", 200, "/admin"},
		{"/a//admin", 200, "/a/admin"},
		{"/a/../admin", 200, "/admin"},
		{"/a/%2e%2e/admin", 200, "/admin"},
		{"/a/./admin", 200, "/a/admin"},
		{"/%61dmin", 200, "/admin"},
		{`/a\admin`, 200, "/a/admin"},
		{"/a%20b", 200, "/a%20b"},
		{"/a;x=1", 200, "/a;x=1"},
		{"/a?x=%2e%2e/", 200, "/a?x=%2e%2e/"},
		{"/a%2fadmin", 307, ""},
		{"/a%2Fadmin", 307, ""},
		{"/a%5cadmin", 307, ""},
		{"/a%00", 400, ""},
		{"/a#b", 400, ""},
		{"/../../etc", 200, "/etc"},
	} {
		f.say(allow(&authv3.OkHttpResponse{}))
		f.Reset()
		r := exchange(t, f.addr, "GET "+c.target+" HTTP/1.1")
		if r.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.target, r.StatusCode, c.status)
		}
		var checked, forwarded string
		if q := f.questions(); len(q) > 0 {
			checked = q[0].GetAttributes().GetRequest().GetHttp().GetPath()
		}
		if last, ok := f.Last(); ok {
			forwarded = last.URI
		}
		if checked != c.path || forwarded != c.path {
			t.Errorf("%s: the check saw %q and the upstream %q, want %q", c.target, checked, forwarded, c.path)
		}
	}
}

func TestConfig_HeadersOfTheCheck(t *testing.T) {
	f := newFixture(t)
	f.say(allow(&authv3.OkHttpResponse{}))
	r := exchange(t, f.addr, "GET / HTTP/1.1", "X-API-Key: one", "x-api-key: two", "Authorization: Bearer a", "authorization: Bearer b",
		"Cookie: session=1", "x-raw: caf\xe9")
	if r.StatusCode != 200 || len(f.questions()) != 1 {
		t.Fatalf("status %d after %d checks", r.StatusCode, len(f.questions()))
	}
	q := f.questions()[0]
	for _, c := range []struct {
		name string
		want []string
	}{
		{"x-api-key", []string{"one", "two"}},
		{"authorization", []string{"Bearer a,Bearer b"}}, // Envoy joins the values before the check
		{"cookie", nil},
		{"x-raw", []string{"caf\xe9"}},
	} {
		if got := values(q, c.name); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if last, _ := f.Last(); last.Headers.Get("Cookie") != "session=1" {
		t.Error("the upstream did not get the cookie")
	}

	f.say(allow(&authv3.OkHttpResponse{}))
	f.Reset()
	if r := exchange(t, f.addr, "GET / HTTP/1.1", "x_tollkeeper_account: evil"); r.StatusCode != 400 || f.Count() != 0 || len(f.questions()) != 0 {
		t.Errorf("underscore in a name: status %d, %d forwarded, %d checks", r.StatusCode, f.Count(), len(f.questions()))
	}
}

// Clients cannot control Envoy's router, even from this machine: no address counts as internal.
func TestConfig_IgnoresRouterHeadersOfClients(t *testing.T) {
	f := newFixture(t)
	f.say(allow(&authv3.OkHttpResponse{}))
	get(t, httpClient(t, false), f.addr, "/", "x-envoy-upstream-rq-timeout-ms", "1", "x-envoy-retry-on", "5xx", "x-envoy-max-retries", "9")
	last, ok := f.Last()
	if !ok {
		t.Fatal("the request did not reach the upstream")
	}
	for _, name := range []string{"X-Envoy-Upstream-Rq-Timeout-Ms", "X-Envoy-Retry-On", "X-Envoy-Max-Retries", "X-Envoy-Internal"} {
		if v, ok := last.Headers[name]; ok {
			t.Errorf("%s: %q reached the upstream", name, v)
		}
	}
}

func TestConfig_RoutesSendTheirContext(t *testing.T) {
	f := newFixture(t)
	f.say(allow(&authv3.OkHttpResponse{}))
	get(t, httpClient(t, true), f.addr, "/")
	if _, err := echo(t, dialGRPC(t, f.addr)); err != nil {
		t.Fatal(err)
	}
	var routes []string
	for _, q := range f.questions() {
		ext := q.GetAttributes().GetContextExtensions()
		routes = append(routes, ext["tollkeeper.gateway"]+"/"+ext["tollkeeper.protocol"])
	}
	if want := []string{"edge/http", "edge/grpc"}; !slices.Equal(routes, want) {
		t.Errorf("contexts %q, want %q", routes, want)
	}
}

func TestConfig_ExemptsOnlyHealthz(t *testing.T) {
	f := newFixture(t)
	c := httpClient(t, false)
	for path, want := range map[string]struct{ status, checks int }{
		"/healthz":    {200, 0},
		"/healthz?x":  {200, 0},
		"/healthz/":   {402, 1},
		"/healthz/..": {402, 1},
		"/healthzz":   {402, 1},
		"/Healthz":    {402, 1},
		"/":           {402, 1},
	} {
		f.say(deny(typev3.StatusCode_PaymentRequired, "pay"))
		r := exchange(t, f.addr, "GET "+path+" HTTP/1.1")
		if n := len(f.questions()); r.StatusCode != want.status || n != want.checks {
			t.Errorf("%s: status %d after %d checks, want %d after %d", path, r.StatusCode, n, want.status, want.checks)
		}
	}
	if f.Count() != 0 {
		t.Errorf("%d requests reached the upstream", f.Count())
	}
	if r := get(t, c, f.addr, "/healthz", "x-tollkeeper-account", "evil"); r.StatusCode != 200 {
		t.Errorf("/healthz: status %d", r.StatusCode)
	}
}

func TestConfig_AdminInterfaceOnlyReads(t *testing.T) {
	f := newFixture(t)
	c := httpClient(t, false)
	for path, want := range map[string]int{"/ready": 200, "/stats": 200, "/config_dump": 403, "/quitquitquit": 403, "/runtime_modify": 403} {
		resp, err := c.Post("http://"+f.proxy.AdminAddr()+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := readAll(t, resp); r.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, r.StatusCode, want)
		}
	}
}

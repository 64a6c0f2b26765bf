package envoy

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// identity is what upstreams trust, as clients might forge it.
var forged = []string{
	"x-tollkeeper-account", "evil", "X-Tollkeeper-Account", "evil", "X-TOLLKEEPER-PLAN", "evil",
	"x-Tollkeeper-Key-Id", "evil", "x-tollkeeper-", "evil", "X-tollkeeper-anything-else", "evil",
}

func TestConfig_StripsForgedIdentity(t *testing.T) {
	b := newBench(t)
	b.say(allow(&authv3.OkHttpResponse{}))
	for _, http2 := range []bool{false, true} {
		b.Reset()
		if r := get(t, httpClient(t, http2), b.addr, "/", forged...); r.StatusCode != http.StatusOK {
			t.Fatalf("http2 %v: status %d", http2, r.StatusCode)
		}
		last, _ := b.Last()
		for name := range last.Headers {
			if strings.HasPrefix(strings.ToLower(name), "x-tollkeeper-") {
				t.Errorf("http2 %v: %s reached the upstream", http2, name)
			}
		}
	}
	for _, q := range b.questions() {
		for _, h := range q.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if strings.HasPrefix(strings.ToLower(h.GetKey()), "x-tollkeeper-") {
				t.Errorf("the check was shown %s", h.GetKey())
			}
		}
	}
	if n := len(b.questions()); n != 2 {
		t.Errorf("%d checks, want 2", n)
	}
}

func TestConfig_CheckAndUpstreamSeeTheSamePath(t *testing.T) {
	b := newBench(t)
	b.say(allow(&authv3.OkHttpResponse{}))
	for _, c := range []struct {
		target string
		status int
		path   string // what both see; empty: nobody is asked, and nothing is forwarded
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
		b.say(allow(&authv3.OkHttpResponse{}))
		b.Reset()
		r := exchange(t, b.addr, "GET "+c.target+" HTTP/1.1")
		if r.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.target, r.StatusCode, c.status)
		}
		var checked, forwarded string
		if q := b.questions(); len(q) > 0 {
			checked = q[0].GetAttributes().GetRequest().GetHttp().GetPath()
		}
		if last, ok := b.Last(); ok {
			forwarded = last.URI
		}
		if checked != c.path || forwarded != c.path {
			t.Errorf("%s: the check saw %q and the upstream %q, want %q", c.target, checked, forwarded, c.path)
		}
	}
}

func TestConfig_HeadersOfTheCheck(t *testing.T) {
	b := newBench(t)
	b.say(allow(&authv3.OkHttpResponse{}))
	r := exchange(t, b.addr, "GET / HTTP/1.1", "X-API-Key: one", "x-api-key: two", "Authorization: Bearer a", "authorization: Bearer b",
		"Cookie: session=1", "x-raw: caf\xe9")
	if r.StatusCode != 200 || len(b.questions()) != 1 {
		t.Fatalf("status %d after %d checks", r.StatusCode, len(b.questions()))
	}
	q := b.questions()[0]
	for _, c := range []struct {
		name string
		want []string
	}{
		{"x-api-key", []string{"one", "two"}},
		{"authorization", []string{"Bearer a,Bearer b"}}, // Envoy joins it before anybody sees it
		{"cookie", nil},
		{"x-raw", []string{"caf\xe9"}},
	} {
		if got := values(q, c.name); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if last, _ := b.Last(); last.Headers.Get("Cookie") != "session=1" {
		t.Error("the upstream did not get the cookie")
	}

	b.say(allow(&authv3.OkHttpResponse{}))
	b.Reset()
	if r := exchange(t, b.addr, "GET / HTTP/1.1", "x_tollkeeper_account: evil"); r.StatusCode != 400 || b.Count() != 0 || len(b.questions()) != 0 {
		t.Errorf("underscore in a name: status %d, %d forwarded, %d checks", r.StatusCode, b.Count(), len(b.questions()))
	}
}

// Clients may not steer Envoy's router, although they come from this very machine: nobody counts as internal.
func TestConfig_IgnoresRouterHeadersOfClients(t *testing.T) {
	b := newBench(t)
	b.say(allow(&authv3.OkHttpResponse{}))
	get(t, httpClient(t, false), b.addr, "/", "x-envoy-upstream-rq-timeout-ms", "1", "x-envoy-retry-on", "5xx", "x-envoy-max-retries", "9")
	last, ok := b.Last()
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
	b := newBench(t)
	b.say(allow(&authv3.OkHttpResponse{}))
	get(t, httpClient(t, true), b.addr, "/")
	if _, err := echo(t, dialGRPC(t, b.addr)); err != nil {
		t.Fatal(err)
	}
	var routes []string
	for _, q := range b.questions() {
		ext := q.GetAttributes().GetContextExtensions()
		routes = append(routes, ext["tollkeeper.gateway"]+"/"+ext["tollkeeper.protocol"])
	}
	if want := []string{"edge/http", "edge/grpc"}; !slices.Equal(routes, want) {
		t.Errorf("contexts %q, want %q", routes, want)
	}
}

func TestConfig_ExemptsOnlyHealthz(t *testing.T) {
	b := newBench(t)
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
		b.say(deny(typev3.StatusCode_PaymentRequired, "pay"))
		r := exchange(t, b.addr, "GET "+path+" HTTP/1.1")
		if n := len(b.questions()); r.StatusCode != want.status || n != want.checks {
			t.Errorf("%s: status %d after %d checks, want %d after %d", path, r.StatusCode, n, want.status, want.checks)
		}
	}
	if b.Count() != 0 {
		t.Errorf("%d requests reached the upstream", b.Count())
	}
	if r := get(t, c, b.addr, "/healthz", "x-tollkeeper-account", "evil"); r.StatusCode != 200 {
		t.Errorf("/healthz: status %d", r.StatusCode)
	}
}

func TestConfig_AdminInterfaceOnlyReads(t *testing.T) {
	b := newBench(t)
	c := httpClient(t, false)
	for path, want := range map[string]int{"/ready": 200, "/stats": 200, "/config_dump": 403, "/quitquitquit": 403, "/runtime_modify": 403} {
		resp, err := c.Post("http://"+b.proxy.AdminAddr()+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := readAll(t, resp); r.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, r.StatusCode, want)
		}
	}
}

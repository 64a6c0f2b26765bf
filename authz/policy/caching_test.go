package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/verdictcache"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

func stats(t *testing.T, p *Policy) verdictcache.Stats {
	t.Helper()
	s, ok := p.CacheStats()
	if !ok {
		t.Fatalf("no cache: %s", p.Caching())
	}
	return s
}

func allowed(t *testing.T, p *Policy, r *authz.Request, f *authz.Facts) bool {
	t.Helper()
	v, err := p.Decide(t.Context(), r, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v.Allowed
}

func TestVerdictCache_KeyIsWhatThePolicyReads(t *testing.T) {
	p := mustLoad(t, module(`default allow := false
allow if {
	input.attributes.request.http.path == "/a"
	input.key.status == "active"
	input.quota[_].state == "ok"
}`), Options{CachedVerdicts: 100})
	if p.Caching() != "on" {
		t.Errorf("caching: %q", p.Caching())
	}
	for i := range 10 {
		r, f := get("/a"), goodFacts()
		r.HTTP.ID, r.Time = fmt.Sprint(i), time.Unix(int64(i), 0) // the policy does not read these
		f.Key.ID = fmt.Sprint("key_", i)
		for n := range f.Quota {
			f.Quota[n].Remaining = int64(i + 1)
		}
		if !allowed(t, p, r, f) {
			t.Fatal("denied")
		}
	}
	if s := stats(t, p); s.Hits != 9 || s.Misses != 1 || s.Bypasses != 0 || s.Size != 1 {
		t.Errorf("%+v", s)
	}
	f := goodFacts()
	f.Key.Status = authz.KeyRevoked
	if allowed(t, p, get("/a"), f) || allowed(t, p, get("/b"), goodFacts()) || !allowed(t, p, get("/a"), goodFacts()) {
		t.Error("a verdict on another request")
	}
}

// TestVerdictCache_Nondeterminism uses policies that call functions whose answer may change.
func TestVerdictCache_Nondeterminism(t *testing.T) {
	clock := mustLoad(t, module(`default allow := false
allow if not input.key.expires_at
allow if time.parse_rfc3339_ns(input.key.expires_at) > time.now_ns()`), Options{CachedVerdicts: 100})
	if want := "on, except for decisions that call time.now_ns (p.rego:"; !strings.HasPrefix(clock.Caching(), want) {
		t.Errorf("caching: %q, want %q...", clock.Caching(), want)
	}
	soon := goodFacts()
	soon.Key.ExpiresAt = time.Now().Add(2 * time.Second) // a busy machine may take that long for the first decision
	if !allowed(t, clock, get("/"), soon) {
		t.Error("denied before the end")
	}
	for deadline := time.Now().Add(10 * time.Second); allowed(t, clock, get("/"), soon); {
		if time.Now().After(deadline) {
			t.Fatal("the verdict outlived the key")
		}
	}
	if s := stats(t, clock); s.Hits != 0 || s.Size != 0 || s.Bypasses == 0 {
		t.Errorf("%+v", s)
	}
	forever := goodFacts()
	forever.Key.ExpiresAt = time.Time{}
	for range 2 {
		if !allowed(t, clock, get("/"), forever) {
			t.Error("denied without an end")
		}
	}
	if s := stats(t, clock); s.Hits != 1 {
		t.Errorf("a verdict without a look at the clock is not cached: %+v", s)
	}
	jwt := mustLoad(t, module(`allow if io.jwt.decode_verify(input.parsed_body, {"secret": "x"})[0]`), Options{CachedVerdicts: 100})
	if _, on := jwt.CacheStats(); on || !strings.HasPrefix(jwt.Caching(), "off, because of io.jwt.decode_verify (p.rego:") {
		t.Errorf("caching: %q", jwt.Caching())
	}
	failing := mustLoad(t, module("default allow := false\nallow if to_number(input.key.id) > 0"), Options{CachedVerdicts: 100})
	allowed(t, failing, get("/"), goodFacts())
	if s := stats(t, failing); s.Size != 0 {
		t.Errorf("a verdict after a failure is cached: %+v", s)
	}
	if off := mustLoad(t, module("allow := true"), Options{}); off.Caching() != "off" {
		t.Errorf("caching: %q", off.Caching())
	}
}

func TestVerdictCache_LongInputs(t *testing.T) {
	p := mustLoad(t, module(`allow if input.parsed_body.x != "y"`), Options{CachedVerdicts: 100})
	r := get("/")
	r.Body.Parsed = map[string]any{"x": strings.Repeat("x", input.MaxKey)}
	for range 3 {
		if !allowed(t, p, r, goodFacts()) {
			t.Error("denied")
		}
	}
	if s := stats(t, p); s.Bypasses != 3 || s.Size != 0 {
		t.Errorf("%+v", s)
	}
}

// TestVerdictCache_OneVerdictForAllPathsOfARoute uses the shipped policies. They read which route applies, and never what a caller
// writes.
func TestVerdictCache_OneVerdictForAllPathsOfARoute(t *testing.T) {
	p := mustLoad(t, bundle.FS(policies.Files), Options{CachedVerdicts: 100})
	routes := []*authz.Route{
		{Name: "order", Template: "/v1/orders/{id}"},
		{Name: "other", Template: "/v2/orders/{id}"}, // requires and costs the same, so it has the same verdict
		{Name: "report", Template: "/v1/reports/{id}", Scopes: []string{"reports:read"}},
	}
	for i := range 3000 {
		id := fmt.Sprint(i)
		r, f := get("/v1/orders/"+id), goodFacts()
		r.HTTP.Method, r.HTTP.Host, r.HTTP.Params = "M"+id, "h"+id, map[string][]string{"q": {id}}
		f.Key.Plan, f.Key.Environment, f.Account.Status = "free", "live", authz.AccountActive
		f.Quota = []authz.QuotaFact{{Name: "rate", State: authz.QuotaOK, Remaining: int64(i)}, {Name: "daily", State: authz.QuotaOK}}
		f.Path.State = authz.PathOK
		f.Route = authz.RouteFact{State: authz.RouteOK, Route: routes[i%3], Params: []authz.Param{{Name: "id", Value: id}}}
		if allowed(t, p, r, f) != (i%3 < 2) {
			t.Fatalf("%s: allowed: %t", r.HTTP.Path, i%3 == 2)
		}
	}
	if s := stats(t, p); s.Misses != 2 || s.Hits != 2998 {
		t.Errorf("%+v", s)
	}
}

// BenchmarkVerdictCache decides one request by the shipped policies again and again.
func BenchmarkVerdictCache(b *testing.B) {
	for device, size := range map[string]int{"on": 1000, "off": 0} {
		p := mustLoad(b, bundle.FS(policies.Files), Options{CachedVerdicts: size})
		r, f := get("/v1/things"), goodFacts()
		f.Key.Plan, f.Key.Environment, f.Account.Status = "free", "live", authz.AccountActive
		f.Quota = []authz.QuotaFact{{Name: "rate", State: authz.QuotaOK}, {Name: "daily", State: authz.QuotaOK}}
		f.Path.State, f.Route.State = authz.PathOK, authz.RouteNone
		b.Run("device="+device, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, err := p.Decide(b.Context(), r, f, nil); err != nil || !v.Allowed {
					b.Fatal(v, err)
				}
			}
		})
	}
}

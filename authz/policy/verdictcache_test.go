package policy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

func stats(t *testing.T, p *Policy) CacheStats {
	t.Helper()
	s, ok := p.CacheStats()
	if !ok {
		t.Fatalf("no memo: %s", p.Caching())
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

func TestMemo(t *testing.T) {
	p := mustLoad(t, module(`default allow := false
allow if {
	input.attributes.request.http.path == "/a"
	input.key.status == "active"
	input.quota[_].state == "ok"
}`), Options{CachedVerdicts: 100})
	if p.Caching() != "on" {
		t.Errorf("memo %q", p.Caching())
	}
	for i := range 10 {
		r, f := get("/a"), goodFacts()
		r.HTTP.ID, r.Time = fmt.Sprint(i), time.Unix(int64(i), 0) // which the policy does not read
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
		t.Error("a verdict on something else")
	}
}

// TestMemoAndSurprises has policies that ask something whose answer may be another one next time.
func TestMemoAndSurprises(t *testing.T) {
	clock := mustLoad(t, module(`default allow := false
allow if not input.key.expires_at
allow if time.parse_rfc3339_ns(input.key.expires_at) > time.now_ns()`), Options{CachedVerdicts: 100})
	if want := "on, but for decisions that ask time.now_ns (p.rego:"; !strings.HasPrefix(clock.Caching(), want) {
		t.Errorf("memo %q, want %q...", clock.Caching(), want)
	}
	soon := goodFacts()
	soon.Key.ExpiresAt = time.Now().Add(100 * time.Millisecond)
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
		t.Errorf("what does not look at the clock is not remembered: %+v", s)
	}
	jwt := mustLoad(t, module(`allow if io.jwt.decode_verify(input.parsed_body, {"secret": "x"})[0]`), Options{CachedVerdicts: 100})
	if _, on := jwt.CacheStats(); on || !strings.HasPrefix(jwt.Caching(), "off, because of io.jwt.decode_verify (p.rego:") {
		t.Errorf("memo %q", jwt.Caching())
	}
	failing := mustLoad(t, module("default allow := false\nallow if to_number(input.key.id) > 0"), Options{CachedVerdicts: 100})
	allowed(t, failing, get("/"), goodFacts())
	if s := stats(t, failing); s.Size != 0 {
		t.Errorf("a verdict on what failed is remembered: %+v", s)
	}
	if off := mustLoad(t, module("allow := true"), Options{}); off.Caching() != "off" {
		t.Errorf("memo %q", off.Caching())
	}
}

func TestMemoOfHugeInputs(t *testing.T) {
	p := mustLoad(t, module(`allow if input.parsed_body.x != "y"`), Options{CachedVerdicts: 100})
	r := get("/")
	r.Body.Parsed = map[string]any{"x": strings.Repeat("x", maxKey)}
	for range 3 {
		if !allowed(t, p, r, goodFacts()) {
			t.Error("denied")
		}
	}
	if s := stats(t, p); s.Bypasses != 3 || s.Size != 0 {
		t.Errorf("%+v", s)
	}
}

// TestAFloodDoesNotDriveOutTheHonest asks for a few things again and again, and once each for very many.
func TestAFloodDoesNotDriveOutTheHonest(t *testing.T) {
	const size, honest = 1000, 500
	p := mustLoad(t, module(`allow if input.attributes.request.http.path != "/no"`), Options{CachedVerdicts: size})
	ask := func(path string) { allowed(t, p, get(path), goodFacts()) }
	for range 20 {
		for i := range honest {
			ask(fmt.Sprint("/honest/", i))
		}
	}
	hits, asked := int64(0), int64(0)
	for i := range 50_000 {
		ask(fmt.Sprint("/flood/", i))
		if i%10 == 0 {
			before := stats(t, p).Hits
			ask(fmt.Sprint("/honest/", i/10%honest))
			hits, asked = hits+stats(t, p).Hits-before, asked+1
		}
	}
	share := float64(hits) / float64(asked)
	t.Logf("%.1f %% of the honest requests were remembered during the flood", 100*share)
	if share < 0.25 { // a memo that keeps what was asked last would remember none
		t.Errorf("%.1f %% of the honest requests were remembered during the flood", 100*share)
	}
	if s := stats(t, p); s.Size > 2*size { // it makes room a little later than it has to
		t.Errorf("%+v", s)
	}
}

// draw makes requests and facts of few values, so that many are alike.
type draw struct{ *rand.Rand }

func pickOne[T any](d draw, from ...T) T { return from[d.IntN(len(from))] }

func (d draw) request() *authz.Request {
	r := get(pickOne(d, "/", "/a", "/a/b", "/v1/render", "/public/x", "/v1/reports/7", "/v1//reports"))
	r.HTTP.Method = pickOne(d, "GET", "POST")
	r.HTTP.Host = pickOne(d, "", "api.example.com", "API.example.com:80")
	r.HTTP.ID, r.HTTP.RawHeaders = fmt.Sprint(d.IntN(1000)), d.IntN(2) == 0
	for range d.IntN(3) {
		r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: pickOne(d, "x-a", "x-b"), Value: pickOne(d, "", "1", "2")})
	}
	if !r.HTTP.RawHeaders && len(r.HTTP.Headers) == 2 && r.HTTP.Headers[0].Name == r.HTTP.Headers[1].Name {
		r.HTTP.Headers = r.HTTP.Headers[:1] // no name comes twice in a map
	}
	if d.IntN(3) == 0 {
		r.HTTP.Params = map[string][]string{pickOne(d, "q", "p"): {pickOne(d, "1", "2")}, "r": {"x", "y"}}
	}
	if d.IntN(3) == 0 {
		r.ContextExtensions = map[string]string{"a": pickOne(d, "1", "2"), "tollkeeper.environment": pickOne(d, "live", "test")}
	}
	r.Body = authz.Body{Parsed: pickOne[any](d, nil, "x", 1.5, []any{"a", 1}, map[string]any{"a": map[string]any{"b": pickOne(d, 1, 2)}}), Skipped: d.IntN(4) == 0}
	return r
}

func (d draw) facts() *authz.Facts {
	f := &authz.Facts{
		Key: authz.KeyFact{
			Status: pickOne(d, authz.KeyActive, authz.KeyActive, authz.KeyMissing, authz.KeyExpired), ID: fmt.Sprint(d.IntN(100)),
			Account: pickOne(d, "acme", "other"), Plan: pickOne(d, "free", "pro", "nobody's"), Environment: pickOne(d, "live", "test"),
			Scopes: pickOne(d, nil, []string{"reports:read"}, []string{"reports:read", "reports:write"}),
			Meta:   pickOne(d, nil, map[string]any{"role": "intern"}, map[string]any{"subscription_ends": "2001-01-01T00:00:00Z", "n": 1}),
		},
		Account:    authz.AccountFact{ID: "acme", Plan: pickOne(d, "free", "payg"), Status: pickOne(d, authz.AccountActive, authz.AccountActive, authz.AccountOverdue, authz.AccountUnknown)},
		Token:      authz.TokenFact{Status: pickOne(d, authz.TokenMissing, authz.TokenMissing, authz.TokenValid, authz.TokenExpired)},
		Revocation: authz.RevocationFact{Stale: d.IntN(20) == 0},
	}
	if f.Token.Status == authz.TokenValid {
		f.Token.Issuer, f.Token.Account = "i", pickOne(d, "", "acme", "other")
		f.Token.Scopes, f.Token.Claims = pickOne(d, nil, []string{"reports:read"}), map[string]any{"sub": pickOne(d, "alice", "bob")}
	}
	for _, name := range []string{"rate", "daily", "monthly", "credits"} {
		if d.IntN(5) > 0 {
			f.Quota = append(f.Quota, authz.QuotaFact{
				Name: name, State: pickOne(d, authz.QuotaOK, authz.QuotaOK, authz.QuotaOK, authz.QuotaExhausted, authz.QuotaInsufficient),
				Limit: 10, Remaining: int64(d.IntN(10)),
			})
		}
	}
	return f
}

// nasty are texts that could be taken for the marks between others.
func (d draw) nasty() string {
	return pickOne(d, "", "\"", ":", "{}", "\x01a", ":\x06status", "a\x00", "}:", "\"\x01a:\x01b")
}

// nudge changes one thing, often a small one.
func (d draw) nudge(r *authz.Request, f *authz.Facts) {
	state := pickOne(d, authz.QuotaOK, authz.QuotaExhausted, authz.QuotaInsufficient, authz.QuotaUnavailable)
	switch d.IntN(14) {
	case 0:
		f.Quota = append(f.Quota, authz.QuotaFact{Name: pickOne(d, "x", "calls", d.nasty()), State: state})
	case 1, 2:
		if len(f.Quota) > 0 {
			f.Quota[d.IntN(len(f.Quota))].State = state
		}
	case 3:
		f.Key.Status = pickOne(d, authz.KeyActive, authz.KeyExpired, authz.KeyMissing, authz.KeyRevoked)
	case 4:
		f.Key.Plan = pickOne(d, "free", "pro", d.nasty())
	case 5:
		f.Key.Scopes = append(f.Key.Scopes[:len(f.Key.Scopes):len(f.Key.Scopes)], d.nasty())
	case 6:
		f.Key.Meta = map[string]any{"role": pickOne[any](d, "intern", d.nasty(), 1, nil, true), d.nasty(): "x"}
	case 7:
		f.Account.Status = pickOne(d, authz.AccountActive, authz.AccountSuspended, authz.AccountUnknown)
	case 8:
		f.Token = authz.TokenFact{Status: pickOne(d, authz.TokenValid, authz.TokenExpired), Issuer: "i", Claims: map[string]any{"sub": pickOne(d, "alice", d.nasty())}}
	case 9:
		r.HTTP.Method = pickOne(d, "GET", "POST", d.nasty())
	case 10:
		r.HTTP.Segments = append(r.HTTP.Segments[:len(r.HTTP.Segments):len(r.HTTP.Segments)], d.nasty())
	case 11:
		r.HTTP.Headers = append(r.HTTP.Headers[:0:0], authz.Header{Name: "x-a", Value: pickOne(d, "1", "2", d.nasty())})
	case 12:
		r.ContextExtensions = map[string]string{"a": d.nasty(), d.nasty(): "b"}
	case 13:
		r.Body.Parsed = pickOne[any](d, d.nasty(), []any{d.nasty(), d.nasty()}, map[string]any{"a": map[string]any{"b": d.nasty()}}, 1, "1")
	}
}

// TestOneKeyIsOneInput holds that two inputs have one key only if they are one, and the same one always has the same.
func TestOneKeyIsOneInput(t *testing.T) {
	d := draw{rand.New(rand.NewPCG(5, 6))}
	same := 0
	for range 20_000 {
		r, f := d.request(), d.facts()
		document := func() (string, string) {
			var k key
			if err := keyOf(&k, everything(), r, f); err != nil || k.over {
				t.Fatal(err)
			}
			v, err := inputOf(everything(), r, f)
			if err != nil {
				t.Fatal(err)
			}
			return string(k.buf), v.String()
		}
		key1, doc1 := document()
		if again, _ := document(); again != key1 {
			t.Fatalf("one input has the keys %q and %q", key1, again)
		}
		d.nudge(r, f)
		key2, doc2 := document()
		if key1 == key2 {
			same++
			if doc1 != doc2 {
				t.Fatalf("one key for\n%s\n%s", doc1, doc2)
			}
		}
	}
	if same == 0 || same > 10_000 {
		t.Errorf("%d of 20000 changes changed nothing: the test is of no use", same)
	}
}

// TestTextsCannotPassForMarks has texts that would be taken for several others if it did not say how long they are.
func TestTextsCannotPassForMarks(t *testing.T) {
	keyFor := func(extensions map[string]string) string {
		var k key
		if err := keyOf(&k, everything(), &authz.Request{ContextExtensions: extensions}, nil); err != nil {
			t.Fatal(err)
		}
		return string(k.buf)
	}
	two := keyFor(map[string]string{"a": "x", "b": "y"})
	for _, one := range []string{`x:a"y`, "x:\x01a\"\x01y", `x":a"y`} {
		if keyFor(map[string]string{"b": one}) == two {
			t.Errorf("%q passes for two", one)
		}
	}
}

// sameWithAndWithout asks two policies that differ only in the memo about one thing, and compares everything they say.
func sameWithAndWithout(t *testing.T, with, without *Policy, r *authz.Request, f *authz.Facts) {
	t.Helper()
	got, gotErr := with.Decide(t.Context(), r, f, nil)
	want, wantErr := without.Decide(t.Context(), r, f, nil)
	if (gotErr == nil) != (wantErr == nil) || !reflect.DeepEqual(tidy(got), tidy(want)) {
		t.Fatalf("with the memo    %+v, %v\nwithout the memo %+v, %v\nfor %+v\n%+v", got, gotErr, want, wantErr, r.HTTP, f)
	}
}

// tidy makes empty lists like those that are not there.
func tidy(v authz.Verdict) authz.Verdict {
	if len(v.Headers) == 0 {
		v.Headers = nil
	}
	return v
}

// TestMemoOfTheShippedPolicies holds that the memo changes nothing, and that it is of use.
func TestMemoOfTheShippedPolicies(t *testing.T) {
	with := mustLoad(t, bundle.FS(policies.Files), Options{CachedVerdicts: 500})
	without := mustLoad(t, bundle.FS(policies.Files), Options{})
	d := draw{rand.New(rand.NewPCG(1, 2))}
	for range 1000 {
		r, f := d.request(), d.facts()
		sameWithAndWithout(t, with, without, r, f)
		d.nudge(r, f)
		sameWithAndWithout(t, with, without, r, f)
	}
	requests, facts := make([]*authz.Request, 20), make([]*authz.Facts, 20)
	for i := range requests {
		requests[i], facts[i] = d.request(), d.facts()
	}
	for range 2000 {
		sameWithAndWithout(t, with, without, pickOne(d, requests...), pickOne(d, facts...))
	}
	s := stats(t, with)
	if s.Hits == 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("%+v; %s", s, with.Caching())
}

// condition is a random condition on the input.
func (d draw) condition(depth int) string {
	ref := pickOne(d,
		"input.key.status", "input.key.plan", "input.key.id", "input.account.status", "input.token.claims.sub", "input.parsed_path[0]",
		"input.parsed_path[_]", "input.quota[_].state", "input.quota.daily.remaining", `input.attributes.request.http.headers["x-a"]`,
		"input.attributes.request.http.method", `input.attributes.contextExtensions.a`, "input.key.meta.role", "input.parsed_body.a.b",
		"input.parsed_query.q[0]", "input.quota[input.key.plan].state", "input[data.word].status", "count(input.key.scopes)", "input.parsed_body",
		"count(input.attributes.request.http.headers)", "input.attributes.request.http.headerMap.headers[0].key", "input.truncated_body",
	)
	value := pickOne(d, `"active"`, `"ok"`, `"free"`, `"alice"`, `"1"`, `"GET"`, "1", "5", "null", `"a"`, `"intern"`, `"exhausted"`, `"expired"`, "true", "input.account.plan")
	switch c := ref + pickOne(d, " == ", " != ", " > ") + value; {
	case depth > 0 && d.IntN(3) == 0:
		return "count([x | x := 1; " + d.condition(depth-1) + "]) > 0"
	case d.IntN(5) == 0:
		return "not p" + fmt.Sprint(d.IntN(2))
	case d.IntN(8) == 0:
		return "time.now_ns() > 0"
	default:
		return c
	}
}

// random is a random policy.
func (d draw) random() bundle.Source {
	var b strings.Builder
	b.WriteString("default allow := false\n")
	rule := func(head string) {
		b.WriteString(head + " if {\n")
		for range 1 + d.IntN(3) {
			b.WriteString("\t" + d.condition(1) + "\n")
		}
		b.WriteString("}\n")
	}
	for range 1 + d.IntN(3) {
		rule("allow")
	}
	for i := range 2 {
		b.WriteString(strings.ReplaceAll(fmt.Sprintf("p%d if {\n\t%s\n}\n", i, d.plain()), "not p", "1 == "))
	}
	return files("p.rego", "package envoy.authz\n"+b.String(), "d.json", `{"word": "key"}`)
}

// plain is a condition without a negation, so that no rule depends on itself.
func (d draw) plain() string {
	for {
		if c := d.condition(0); !strings.HasPrefix(c, "not ") {
			return c
		}
	}
}

// FuzzMemo holds for random policies that the memo changes nothing.
func FuzzMemo(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		d := draw{rand.New(rand.NewPCG(seed, 3))}
		src := d.random()
		with, err := Load(t.Context(), src, Options{CachedVerdicts: 100})
		if err != nil {
			return // types that can never be equal
		}
		without, err := Load(t.Context(), src, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			r, f := d.request(), d.facts()
			for range 4 {
				sameWithAndWithout(t, with, without, r, f)
				d.nudge(r, f)
			}
		}
	})
}

func BenchmarkMemo(b *testing.B) {
	for _, size := range []int{0, 1000} {
		p := mustLoad(b, bundle.FS(policies.Files), Options{CachedVerdicts: size})
		r, f := get("/v1/things"), goodFacts()
		f.Key.Plan, f.Key.Environment, f.Account.Status = "free", "live", authz.AccountActive
		f.Quota = []authz.QuotaFact{{Name: "rate", State: authz.QuotaOK}, {Name: "daily", State: authz.QuotaOK}}
		b.Run(fmt.Sprintf("shipped/memo=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, err := p.Decide(b.Context(), r, f, nil); err != nil || !v.Allowed {
					b.Fatal(v, err)
				}
			}
		})
	}
}

// TestMemo_KeepsNoRequestInMemory floods the memo with verdicts that hold small parts of messages of a megabyte, in every
// field in which a verdict can hold a text, and then with verdicts that are as large as is remembered.
func TestMemo_KeepsNoRequestInMemory(t *testing.T) {
	p := mustLoad(t, module(`id := input.attributes.request.http.path

part(n) := v if { v := input.attributes.request.http.headers[n] }

allow := {
	"allowed": input.key.status == "active",
	"headers": {part("name"): part("value")}, "response_headers_to_add": {part("name"): part("value")},
	"request_headers_to_remove": [part("name")], "query_parameters_to_set": {part("name"): part("value")},
	"query_parameters_to_remove": [part("name")], "body": part("value"), "detail": part("value"), "reason": part("reason"),
	"dynamic_metadata": {part("name"): [part("value"), {part("value"): to_number(part("number"))}]},
	"charge": {part("name"): 1}, "id": id,
}`), Options{CachedVerdicts: 20_000})
	flood := func(n, size int, allow bool) {
		for i := range n {
			message := fmt.Sprintf("x-%07d,v-%07d,r_%07d,%07d,", i, i, i, i+1e6) + strings.Repeat("m", 1<<20)
			parts := strings.SplitN(message, ",", 5)
			r, f := get("/"), goodFacts()
			if !allow {
				f.Key.Status = authz.KeyRevoked
			}
			r.HTTP.Path = parts[3]
			value := parts[1]
			if size > 0 {
				value = parts[4][:size] + value
			}
			r.HTTP.Headers = authz.Headers{{Name: "name", Value: parts[0]}, {Name: "value", Value: value}, {Name: "reason", Value: parts[2]}, {Name: "number", Value: parts[3]}}
			mustDecide(t, p, r, f)
		}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for _, allow := range []bool{true, false} {
		flood(100, 0, allow)
	}
	if s, grown := stats(t, p), heap()-before; s.Size < 150 || grown > 16<<20 {
		t.Errorf("%d verdicts on messages of 1 MiB keep %d KiB", s.Size, grown>>10)
	}
	runtime.KeepAlive(p)
}

// TestMemo_IsBoundedInBytes floods it with verdicts that hold what callers send as often as they like.
func TestMemo_IsBoundedInBytes(t *testing.T) {
	p := mustLoad(t, module(`allow := {"allowed": true, "dynamic_metadata": {sprintf("x-%d", [n]): input.attributes.request.http.path | some n in numbers.range(1, 50)}}`),
		Options{CachedVerdicts: 20_000})
	for i := range 3000 {
		mustDecide(t, p, get("/"+strings.Repeat("p", 900)+fmt.Sprint(i)), goodFacts())
	}
	p.cache.verdicts.CleanUp()
	total := 0
	for _, v := range p.cache.verdicts.All() {
		total += v.size
	}
	if total > VerdictCacheBytes || total < VerdictCacheBytes/2 {
		t.Errorf("%d verdicts take %d bytes, want up to %d", stats(t, p).Size, total, VerdictCacheBytes)
	}
	big := mustLoad(t, module(`allow := {"allowed": true, "dynamic_metadata": {sprintf("x-%d", [n]): input.attributes.request.http.path | some n in numbers.range(1, 100)}}`),
		Options{CachedVerdicts: 20_000})
	mustDecide(t, big, get("/"+strings.Repeat("p", 1000)), goodFacts())
	if s := stats(t, big); s.Size != 0 || s.Bypasses != 1 {
		t.Errorf("a verdict of more than %d bytes: %+v", maxVerdict, s)
	}
}

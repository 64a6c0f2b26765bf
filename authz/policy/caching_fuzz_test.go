package policy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// sameWithAndWithout asks two policies that differ only in the cache, and compares the verdicts.
func sameWithAndWithout(t *testing.T, with, without *Policy, r *authz.Request, f *authz.Facts) {
	t.Helper()
	got, gotErr := with.Decide(t.Context(), r, f, nil)
	want, wantErr := without.Decide(t.Context(), r, f, nil)
	if (gotErr == nil) != (wantErr == nil) || !reflect.DeepEqual(tidy(got), tidy(want)) {
		t.Fatalf("with the cache    %+v, %v\nwithout the cache %+v, %v\nfor %+v\n%+v", got, gotErr, want, wantErr, r.HTTP, f)
	}
}

// tidy turns empty lists into nil.
func tidy(v authz.Verdict) authz.Verdict {
	if len(v.Headers) == 0 {
		v.Headers = nil
	}
	return v
}

// TestVerdictCache_ChangesNoShippedVerdict also checks that the cache has hits.
func TestVerdictCache_ChangesNoShippedVerdict(t *testing.T) {
	with := mustLoad(t, bundle.FS(policies.Files), Options{CachedVerdicts: 500})
	without := mustLoad(t, bundle.FS(policies.Files), Options{})
	d := inputtest.New(1)
	for range 1000 {
		r, f := d.Request(), d.Facts()
		sameWithAndWithout(t, with, without, r, f)
		d.Nudge(r, f)
		sameWithAndWithout(t, with, without, r, f)
	}
	requests, facts := make([]*authz.Request, 20), make([]*authz.Facts, 20)
	for i := range requests {
		requests[i], facts[i] = d.Request(), d.Facts()
	}
	for range 2000 {
		sameWithAndWithout(t, with, without, inputtest.Pick(d, requests...), inputtest.Pick(d, facts...))
	}
	s := stats(t, with)
	if s.Hits == 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("%+v; %s", s, with.Caching())
}

// condition makes a random condition on the input.
func condition(d inputtest.Draw, depth int) string {
	ref := inputtest.Pick(d,
		"input.key.status", "input.key.plan", "input.key.id", "input.account.status", "input.token.claims.sub", "input.parsed_path[0]",
		"input.parsed_path[_]", "input.quota[_].state", "input.quota.daily.remaining", `input.attributes.request.http.headers["x-a"]`,
		"input.attributes.request.http.method", `input.attributes.contextExtensions.a`, "input.key.meta.role", "input.parsed_body.a.b",
		"input.parsed_query.q[0]", "input.quota[input.key.plan].state", "input[data.word].status", "count(input.key.scopes)", "input.parsed_body",
		"count(input.attributes.request.http.headers)", "input.attributes.request.http.headerMap.headers[0].key", "input.truncated_body",
		"input.route", "input.route.state", "input.route.name", "input.route.public", "input.route.scopes[_]", "input.route.charge.credits",
		"input.route.params.id", "input.route.params[_]", "count(input.route.params)", "input.path.state", "input.path.fault", "input.path",
	)
	value := inputtest.Pick(d, `"active"`, `"ok"`, `"free"`, `"alice"`, `"1"`, `"GET"`, "1", "5", "null", `"a"`, `"intern"`, `"exhausted"`, `"expired"`, `"none"`, `"all"`, `"malformed"`, "true", "input.account.plan")
	switch c := ref + inputtest.Pick(d, " == ", " != ", " > ") + value; {
	case depth > 0 && d.IntN(3) == 0:
		return "count([x | x := 1; " + condition(d, depth-1) + "]) > 0"
	case d.IntN(5) == 0:
		return "not p" + fmt.Sprint(d.IntN(2))
	case d.IntN(8) == 0:
		return "time.now_ns() > 0"
	default:
		return c
	}
}

// randomPolicy makes a random policy.
func randomPolicy(d inputtest.Draw) bundle.Source {
	var b strings.Builder
	b.WriteString("default allow := false\n")
	rule := func(head string) {
		b.WriteString(head + " if {\n")
		for range 1 + d.IntN(3) {
			b.WriteString("\t" + condition(d, 1) + "\n")
		}
		b.WriteString("}\n")
	}
	for range 1 + d.IntN(3) {
		rule("allow")
	}
	for i := range 2 {
		b.WriteString(strings.ReplaceAll(fmt.Sprintf("p%d if {\n\t%s\n}\n", i, positive(d)), "not p", "1 == "))
	}
	return files("p.rego", "package envoy.authz\n"+b.String(), "d.json", `{"word": "key"}`)
}

// positive is a condition without a negation, so that no rule depends on itself.
func positive(d inputtest.Draw) string {
	for {
		if c := condition(d, 0); !strings.HasPrefix(c, "not ") {
			return c
		}
	}
}

// FuzzVerdictCache checks that the cache changes no verdict of a random policy, and that OPA's evaluator gives the same verdicts.
func FuzzVerdictCache(f *testing.F) {
	for seed := range uint64(100) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		d := inputtest.New(seed)
		src := randomPolicy(d)
		with, err := Load(t.Context(), src, Options{CachedVerdicts: 100, Recheck: 1, Rechecked: wantSame(t)})
		if err != nil {
			return // types that can never be equal
		}
		without, err := Load(t.Context(), src, Options{})
		if err != nil {
			t.Fatal(err)
		}
		interpreted, err := Load(t.Context(), src, Options{Interpreted: true})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			r, f := d.Request(), d.Facts()
			for range 4 {
				sameWithAndWithout(t, with, without, r, f)
				sameWithAndWithout(t, with, interpreted, r, f)
				d.Nudge(r, f)
			}
		}
	})
}

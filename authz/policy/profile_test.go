package policy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// profiledRules call a rule twice, and two builtin functions.
const profiledRules = `default allow := false

allow if {
	open
	not closed
}

open if startswith(input.attributes.request.http.path, "/open")

closed if {
	not open
	count(input.parsed_path) > 1
}
`

// takeTime lets profiles take long, so that a busy machine does not end them early.
func takeTime(t *testing.T) {
	before := profiledFor
	profiledFor = time.Minute
	t.Cleanup(func() { profiledFor = before })
}

// called finds what a profile says about a name.
func called(t *testing.T, list []authz.ProfiledCalls, name string) authz.ProfiledCalls {
	t.Helper()
	for _, c := range list {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no %q in %+v", name, list)
	return authz.ProfiledCalls{}
}

func TestProfile_OfAProgram(t *testing.T) {
	takeTime(t)
	p := mustLoad(t, module(profiledRules), Options{})
	got := p.Profile(t.Context(), get("/open/x"), goodFacts())
	if got.Once != "" || got.Error != "" || got.Evaluations != profiledRounds*profiledTimes ||
		got.Time <= got.Input || got.Input <= 0 || len(got.Lines) > 0 {
		t.Errorf("%+v", got)
	}
	for name, want := range map[string]string{
		"data.envoy.authz.allow": "p.rego:3 1 1", "data.envoy.authz.open": "p.rego:10 2 1", "data.envoy.authz.closed": "p.rego:12 1 1",
	} {
		c := called(t, got.Rules, name)
		if text := fmt.Sprintf("%s:%d %d %d", c.File, c.Line, c.Calls, c.Evaluated); text != want || c.Own > c.Total || c.Total <= 0 {
			t.Errorf("%+v, want %s", c, want)
		}
	}
	if c := called(t, got.Functions, "startswith"); c.Calls != 1 || len(got.Functions) != 1 { // not open fails before count
		t.Errorf("%+v", got.Functions)
	}
	wantShares(t, got)
}

// wantShares wants shares that agree with the times, and are no more than the whole.
func wantShares(t *testing.T, p *authz.Profile) {
	t.Helper()
	sum := 0.0
	for _, list := range [][]authz.ProfiledCalls{p.Rules, p.Functions, p.Lines} {
		for i, c := range list {
			sum += c.Share
			if c.Own > 0 && c.Share <= 0 || i > 0 && c.Own > list[i-1].Own {
				t.Errorf("%+v after %+v", c, list[max(i-1, 0)])
			}
		}
	}
	if sum <= 0 || sum > 1.0001 {
		t.Errorf("the shares are %v", sum)
	}
}

func TestProfile_OfOPAsEvaluator(t *testing.T) {
	takeTime(t)
	p := mustLoad(t, module(profiledRules), Options{Interpreted: true})
	got := p.Profile(t.Context(), get("/open/x"), goodFacts())
	if got.Once != "" || got.Error != "" || len(got.Rules)+len(got.Functions) > 0 || got.Time <= got.Input {
		t.Errorf("%+v", got)
	}
	c := called(t, got.Lines, `startswith(input.attributes.request.http.path, "/open")`)
	if c.File != "p.rego" || c.Line != 10 || c.Calls != 1 || c.Own <= 0 || c.Total != 0 {
		t.Errorf("%+v", c)
	}
	if c := called(t, got.Lines, "not closed"); c.Line != 7 || c.Calls != 1 {
		t.Errorf("%+v", c)
	}
	wantShares(t, got)
}

// TestLines_Pause: the time between two evaluations is that of no line.
func TestLines_Pause(t *testing.T) {
	l, x := newLineTimer(), ast.MustParseExpr("input.x")
	x.Location = ast.NewLocation([]byte("input.x"), "p.rego", 7, 1)
	for range 2 {
		l.TraceEvent(topdown.Event{Op: topdown.EvalOp, Node: x})
		l.pause()
		for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
			continue
		}
	}
	if c := l.calls(2); len(c) != 1 || c[0].Calls != 1 || c[0].Own > 50*time.Millisecond {
		t.Errorf("%+v", c)
	}
	p := mustLoad(t, module(profiledRules), Options{Interpreted: true})
	m := newMeasure(p.now.Load())
	m.decide(t.Context(), &evaluation{Policy: p, decider: p.now.Load(), request: get("/"), facts: goodFacts(), measure: m})
	if len(m.lines.expressions) == 0 || m.lines.last != nil {
		t.Errorf("after an evaluation: %+v", m.lines)
	}
}

// TestProfile_ShippedPolicies: the rows tell where the time goes.
func TestProfile_ShippedPolicies(t *testing.T) {
	takeTime(t)
	f := goodFacts()
	f.Path.State, f.Route = authz.PathOK, authz.RouteFact{State: authz.RouteNone}
	for _, interpreted := range []bool{false, true} {
		p := mustLoad(t, bundle.FS(policies.Files), Options{Interpreted: interpreted, CachedVerdicts: 10})
		got := p.Profile(t.Context(), get("/v1/reports/7"), f)
		if got.Error != "" || len(got.Rules) < 10 && len(got.Lines) < 10 {
			t.Errorf("%+v", got)
		}
		wantShares(t, got)
	}
}

// TestProfile_CallsOnce counts the requests that a policy sends.
func TestProfile_CallsOnce(t *testing.T) {
	takeTime(t)
	const send = `http.send({"method": "GET", "url": %q})`
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n.Add(1) }))
	defer s.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n.Add(1)
		panic(http.ErrAbortHandler) // no answer
	}))
	defer broken.Close()
	for name, c := range map[string]struct {
		url, rules string
		most       int32 // requests that one evaluation sends
	}{
		"answer":       {s.URL, "allow := " + send + ".status_code == 200", 1},
		"no answer":    {broken.URL, "default allow := false\nallow if " + send + ".status_code == 200", 1},
		"disputed":     {s.URL, "allow := q[\"a\"] if " + send + ".status_code == 200\nq[k] := v if some k, v in {\"a\": true, \"b\": 1}\nq[k] := v if some k, v in {\"b\": 2}", 2},
		"other clocks": {s.URL, "allow := " + send + ".status_code == 200 if time.now_ns() > 0", 1},
	} {
		for _, interpreted := range []bool{false, true} {
			n.Store(0)
			p := mustLoad(t, module(fmt.Sprintf(c.rules, c.url)), Options{Interpreted: interpreted, CachedVerdicts: 10})
			got := p.Profile(t.Context(), get("/"), goodFacts())
			if n.Load() < 1 || n.Load() > c.most || got.Evaluations != 1 || !strings.Contains(got.Once, "http.send") || got.Time <= 0 ||
				len(got.Rules)+len(got.Lines) == 0 {
				t.Errorf("%s, interpreted %t: %d requests, %+v", name, interpreted, n.Load(), got)
			}
		}
	}
}

// TestProfile_CallsLater has a policy that sends a request in some evaluations only.
func TestProfile_CallsLater(t *testing.T) {
	takeTime(t)
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n.Add(1) }))
	defer s.Close()
	var evaluations, when int
	sometimes := builtin{
		&rego.Function{Name: "own.sometimes", Decl: types.NewFunction(types.Args(types.A), types.B)},
		func(rego.BuiltinContext, []*ast.Term) (*ast.Term, error) {
			evaluations++
			return ast.BooleanTerm(evaluations == when), nil
		},
	}
	p := mustLoad(t, module(fmt.Sprintf(`default allow := false
allow if { own.sometimes(1); http.send({"method": "GET", "url": %q}).status_code == 200 }`, s.URL)), Options{builtins: []builtin{sometimes}})
	for _, when = range []int{2, 3, 5} {
		evaluations = 0
		n.Store(0)
		got := p.Profile(t.Context(), get("/"), goodFacts())
		if n.Load() != 1 || evaluations != when|1 /* it ends after a pair */ || got.Evaluations != evaluations/2 {
			t.Errorf("in evaluation %d of %d: %d requests, %+v", when, evaluations, n.Load(), got)
		}
	}
}

// TestProfile_NobodyNotices: what others can see of a policy is as it was.
func TestProfile_NobodyNotices(t *testing.T) {
	takeTime(t)
	p := mustLoad(t, module("default allow := false\nallow if { print(\"here\"); input.key.status == \"active\" }"), Options{
		CachedVerdicts: 10, Recheck: 1,
		Rechecked: func(r RecheckResult, _ *Difference) { t.Errorf("repeated: %s", r) },
		Print:     func(string, int, string) { t.Error("printed") },
	})
	before := stats(t, p)
	got := p.Profile(t.Context(), get("/"), goodFacts())
	if after := stats(t, p); after != before || got.Error != "" || got.Evaluations < 1 {
		t.Errorf("%+v, before %+v; %+v", after, before, got)
	}
	if want := "The verdict is not remembered, because rules call print (p.rego:4)."; len(got.Hints) != 1 || got.Hints[0] != want {
		t.Errorf("%q, want %q", got.Hints, want)
	}
}

// TestProfile_Failures has policies that give no verdict.
func TestProfile_Failures(t *testing.T) {
	takeTime(t)
	panics := builtin{
		&rego.Function{Name: "own.panics", Decl: types.NewFunction(types.Args(types.A), types.B)},
		func(rego.BuiltinContext, []*ast.Term) (*ast.Term, error) { panic("broken") },
	}
	for name, c := range map[string]struct{ rules, want, once string }{
		"conflict":   {"allow := q\nq := 1 if input.key\nq := 2 if input.key.status", "produced conflicting values", ""},
		"undefined":  {"allow if input.nothing", "undefined", ""},
		"no verdict": {"allow := 7", "must be a boolean or an object", ""},
		"panic":      {"allow := own.panics(1)", "panic", "it panicked"},
	} {
		for _, interpreted := range []bool{false, true} {
			p := mustLoad(t, module(c.rules), Options{
				Interpreted: interpreted, builtins: []builtin{panics}, Recheck: 1,
				Rechecked: func(RecheckResult, *Difference) { t.Errorf("%s: repeated", name) },
			})
			got := p.Profile(t.Context(), get("/"), goodFacts())
			if !strings.Contains(got.Error, c.want) || got.Once != c.once || got.Evaluations < 1 || got.Time <= 0 || !p.Evaluator().Compiled() != interpreted {
				t.Errorf("%s, interpreted %t: %+v", name, interpreted, got)
			}
		}
	}
}

// TestProfile_Deadline has a policy that is far too slow. The profile tells where the time went.
func TestProfile_Deadline(t *testing.T) {
	takeTime(t)
	const slow = "default allow := false\nallow if { some x in q; x < 0 }\nq := numbers.range(1, 3000)\nallow if { some x in q; some y in q; some z in q; x + y + z == 0 }"
	for _, interpreted := range []bool{false, true} {
		p := mustLoad(t, module(slow), Options{Interpreted: interpreted})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		got := p.Profile(ctx, get("/"), goodFacts())
		cancel()
		if !strings.Contains(got.Error, context.DeadlineExceeded.Error()) || got.Once != "it did not end in time" || got.Evaluations != 1 ||
			len(got.Rules)+len(got.Lines) == 0 {
			t.Errorf("interpreted %t: %+v", interpreted, got)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := mustLoad(t, module(slow), Options{}).Profile(ended, get("/"), goodFacts()); got.Error == "" || got.Once == "" {
		t.Errorf("%+v", got)
	}
}

func TestProfile_Hints(t *testing.T) {
	takeTime(t)
	const remembered = "The verdict is remembered for requests that agree in all that rules read"
	const since = ". Since the policies were loaded, that saved 0 of 0 evaluations."
	for name, c := range map[string]struct {
		rules string
		want  []string
	}{
		"remembered": {"default allow := false\nallow if input.key.status == \"active\"", []string{remembered + since}},
		"differs often": {"default allow := false\nallow if { input.attributes.request.http.path == \"/\"; input.parsed_body.x }",
			[]string{remembered + ", such as input.attributes.request.http.path, input.parsed_body" + since}},
		"clock": {"default allow := false\nallow if { input.key.status == \"active\"\n  time.now_ns() > 0 }\nq if rand.intn(\"x\", 2) == 1",
			[]string{"The verdict is not remembered, because rules call time.now_ns (p.rego:5)."}},
		"clock that nobody reads": {"default allow := false\nallow if { input.nothing\n  time.now_ns() > 0 }", []string{remembered + since}},
		"clock of tokens": {"default allow := false\nallow if io.jwt.decode_verify(input.nothing, {})[0]",
			[]string{"The verdict is not remembered, because rules call io.jwt.decode_verify (p.rego:4)."}},
		"whole input": {"default allow := false\nallow if count(input) > 100\nallow if {\n  some x\n  input[x] == 7 }",
			[]string{"The whole input is built as a document, because rules read it as one: input (p.rego:4), input[…] (p.rego:7).", remembered + ", which is the whole input" + since}},
		"replaced": {"default allow := false\nallow if {\n  q with input.key.status as \"active\" }\nq if input.key.status == \"active\"",
			[]string{"The parts of the input that rules read are built as a document, because a rule replaces the input: with input.key.status (p.rego:5).", remembered + since}},
		"replaced by another": {"default allow := false\nallow if q with input as {\"key\": 1}\nq if input.key == 2",
			[]string{"The whole input is built as a document, because rules read it as one: with input (p.rego:4).", remembered + ", which is the whole input" + since}},
		"failure": {"default allow := false\nallow if to_number(input.attributes.request.http.method) == 1",
			[]string{"The verdict is not remembered, because a function failed: p.rego:4: to_number: "}},
		"disputed": {"allow := q[\"a\"]\nq[k] := v if some k, v in {\"a\": true, \"b\": 1}\nq[k] := v if some k, v in {\"b\": 2}",
			[]string{"The compiled program failed, and then OPA's evaluator decided, so the decision costs both: ", remembered + since}},
		"no verdict": {"allow if input.nothing", []string{"The verdict is not remembered, because there is none."}},
	} {
		p := mustLoad(t, module(c.rules), Options{CachedVerdicts: 10})
		got := p.Profile(t.Context(), get("/"), goodFacts())
		ok := len(got.Hints) == len(c.want)
		for i := range c.want {
			ok = ok && strings.HasPrefix(got.Hints[i], c.want[i]) && strings.HasSuffix(got.Hints[i], ".")
		}
		if !ok {
			t.Errorf("%s: %q\nwant %q", name, got.Hints, c.want)
		}
	}
	off := mustLoad(t, module("allow := true"), Options{}).Profile(t.Context(), get("/"), goodFacts())
	if want := "The verdict is not remembered, because the cache of verdicts is off."; len(off.Hints) != 1 || off.Hints[0] != want {
		t.Errorf("%q, want %q", off.Hints, want)
	}
	long := get("/" + strings.Repeat("x", 5000))
	much := mustLoad(t, module("default allow := false\nallow if input.attributes.request.http.path == \"\""), Options{CachedVerdicts: 10})
	if got := much.Profile(t.Context(), long, goodFacts()); !strings.HasSuffix(got.Hints[0], "is longer than 4096 bytes.") {
		t.Errorf("%q", got.Hints)
	}
}

// TestProfile_Slow has an evaluation that takes longer than a profile may.
func TestProfile_Slow(t *testing.T) {
	takeTime(t)
	profiledFor = 0
	if got := mustLoad(t, module("allow := true"), Options{}).Profile(t.Context(), get("/"), goodFacts()); got.Evaluations != 1 || got.Once != "it takes longer than 0s" {
		t.Errorf("%+v", got)
	}
}

// TestProfile_BesideDecisions profiles and decides at once. Run it with the race detector.
func TestProfile_BesideDecisions(t *testing.T) {
	for _, interpreted := range []bool{false, true} {
		p := mustLoad(t, bundle.FS(policies.Files), Options{Interpreted: interpreted, Recheck: 2, Rechecked: wantSame(t)})
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() { p.Profile(t.Context(), get("/v1/x"), goodFacts()) })
			group.Go(func() {
				for range 20 {
					p.Decide(t.Context(), get("/v1/x"), goodFacts(), nil)
				}
			})
		}
		group.Wait()
	}
}

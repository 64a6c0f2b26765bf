package policy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// log keeps what Options.Rechecked receives.
type log struct {
	mu      sync.Mutex
	results []RecheckResult
	found   []*Difference
}

func (l *log) rechecked(r RecheckResult, d *Difference) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.results = append(l.results, r)
	if d != nil {
		l.found = append(l.found, d)
	}
}

func (l *log) want(t *testing.T, results ...RecheckResult) {
	t.Helper()
	if !slices.Equal(l.results, results) {
		t.Errorf("rechecks gave %q, want %q", l.results, results)
	}
}

// misled loads rules and gives them the program of other rules.
func misled(t testing.TB, rules, wrong string, o Options) *Policy {
	t.Helper()
	p, other := mustLoad(t, module(rules), o), mustLoad(t, module(wrong), o).now.Load()
	if other.program == nil {
		t.Fatal(other.evaluator)
	}
	p.now.Store(&decider{program: other.program, slots: other.slots, cache: p.newCache()})
	return p
}

const (
	onlyActive = `default allow := {"allowed": false, "reason": "key_expired", "headers": {"x": "hidden"}}

allow := {"allowed": true, "headers": {"x": "hidden"}} if input.key.status == "active"`
	everybody = `default allow := {"allowed": true, "headers": {"x": "hidden"}}`
)

func expired() *authz.Facts {
	f := goodFacts()
	f.Key.Status = authz.KeyExpired
	return f
}

func TestRecheck_Difference(t *testing.T) {
	var l log
	p := misled(t, onlyActive, everybody, Options{CachedVerdicts: 10, Rechecked: l.rechecked})
	if !mustDecide(t, p, get("/"), expired()).Allowed { // the wrong verdict is cached now
		t.Fatal("the program is not wrong")
	}
	p.recheck = 1
	p.Decide(t.Context(), get("/"), goodFacts(), nil)
	l.want(t, Same)
	revoked := goodFacts()
	revoked.Key.Status = authz.KeyRevoked
	v, err := p.Decide(t.Context(), get("/"), revoked, nil)
	if wantEvalError(t, err, codeDiffers); v.Allowed || v.Headers != nil {
		t.Errorf("%+v", v)
	}
	for range 2 {
		if mustDecide(t, p, get("/"), expired()).Allowed || !mustDecide(t, p, get("/"), goodFacts()).Allowed || mustDecide(t, p, get("/"), revoked).Allowed {
			t.Error("the program still decides")
		}
	}
	l.want(t, Same, Different)
	want := Difference{Revision: p.Revision(), Query: p.Query(), Program: `{"allowed": true}`, OPA: `{"allowed": false, "reason": "key_expired"}`}
	if len(l.found) != 1 || *l.found[0] != want {
		t.Errorf("got %+v, want %+v", l.found[0], want)
	}
	if e := p.Evaluator(); e != distrusted || e.Name() != "opa" {
		t.Errorf("%+v", e)
	}
	if s := stats(t, p); s.Hits != 3 {
		t.Errorf("the cache is not used afterwards: %+v", s)
	}
}

func TestRecheck_DifferencesOfErrors(t *testing.T) {
	for name, c := range map[string]struct{ rules, wrong, program, opa string }{
		"undefined, not a value":    {"allow if input.nothing", "allow := true", "true", "error undefined: policy: data.envoy.authz.allow is undefined"},
		"a value, not undefined":    {"allow := true", "allow if input.nothing", "error undefined: policy: data.envoy.authz.allow is undefined", "true"},
		"a conflict, not a value":   {"allow if input.key\nallow := false if input.key", "allow := true", "true", "error eval_conflict_error: "},
		"another type":              {"allow := true", `allow := "true"`, "error invalid_decision: ", "true"},
		"a field that is not there": {`allow := {"allowed": true}`, `allow := {"allowed": true, "x": 1}`, `{"x": 1}`, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			var l log
			p := misled(t, c.rules, c.wrong, Options{Recheck: 1, Rechecked: l.rechecked})
			_, err := p.Decide(t.Context(), get("/"), goodFacts(), nil)
			wantEvalError(t, err, codeDiffers)
			if d := l.found[0]; !strings.HasPrefix(d.Program, c.program) || !strings.HasPrefix(d.OPA, c.opa) {
				t.Errorf("%q\nwant %q\n%q\nwant %q", d.Program, c.program, d.OPA, c.opa)
			}
		})
	}
}

// TestRecheck_DifferencesAtOnce has many requests that the program has decided when the first difference comes up.
func TestRecheck_DifferencesAtOnce(t *testing.T) {
	const n = 8
	var l log
	var decided sync.WaitGroup
	decided.Add(n)
	f := counted("f", func(_ rego.BuiltinContext, i int64) (bool, error) {
		if i < n {
			decided.Done()
			decided.Wait()
		}
		return i < n, nil
	})
	p := mustLoad(t, module("default allow := false\n\nallow if f(input.key)"), Options{CachedVerdicts: 10, Recheck: 1, Rechecked: l.rechecked, builtins: []builtin{f}})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			v, err := p.Decide(t.Context(), get("/"), goodFacts(), nil)
			if codeOf(err) != codeDiffers || v.Allowed {
				t.Errorf("%+v, %v", v, err)
			}
			if mustDecide(t, p, get("/"), goodFacts()).Allowed {
				t.Error("the program still decides")
			}
		})
	}
	wg.Wait()
	if len(l.found) != 1 || len(l.results) != n {
		t.Errorf("%d differences were reported, of %d", len(l.found), len(l.results))
	}
	if p.Distrust() || p.Evaluator() != distrusted {
		t.Errorf("%+v", p.Evaluator())
	}
}

// counted is a function of one argument that is given how often it was called before. OPA does not know that its result may change.
func counted(name string, f func(b rego.BuiltinContext, n int64) (bool, error)) builtin {
	var calls atomic.Int64
	return builtin{
		decl: &rego.Function{Name: name, Decl: types.NewFunction(types.Args(types.A), types.B)},
		impl: func(b rego.BuiltinContext, _ []*ast.Term) (*ast.Term, error) {
			v, err := f(b, calls.Add(1)-1)
			return ast.BooleanTerm(v), err
		},
	}
}

// TestRecheck_Unfinished has an evaluation that takes long only on OPA's evaluator, which comes second.
func TestRecheck_Unfinished(t *testing.T) {
	var l log
	slow := counted("f", func(b rego.BuiltinContext, n int64) (bool, error) {
		if n%2 == 1 {
			<-b.Context.Done()
		}
		return true, nil
	})
	p := mustLoad(t, module("allow if f(input.key)"), Options{Recheck: 1, Rechecked: l.rechecked, builtins: []builtin{slow}})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if v, err := p.Decide(ctx, get("/"), goodFacts(), nil); err != nil || !v.Allowed {
			t.Errorf("%+v, %v", v, err)
		}
		if took := time.Since(began); took != time.Second/2 {
			t.Errorf("the repetition took %v of a second", took)
		}
		l.want(t, Unfinished)
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if v, err := p.Decide(ctx, get("/"), goodFacts(), nil); !errors.Is(err, context.Canceled) || v.Allowed {
			t.Errorf("after the end: %+v, %v", v, err)
		}
	})
	if !p.Evaluator().Compiled() {
		t.Error("the program is not trusted any more")
	}
}

// TestRecheck_NoFalseDifferences has policies whose answer changes with each evaluation, and errors that only a program meets.
func TestRecheck_NoFalseDifferences(t *testing.T) {
	strict := true
	for name, c := range map[string]struct {
		rules  string
		strict *bool
	}{
		"clock":          {`allow := {"allowed": true, "headers": {"x": format_int(time.now_ns(), 10)}}`, nil},
		"random":         {`allow := {"allowed": true, "headers": {"x": format_int(rand.intn("a", 1000000000), 10)}}`, nil},
		"id":             {`allow := {"allowed": true, "headers": {"x": uuid.rfc4122("a")}}`, nil},
		"runtime":        {`allow := {"allowed": true, "dynamic_metadata": opa.runtime()}`, nil},
		"signature":      {`allow := {"allowed": true, "headers": {"x": io.jwt.encode_sign({"alg": "HS256"}, {"at": time.now_ns()}, {"kty": "oct", "k": "AQAB"})}}`, nil},
		"token":          {"default allow := false\nallow if io.jwt.decode_verify(input.key.id, {\"secret\": \"x\"})[0]", nil},
		"clock in loops": {`allow := {"allowed": true, "headers": {"x": [x | some i in [1, 2, 3]; x := format_int(time.now_ns() + i, 10)]}}`, nil},
		"clock behind an index": {"default allow := false\n" + strings.Repeat("allow if { time.now_ns() > 0; some s in input.key.scopes; s == \"a\" }\n", 4) +
			strings.Repeat("allow if { time.now_ns() > 0; some s in input.key.scopes; s == \"b\" }\n", 4), nil},
		"failure":        {strings.TrimPrefix(slack, "package envoy.authz\n"), nil},
		"strict failure": {strings.TrimPrefix(slack, "package envoy.authz\n"), &strict},
		"unknown host":   {"default allow := false\nallow if net.lookup_ip_addr(\"host.invalid\")", nil},
		"conflict":       {"allow if input.key\nallow := false if input.key", nil},
		"undefined":      {"allow if input.nothing", nil},
		"wrong type":     {`allow := {"allowed": "yes"}`, nil},
		"skipped failure": {`default allow := true
allow := false if { to_number(input.attributes.request.http.path) > 1; input.attributes.request.http.method == "PUT" }`, &strict},
		"skipped conflict": {`allow := q["a"]
q[k] := v if some k, v in {"a": true, "b": 1}
q[k] := v if some k, v in {"b": 2}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{0, 10} {
				o := Options{CachedVerdicts: size, Recheck: 1, StrictErrors: c.strict, Rechecked: wantSame(t), Print: func(string, int, string) {}}
				p := mustLoad(t, module(c.rules), o)
				for range 3 {
					_, err := p.Decide(t.Context(), get("/"), agedKey("old"), nil)
					_, traced := p.Decide(t.Context(), get("/"), agedKey("old"), &authz.Trace{})
					if codeOf(err) != codeOf(traced) {
						t.Errorf("%v, with a trace %v", err, traced)
					}
				}
				if !p.Evaluator().Compiled() {
					t.Error(p.Evaluator())
				}
			}
		})
	}
}

// TestRecheck_SameTime has a function that reads the clock unnoticed, as io.jwt.decode_verify does.
func TestRecheck_SameTime(t *testing.T) {
	var seen []string
	clock := counted("f", func(b rego.BuiltinContext, _ int64) (bool, error) {
		seen = append(seen, b.Time.String())
		return true, nil
	})
	p := mustLoad(t, module("allow if f(input.key)"), Options{Recheck: 1, Rechecked: wantSame(t), builtins: []builtin{clock}})
	mustDecide(t, p, get("/"), nil)
	if len(seen) != 2 || seen[0] != seen[1] {
		t.Errorf("the evaluators saw the times %q", seen)
	}
}

// TestRecheck_SendsOnce counts requests of http.send, also where both evaluators are asked because of a doubt.
func TestRecheck_SendsOnce(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"n": %d}`, sent.Add(1))
	}))
	defer server.Close()
	send := fmt.Sprintf(`http.send({"method": "GET", "url": %q}).body.n`, server.URL)
	for name, c := range map[string]struct {
		recheck int
		rules   string
	}{
		"repeated": {1, `allow := {"allowed": true, "headers": {"x": format_int(n, 10)}} if n := ` + send},
		"doubtful": {0, "default allow := false\nallow if { " + send + ` > 0; q.a }
q[k] := v if some k, v in {"a": true, "b": 1}
q[k] := v if some k, v in {"b": 2}`},
	} {
		sent.Store(0)
		p := mustLoad(t, module(c.rules), Options{Recheck: c.recheck, Rechecked: wantSame(t)})
		for i := range int64(3) {
			if v := mustDecide(t, p, get("/"), nil); !v.Allowed || sent.Load() != i+1 {
				t.Errorf("%s: %+v after %d requests", name, v, sent.Load())
			}
		}
		if _, err := p.Decide(t.Context(), get("/"), nil, &authz.Trace{}); err != nil || sent.Load() != 4 {
			t.Errorf("%s: an explanation made %d requests, %v", name, sent.Load()-3, err)
		}
	}
	server.Close()
	p := mustLoad(t, module("default allow := false\nallow if "+send), Options{Recheck: 1, Rechecked: func(r RecheckResult, _ *Difference) {
		t.Errorf("what failed is repeated: %s", r)
	}})
	if v := mustDecide(t, p, get("/"), nil); v.Allowed || len(v.Errors) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestRecheck_PanicOfTheProgram(t *testing.T) {
	for name, c := range map[string]struct {
		panics int64
		code   string
	}{"alone": {1, codeDiffers}, "as OPA's evaluator": {2, codePanic}} {
		t.Run(name, func(t *testing.T) {
			var l log
			f := counted("f", func(_ rego.BuiltinContext, n int64) (bool, error) {
				if n < c.panics {
					panic("out of cheese")
				}
				return true, nil
			})
			p := mustLoad(t, module("allow if f(input.key)"), Options{Rechecked: l.rechecked, builtins: []builtin{f}})
			_, err := p.Decide(t.Context(), get("/"), nil, nil)
			wantEvalError(t, err, c.code)
			if c.code == codeDiffers && (len(l.found) != 1 || !strings.Contains(l.found[0].Program, "out of cheese")) {
				t.Errorf("%+v", l.found)
			}
			if v, err := p.Decide(t.Context(), get("/"), nil, nil); err != nil || !v.Allowed {
				t.Errorf("later: %+v, %v", v, err)
			}
		})
	}
}

func TestRecheck_IsRare(t *testing.T) {
	var l log
	p := mustLoad(t, module("allow := true"), Options{Recheck: 1000, Rechecked: l.rechecked})
	for range 20_000 {
		mustDecide(t, p, get("/"), nil)
	}
	if n := len(l.results); n == 0 || n > 100 {
		t.Errorf("%d of 20,000 decisions were repeated", n)
	}
	never := mustLoad(t, module("allow := true"), Options{Rechecked: func(RecheckResult, *Difference) { t.Error("repeated") }})
	for range 1000 {
		mustDecide(t, never, get("/"), nil)
	}
}

func TestRecheck_PrintsOnce(t *testing.T) {
	var got []string
	p := mustLoad(t, files("p.rego", slack), Options{Recheck: 1, Rechecked: wantSame(t), Print: func(_ string, _ int, text string) { got = append(got, text) }})
	mustDecide(t, p, get("/"), agedKey("20"))
	if len(got) != 1 {
		t.Errorf("printed %q", got)
	}
	_, _ = p.Decide(t.Context(), get("/"), agedKey("20"), &authz.Trace{})
	if len(got) != 1 {
		t.Errorf("an explanation printed %q", got[1:])
	}
}

func TestPrint_Bounded(t *testing.T) {
	for _, interpreted := range []bool{false, true} {
		var got []string
		p := mustLoad(t, module("allow if { every i in numbers.range(1, 5000) { print(i) } }"), Options{Interpreted: interpreted,
			Print: func(_ string, line int, text string) { got = append(got, fmt.Sprint(line, ": ", text)) }})
		mustDecide(t, p, get("/"), nil)
		if len(got) != maxLines+1 || got[maxLines] != "3: this decision printed 4900 more lines, which are dropped" {
			t.Errorf("printed %d lines, the last one %q", len(got), got[len(got)-1])
		}
	}
}

func TestExplain_Difference(t *testing.T) {
	var l log
	p := misled(t, onlyActive, everybody, Options{Rechecked: l.rechecked})
	tr := authz.Trace{}
	if v, err := p.Decide(t.Context(), get("/"), goodFacts(), &tr); err != nil || !v.Allowed || tr.Differed || tr.Evaluator != "compiled" {
		t.Errorf("%+v, %v, %+v", v, err, tr)
	}
	v, err := p.Decide(t.Context(), get("/"), expired(), &tr)
	if wantEvalError(t, err, codeDiffers); v.Allowed || !tr.Differed || tr.Evaluator != distrusted.String() || len(tr.Rules) == 0 {
		t.Errorf("%+v, %+v", v, tr)
	}
	l.want(t, Same, Different)
	tr = authz.Trace{}
	if v, err := p.Decide(t.Context(), get("/"), expired(), &tr); err != nil || v.Allowed || tr.Differed {
		t.Errorf("later: %+v, %v, %+v", v, err, tr)
	}
	l.want(t, Same, Different)
}

// TestExplain_ShowsWhatProductionDecides has rules that fail only in a trace, which enters more of them.
func TestExplain_ShowsWhatProductionDecides(t *testing.T) {
	strict := true
	for _, interpreted := range []bool{false, true} {
		p := mustLoad(t, module(`default allow := true
allow := false if { to_number(input.attributes.request.http.path) > 1; input.attributes.request.http.method == "PUT" }`),
			Options{Interpreted: interpreted, StrictErrors: &strict, Rechecked: wantSame(t)})
		var tr authz.Trace
		decided, traced := p.explain(t.Context(), get("/"), nil, &tr)
		if decided.err != nil || !decided.verdict.Allowed || traced.err == nil || tr.Differed {
			t.Errorf("%+v, in the trace %+v, by %v", decided, traced, tr.Evaluator)
		}
	}
}

// BenchmarkRecheck shows what the choice of decisions costs, and a repetition.
func BenchmarkRecheck(b *testing.B) {
	for _, n := range []int{0, 1000, 1} {
		p := mustLoad(b, bundle.FS(policies.Files), Options{Recheck: n, Rechecked: wantSame(b)})
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = p.Decide(b.Context(), get("/"), goodFacts(), nil)
			}
		})
	}
}

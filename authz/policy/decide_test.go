package policy

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
)

func TestDecide_Errors(t *testing.T) {
	tests := []struct {
		name  string
		rules string
		code  string
		line  int
	}{
		{"undefined", `allow if input.nothing`, "undefined", 0},
		{"division by zero", "zero := 0\n\nallow if 1 / zero == 1", "undefined", 5},
		{"conflict", "allow if input.parsed_path\n\nallow := false if input.parsed_query == {}", "eval_conflict_error", 5},
		{"null", `allow := null`, "invalid_decision", 0},
		{"number", `allow := 1`, "invalid_decision", 0},
		{"text", `allow := "true"`, "invalid_decision", 0},
		{"array", `allow := [true]`, "invalid_decision", 0},
		{"set", `allow contains true`, "invalid_decision", 0},
		{"empty object", `allow := {}`, "invalid_decision", 0},
		{"allowed is text", `allow := {"allowed": "true"}`, "invalid_decision", 0},
		{"allowed is null", `allow := {"allowed": null}`, "invalid_decision", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustLoad(t, module(tt.rules), Options{})
			v, err := p.Decide(t.Context(), get("/"), nil, nil)
			if v.Allowed {
				t.Error("it was allowed")
			}
			e := wantEvalError(t, err, tt.code)
			if e.Line != tt.line || (tt.line > 0 && e.File != "p.rego") {
				t.Errorf("it is at %s:%d, want line %d", e.File, e.Line, tt.line)
			}
		})
	}
}

func TestDecide_UnusableInput(t *testing.T) {
	p := mustLoad(t, module("allow := true"), Options{})
	_, err := p.Decide(t.Context(), nil, nil, nil)
	wantEvalError(t, err, codeInput)
	p = mustLoad(t, module("allow if not input.parsed_body.x"), Options{})
	r := get("/")
	r.Body.Parsed = map[string]any{"x": func() {}}
	_, err = p.Decide(t.Context(), r, nil, nil)
	wantEvalError(t, err, codeInput)
}

func TestDecide_StopsAtDeadline(t *testing.T) {
	for name, rule := range map[string]string{
		"comprehension": `allow if count([1 | some a in r; some b in r; some c in r; a + b + c == 1]) == 0` + "\n\nr := numbers.range(1, 600)",
		// What is cut short is undefined, and its negation must not count.
		"negation": `allow if not blocked` + "\n\nblocked if wait(1)",
	} {
		t.Run(name, func(t *testing.T) {
			p := mustLoad(t, module(rule), Options{builtins: []builtin{unary("wait", func(b rego.BuiltinContext) error {
				<-b.Context.Done()
				return b.Context.Err()
			})}})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			start := time.Now()
			v, err := p.Decide(ctx, get("/"), nil, nil)
			if v.Allowed || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, %v", v.Allowed, err)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
	p := mustLoad(t, module("allow := true"), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := p.Decide(ctx, get("/"), nil, nil); v.Allowed || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v, %v", v.Allowed, err)
	}
}

// TestDecide_LongEvaluationsSleep runs in a bubble, whose clock stands still while a goroutine works. It holds that both evaluators
// sleep, and ask their context, about once in 0.2 ms of work.
func TestDecide_LongEvaluationsSleep(t *testing.T) {
	for _, interpreted := range []bool{false, true} {
		p := mustLoad(t, module(`allow if { every i in numbers.range(1, 20000) { i + 1 > 0 } }`), Options{Interpreted: interpreted})
		synctest.Test(t, func(t *testing.T) {
			began, ctx := time.Now(), &asked{Context: t.Context()}
			if v, err := p.Decide(ctx, get("/"), nil, nil); err != nil || !v.Allowed {
				t.Error(v, err)
			}
			if time.Since(began) == 0 || ctx.times < 50 {
				t.Errorf("%v: it slept for %v, and asked its context %d times", p.Evaluator(), time.Since(began), ctx.times)
			}
		})
	}
}

// TestDecide_AsksAmongLongSteps has a program search texts, which takes as long as they are. It must ask its context about once in a
// hundred of them: with texts of 1 MB, that is once in 10 ms.
func TestDecide_AsksAmongLongSteps(t *testing.T) {
	list := strings.TrimSuffix(strings.Repeat(`"x",`, 10_000), ",")
	p := mustLoad(t, files("p.rego", "package envoy.authz\n\nallow if { every x in data.list { not contains(input.key.id, x) } }", "d.json", `{"list": [`+list+`]}`), Options{})
	ctx := &asked{Context: t.Context()}
	if v, err := p.Decide(ctx, get("/"), goodFacts(), nil); err != nil || !v.Allowed {
		t.Error(v, err)
	}
	if ctx.times < 70 {
		t.Errorf("it asked %d times in 10,000 steps", ctx.times)
	}
}

// asked counts how often an evaluation asks whether it has to end.
type asked struct {
	context.Context
	times int
}

func (a *asked) Err() error {
	a.times++
	return a.Context.Err()
}

// late ends without notice, between the first call of Err and the second.
type late struct {
	context.Context
	asked bool
}

func (l *late) Err() error {
	if l.asked {
		return context.DeadlineExceeded
	}
	l.asked = true
	return nil
}

func TestDecide_DeniesLateResults(t *testing.T) {
	p := mustLoad(t, module("allow := true"), Options{})
	v, err := p.Decide(&late{Context: context.Background()}, get("/"), nil, nil)
	if v.Allowed || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v", v.Allowed, err)
	}
}

// unary is a function of one argument that is true unless it fails.
func unary(name string, f func(rego.BuiltinContext) error) builtin {
	return builtin{
		decl: &rego.Function{Name: name, Decl: types.NewFunction(types.Args(types.A), types.B), Nondeterministic: true},
		impl: func(b rego.BuiltinContext, _ []*ast.Term) (*ast.Term, error) {
			if err := f(b); err != nil {
				return nil, err
			}
			return ast.BooleanTerm(true), nil
		},
	}
}

func TestDecide_Panic(t *testing.T) {
	p := mustLoad(t, module("default allow := true\n\nallow := false if boom(input)"), Options{
		builtins: []builtin{unary("boom", func(rego.BuiltinContext) error { panic("out of cheese") })},
	})
	for _, tr := range []*authz.Trace{nil, {}} {
		v, err := p.Decide(t.Context(), get("/"), nil, tr)
		if v.Allowed {
			t.Error("it was allowed")
		}
		if e := wantEvalError(t, err, codePanic); !strings.Contains(e.Text, "out of cheese") {
			t.Errorf("got %v", e)
		}
	}
}

func TestDecide_Concurrently(t *testing.T) {
	p := mustLoad(t, files("p.rego", factsPolicy, "d.json", factsData), Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				f := goodFacts()
				want := (i+n)%2 == 0
				if !want {
					f.Key.Status = authz.KeyExpired
				}
				v, err := p.Decide(t.Context(), get("/v1/things"), f, nil)
				if err != nil || v.Allowed != want {
					t.Errorf("got %v, %v, want %v", v.Allowed, err, want)
				}
			}
		})
	}
	wg.Wait()
}

const factsPolicy = `package envoy.authz

default allow := {"allowed": false, "reason": "policy_denied"}

allow := {"allowed": true, "headers": {"x-tollkeeper-account": input.key.account}, "charge": {"calls": 1}} if {
	count(deny) == 0
}

allow := {"allowed": false, "reason": first, "http_status": data.tollkeeper.reasons[first].status} if {
	first := sort(deny)[0]
}

deny contains "key_expired" if input.key.status == "expired"

deny contains "key_missing" if input.key.status == "missing"

deny contains "permission_denied" if {
	some scope in data.tollkeeper.routes[input.parsed_path[0]]
	not scope in input.key.scopes
}

deny contains "quota_exceeded" if {
	some quota in input.quota
	quota.state == "exhausted"
}
`

const factsData = `{"tollkeeper": {
	"reasons": {"key_expired": {"status": 403}, "quota_exceeded": {"status": 402}, "permission_denied": {"status": 403}},
	"routes": {"v1": ["read"]}
}}`

func TestDecide_PolicyOnFacts(t *testing.T) {
	p := mustLoad(t, files("p.rego", factsPolicy, "d.json", factsData), Options{})
	v := mustDecide(t, p, get("/v1/things"), goodFacts())
	if !v.Allowed || v.Headers.Get("x-tollkeeper-account") != "acc_7" || v.Charge["calls"] != 1 {
		t.Errorf("got %+v", v)
	}
	f := goodFacts()
	f.Quota[0].State = authz.QuotaExhausted
	if v := mustDecide(t, p, get("/v1/things"), f); v.Allowed || v.Status != 402 || v.Reason != authz.ReasonQuotaExceeded {
		t.Errorf("got %+v", v)
	}
	f.Quota = nil
	f.Key.Scopes = nil
	if v := mustDecide(t, p, get("/v1/things"), f); v.Allowed || v.Reason != authz.ReasonPermissionDenied {
		t.Errorf("got %+v", v)
	}
}

func BenchmarkDecide(b *testing.B) {
	r := inputtest.Browser()
	object := mustLoad(b, files("p.rego", factsPolicy, "d.json", factsData), Options{})
	boolean := mustLoad(b, module(`allow if {
	input.key.status == "active"
	input.quota.calls.state == "ok"
}`), Options{})
	for name, p := range map[string]*Policy{"boolean": boolean, "object": object} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, err := p.Decide(b.Context(), r, goodFacts(), nil); err != nil || !v.Allowed {
					b.Fatal(v, err)
				}
			}
		})
	}
}

package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
	"github.com/tollkeeper-authz/tollkeeper/authz/rego/regotest"
)

// verdictOfMain makes a verdict of the value of a generated policy, so that each difference of values is one of verdicts.
const verdictOfMain = `package envoy.authz

text := sprintf("%v", [data.p.main])

allow := {"allowed": true, "headers": {"x-value": text}, "dynamic_metadata": {"n": count(data.p.main)}} if count(data.p.main) % 2 == 0

allow := {"allowed": false, "http_status": 400 + count(data.p.main), "body": text} if count(data.p.main) % 2 == 1
`

// verdicts counts what became of generated policies and their requests.
type verdicts struct{ policies, requests, allowed, errors, steady int }

// compare compares the verdicts of both evaluators on one generated policy. It returns how they differ, empty if they do not.
func (n *verdicts) compare(t *testing.T, seed uint64) string {
	p := regotest.New(seed, "input.parsed_body")
	src := fstest.MapFS{"decision.rego": {Data: []byte(verdictOfMain)}, "data.json": {Data: []byte(p.Data)}}
	for name, text := range p.Modules {
		src[name] = &fstest.MapFile{Data: []byte(text)}
	}
	strict := seed%2 == 0
	o := Options{StrictErrors: &strict}
	compiled, err := Load(t.Context(), bundle.FS(src), o)
	if err != nil || !compiled.Evaluator().Compiled() {
		return ""
	}
	n.policies++
	o.Interpreted = true
	other := mustLoad(t, bundle.FS(src), o)
	for _, text := range p.Inputs {
		r := inputtest.Get("/")
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&r.Body.Parsed); err != nil {
			t.Fatal(err)
		}
		if difference := n.decide(t, compiled, other, r); difference != "" {
			return fmt.Sprintf("%s\n%v\nbody: %s", difference, p, text)
		}
	}
	return ""
}

func (n *verdicts) decide(t *testing.T, compiled, other *Policy, r *authz.Request) string {
	got, steady := outcome(t, compiled, r)
	want, wantSteady := outcome(t, other, r)
	switch {
	case codeOf(want.err) == "eval_internal_error":
		return "" // a bug of OPA's evaluator
	case same(got, want) && (wantSteady || !steady):
	default:
		return fmt.Sprintf("%v, %v, steady %t\nOPA: %v, %v, steady %t", got.value, got.err, steady, want.value, want.err, wantSteady)
	}
	n.requests++
	for count, happened := range map[*int]bool{&n.allowed: got.verdict.Allowed, &n.errors: got.err != nil, &n.steady: steady} {
		if happened {
			*count++
		}
	}
	return ""
}

// outcome is what a policy answers at a certain time, and whether the answer is steady.
func outcome(t *testing.T, p *Policy, r *authz.Request) (answer, bool) {
	e := at(p, r)
	return e.decide(t.Context()), e.steady()
}

func at(p *Policy, r *authz.Request) evaluation {
	return evaluation{
		Policy: p, decider: p.now.Load(), request: r, facts: inputtest.ActiveKey(),
		time: time.Unix(1_900_000_000, 5), nondeterministic: builtins.NDBCache{},
	}
}

// same compares two answers but for failed functions: of rules that cannot hold, a program meets more.
func same(a, b answer) bool {
	a.verdict.Errors, b.verdict.Errors = nil, nil
	return fmt.Sprint(a.err) == fmt.Sprint(b.err) && reflect.DeepEqual(a.verdict, b.verdict)
}

// TestDecide_GeneratedPolicies compares verdicts, errors and steadiness of both evaluators. FuzzDecide_Evaluators goes on from there.
func TestDecide_GeneratedPolicies(t *testing.T) {
	var n verdicts
	for seed := range uint64(200) {
		if d := n.compare(t, seed); d != "" {
			t.Fatalf("policy %d: %s", seed, d)
		}
	}
	t.Logf("conformance: verdicts of generated policies: %d policies agree about %d requests; %+v", n.policies, n.requests, n)
	if n.policies < 130 || n.allowed < 200 || n.errors < 50 || n.steady < 200 {
		t.Errorf("%+v: the policies have become too few or too plain", n)
	}
}

func FuzzDecide_Evaluators(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		var n verdicts
		if d := n.compare(t, seed); d != "" {
			t.Error(d)
		}
	})
}

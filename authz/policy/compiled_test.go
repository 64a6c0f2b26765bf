package policy

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// TestDecide_ShippedPoliciesOnBothEvaluators compares verdicts for random requests.
func TestDecide_ShippedPoliciesOnBothEvaluators(t *testing.T) {
	compiled := mustLoad(t, bundle.FS(policies.Files), Options{Recheck: 1, Rechecked: wantSame(t)})
	if d := compiled.now.Load(); d.program == nil || d.slots == nil {
		t.Fatalf("the shipped policies are not compiled: %v", compiled.Evaluator())
	}
	other := mustLoad(t, bundle.FS(policies.Files), Options{Interpreted: true})
	d := inputtest.New(15)
	allowed := 0
	for range 400 {
		r, f := d.Request(), d.Facts()
		d.Nudge(r, f)
		got, err := compiled.Decide(t.Context(), r, f, nil)
		want, wantErr := other.Decide(t.Context(), r, f, nil)
		if !reflect.DeepEqual(got, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("%+v, %v\nwant %+v, %v", got, err, want, wantErr)
		}
		if got.Allowed {
			allowed++
		}
	}
	t.Logf("%d of 400 allowed", allowed)
}

// TestDecide_DisputedErrors has rules that fail only if they are entered, as a program does. OPA's evaluator has the last word.
func TestDecide_DisputedErrors(t *testing.T) {
	strict := true
	for name, rules := range map[string]string{
		"conflict of another key": `allow := q["a"]
q[k] := v if some k, v in {"a": true, "b": 1}
q[k] := v if some k, v in {"b": 2}`,
		"failure in a rule that cannot hold": `default allow := true
allow := false if { to_number(input.attributes.request.http.path) > 1; input.attributes.request.http.method == "PUT" }`,
		"number for text in replaced data": `allow if { q with data.nothing.x as 1 }
q if data.tollkeeper.list["1"] == 2`,
	} {
		t.Run(name, func(t *testing.T) {
			src := files("p.rego", "package envoy.authz\n\n"+rules, "data.json", `{"tollkeeper": {"list": [1, 2]}}`)
			p := mustLoad(t, src, Options{StrictErrors: &strict})
			if !p.Evaluator().Compiled() {
				t.Fatal(p.Evaluator())
			}
			if v, err := p.Decide(t.Context(), get("/x"), goodFacts(), nil); err != nil || !v.Allowed || len(v.Errors) > 0 {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

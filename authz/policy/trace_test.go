package policy

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

func TestTrace_Rules(t *testing.T) {
	p := mustLoad(t, module(`import data.limits

default allow := {"allowed": false, "reason": "policy_denied"}

allow := {"allowed": true} if {
	count(deny) == 0
	limits.open
}

allow := {"allowed": false, "reason": reason} if some reason in deny

deny contains "key_expired" if input.key.status == "expired"

deny contains "quota_exceeded" if {
	input.quota[input.attributes.contextExtensions.limit].state == "exhausted"
	grade(input.quota) == "bad"
}

grade(q) := "bad" if count(q) > 5

else := "good"
`), Options{})
	f := &authz.Facts{
		Key:   authz.KeyFact{Status: authz.KeyExpired},
		Quota: []authz.QuotaFact{{Name: "calls", State: authz.QuotaExhausted}},
	}
	r := get("/x")
	r.ContextExtensions = map[string]string{"limit": "calls"}
	var tr authz.Trace
	v, err := p.Decide(t.Context(), r, f, &tr)
	if err != nil || v.Reason != authz.ReasonKeyExpired {
		t.Fatalf("got %+v, %v", v, err)
	}
	want := []authz.TracedRule{
		{Name: "data.envoy.authz.allow", Line: 7, Text: `allow := {"allowed": true} if {`, Strings: []string{"allowed"}},
		{Name: "data.envoy.authz.deny", Line: 14, Text: `deny contains "key_expired" if input.key.status == "expired"`, Held: true,
			Strings: []string{"key_expired", "expired"},
			Facts:   []authz.TracedFact{{Ref: "input.key.status", Value: `"expired"`}}},
		{Name: "data.envoy.authz.deny", Line: 16, Text: `deny contains "quota_exceeded" if {`,
			Strings: []string{"quota_exceeded", "exhausted", "bad"},
			Facts: []authz.TracedFact{
				{Ref: "input.attributes.contextExtensions.limit", Value: `"calls"`},
				{Ref: "input.quota", Value: `{"calls":{"limit":0,"remaining":0,"state":"exhausted"}}`},
			}},
		{Name: "data.envoy.authz.grade", Line: 21, Text: `grade(q) := "bad" if count(q) > 5`, Strings: []string{"bad"}},
		{Name: "data.envoy.authz.grade", Line: 23, Text: `else := "good"`, Held: true, Strings: []string{"good"}},
		{Name: "data.envoy.authz.allow", Line: 12, Text: `allow := {"allowed": false, "reason": reason} if some reason in deny`,
			Held: true, Strings: []string{"allowed", "reason"}},
	}
	for i := range want {
		want[i].File = "p.rego"
	}
	for i := range max(len(want), len(tr.Rules)) {
		if i >= len(want) || i >= len(tr.Rules) || !reflect.DeepEqual(tr.Rules[i], want[i]) {
			t.Fatalf("rule %d of\n%+v\nwant\n%+v", i, tr.Rules, want)
		}
	}
	var input map[string]any
	if err := json.Unmarshal(tr.Input, &input); err != nil || input["key"] == nil {
		t.Errorf("the input is %s, %v", tr.Input, err)
	}
}

// TestTrace_NamesEndAtAVariable: the compiler makes up names for variables.
func TestTrace_NamesEndAtAVariable(t *testing.T) {
	p := mustLoad(t, module(`allow := {"allowed": count(details) == 1}

details[code] := "Send a key." if some code in ["key_missing"]
`), Options{})
	var tr authz.Trace
	if _, err := p.Decide(t.Context(), get("/x"), nil, &tr); err != nil {
		t.Fatal(err)
	}
	if len(tr.Rules) != 2 || tr.Rules[1].Name != "data.envoy.authz.details" {
		t.Errorf("rules %+v", tr.Rules)
	}
}

func TestTrace_RulesThatCannotHold(t *testing.T) {
	p := mustLoad(t, module("default allow := false\n\nallow if input.key.status == \"active\"\n\nallow if input.token.claims.vip\n"), Options{})
	var tr authz.Trace
	if _, err := p.Decide(t.Context(), get("/"), nil, &tr); err != nil {
		t.Fatal(err)
	}
	if len(tr.Rules) < 2 || tr.Rules[0].Line != 5 || tr.Rules[0].Held || tr.Rules[0].Facts[0].Value != `"missing"` {
		t.Fatalf("got %+v", tr.Rules)
	}
	if tr.Rules[1].Facts[0] != (authz.TracedFact{Ref: "input.token.claims.vip", Value: "undefined"}) {
		t.Errorf("got %+v", tr.Rules[1])
	}
}

func TestTrace_ChangesNoVerdict(t *testing.T) {
	p := mustLoad(t, files("p.rego", factsPolicy, "d.json", factsData), Options{})
	for _, f := range []*authz.Facts{nil, {}, goodFacts()} {
		sameTraced(t, p, get("/v1/x"), f)
	}
}

// sameTraced compares a decision with that of an explanation, and with the traced evaluation. That is given the whole input, so this
// also tests that what is left out makes no difference.
func sameTraced(t *testing.T, p *Policy, r *authz.Request, f *authz.Facts) {
	t.Helper()
	v, err := p.Decide(t.Context(), r, f, nil)
	decided, traced := p.explain(t.Context(), r, f, &authz.Trace{})
	for name, a := range map[string]answer{"explained": decided, "traced": traced} {
		if !reflect.DeepEqual(v, a.verdict) || (err == nil) != (a.err == nil) {
			t.Errorf("%+v, %v is %s as %+v, %v", v, err, name, a.verdict, a.err)
		}
	}
}

func TestTrace_OfAnError(t *testing.T) {
	p := mustLoad(t, module("allow if input.key.status == \"active\"\n"), Options{})
	var tr authz.Trace
	_, err := p.Decide(t.Context(), get("/"), nil, &tr)
	wantEvalError(t, err, codeUndefined)
	if len(tr.Rules) != 1 || len(tr.Input) == 0 {
		t.Errorf("got %+v", tr)
	}
}

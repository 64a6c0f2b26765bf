package policy

import (
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

func TestPolicy_RulesReadData(t *testing.T) {
	p := mustLoad(t, files(
		"p.rego", "package envoy.authz\n\nallow := {\"allowed\": false, \"detail\": json.marshal([data.list[1], data.m.k, x])}\n\nx := [n | some n in data.list; n != 1]\n",
		"d.json", `{"list": [1, "b"], "m": {"k": {"deep": true}}}`,
	), Options{})
	if v := mustDecide(t, p, get("/"), nil); v.Detail != `["b",{"deep":true},["b"]]` {
		t.Errorf("got %s", v.Detail)
	}
	// A path that leads nowhere is undefined and not an error of the store.
	for _, ref := range []string{"data.list[7]", "data.list.x", "data.m.k.deep.deeper", "data.none"} {
		p := mustLoad(t, files("p.rego", "package envoy.authz\n\nallow if not "+ref+"\n",
			"d.json", `{"list": [1, "b"], "m": {"k": {"deep": true}}}`), Options{})
		if v := mustDecide(t, p, get("/"), nil); !v.Allowed {
			t.Errorf("%s is defined", ref)
		}
	}
}

const regoV0 = `package envoy.authz

default allow = false

allow { input.key.status == "active" }
`

func TestPolicy_RegoV0(t *testing.T) {
	p := mustLoad(t, files("p.rego", regoV0), Options{RegoVersion: bundle.RegoV0})
	if !mustDecide(t, p, get("/"), goodFacts()).Allowed || mustDecide(t, p, get("/"), nil).Allowed {
		t.Error("it does not decide as it did")
	}
}

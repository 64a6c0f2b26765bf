package bundle

import (
	"strings"
	"testing"
)

const oldPolicy = `package envoy.authz

import input.attributes.request.http as http_request

default allow = false

allow = response {
	count(deny) == 0
	any([http_request.method == "GET", http_request.method == "HEAD"])
	response := {"allowed": true}
}

deny[msg] {
	input.key.status != "active"
	msg := "no key"
}
`

const oldTest = `package envoy.authz

test_get { allow.allowed with input as {"key": {"status": "active"}, "attributes": {"request": {"http": {"method": "GET"}}}} }

test_no_key { not allow with input as {"key": {"status": "missing"}, "attributes": {"request": {"http": {"method": "GET"}}}} }
`

func TestRegoVersion_V0(t *testing.T) {
	mustCompile(t, files("p.rego", oldPolicy, "new.rego", netLib), Options{RegoVersion: RegoV0})
	results, err := Test(t.Context(), files("p.rego", oldPolicy, "p_test.rego", oldTest), RegoV0)
	if err != nil || len(results) != 2 || !results[0].Passed() || !results[1].Passed() {
		t.Errorf("its tests: %v, %v", results, err)
	}
}

// TestRegoVersion_Hint expects one hint a file, and none for what is wrong in both versions.
func TestRegoVersion_Hint(t *testing.T) {
	const hint = "set policy.rego_version to v0"
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"rules without if":        {oldPolicy, 1},
		"deprecated functions":    {"package envoy.authz\n\nallow := any([true])", 1},
		"wrong in both":           {"package envoy.authz\n\nallow := ]", 0},
		"a fault of the new kind": {"package envoy.authz\n\nallow if nope", 0},
		"a fault of either":       {"package envoy.authz\n\nallow := nope", 0},
	} {
		_, err := Compile(t.Context(), files("p.rego", c.text), Options{})
		if err == nil || strings.Count(err.Error(), hint) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Test(t.Context(), files("p.rego", oldPolicy), ""); err == nil || !strings.Contains(err.Error(), hint) {
		t.Errorf("tests: %v", err)
	}
}

package bundle

import (
	"context"
	"errors"
	"strings"
	"testing"
)

const testedPolicy = `package envoy.authz

default allow := {"allowed": false}

allow := {"allowed": true} if count(deny) == 0

allow := {"allowed": false, "http_status": data.statuses[first]} if first := sort(deny)[0]

deny contains "key_expired" if input.key.status == "expired"
`

const testedData = `{"statuses": {"key_expired": 403}}`

func TestSuite_RunsRules(t *testing.T) {
	src := files("p.rego", testedPolicy, "d.json", testedData, "p_test.rego", `package envoy.authz_test

import data.envoy.authz

test_good if authz.allow.allowed with input as {"key": {"account": "a", "scopes": ["read"]}, "parsed_path": ["v1"], "quota": {}}

test_bad if {
	print("looking")
	authz.allow.http_status == 500 with input as {"key": {"status": "expired"}}
}

test_cases[status] if {
	some status in ["expired", "active"]
	count(authz.deny) > 0 with input as {"key": {"status": status}}
}

todo_test_later if false

test_conflict if conflict == 1

conflict := 1 if true

conflict := 2 if true
`)
	results, err := Test(t.Context(), src, "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	byName := map[string]TestResult{}
	for _, r := range results {
		got = append(got, r.Name)
		byName[r.Name] = r
		if r.File != "p_test.rego" || r.Line == 0 || r.Package != "data.envoy.authz_test" {
			t.Errorf("%s is in %s at %s:%d", r.Name, r.Package, r.File, r.Line)
		}
	}
	if s := strings.Join(got, " "); s != "test_good test_bad test_cases todo_test_later test_conflict" {
		t.Errorf("the tests are %s", s)
	}
	if r := byName["test_good"]; !r.Passed() || r.Trace != "" {
		t.Errorf("good: %+v", r)
	}
	if r := byName["test_bad"]; r.Passed() || !r.Failed || !strings.Contains(r.Trace, "http_status") || !strings.Contains(r.Output, "looking") {
		t.Errorf("bad: %+v", r)
	}
	if r := byName["test_cases"]; !r.Failed || len(r.Cases) != 1 || r.Cases[0] != "active" {
		t.Errorf("cases: %+v", r)
	}
	if r := byName["todo_test_later"]; !r.Skipped || r.Passed() {
		t.Errorf("later: %+v", r)
	}
	if r := byName["test_conflict"]; r.Err == nil || r.Passed() {
		t.Errorf("conflict: %+v", r)
	}
}

func TestSuite_Faults(t *testing.T) {
	for name, src := range map[string]Source{
		"syntax in a test":  files("p.rego", allowAll, "p_test.rego", "package p\n\ntest_x if {"),
		"compile in a test": files("p.rego", allowAll, "p_test.rego", "package p\n\ntest_x if no_such_function(1)"),
		"data":              files("p.rego", allowAll, "d.yaml", "- 1"),
		"nowhere":           Disk("/nowhere/at/all"),
	} {
		_, err := Test(t.Context(), src, "")
		var le *LoadError
		if !errors.As(err, &le) || le.Faults[0].File == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Test(ctx, files("p.rego", allowAll), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

package bundle

import (
	"errors"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// TestTest_OnBothEvaluators has tests with everything that is replaced in tests. A program runs them as OPA's evaluator does.
func TestTest_OnBothEvaluators(t *testing.T) {
	results, err := Test(t.Context(), files("p.rego", testedPolicy, "d.json", testedData, "p_test.rego", `package envoy.authz_test

import data.envoy.authz

mock(_) := ["a"]

test_function if authz.allow == {"allowed": true} with sort as mock with input as {"key": {"status": "expired"}} with authz.deny as set()

test_data if authz.allow.http_status == 7 with data.statuses as {"key_expired": 7} with input.key.status as "expired"

test_clock if time.now_ns() == time.now_ns()

test_random if rand.intn("x", 1000) >= 0

test_cases[name] if {
	some name, status in {"one": "expired", "two": "active"}
	count(authz.deny) == 1 with input.key.status as status
}

test_undefined if input.nothing

test_conflict if conflict == 1

conflict := 1 if true

conflict := 2 if true

test_twice if true

test_twice if 1 == 1

todo_test_later if true
`), "")
	if err != nil {
		t.Fatal(err)
	}
	both := 0
	for i := range results {
		if r := &results[i]; r.OnBoth() {
			both++
		}
		if results[i].Difference != "" || results[i].Uncompiled != "" {
			t.Errorf("%+v", results[i])
		}
	}
	if len(results) != 10 || both != 9 {
		t.Errorf("%d of %d tests ran on both evaluators", both, len(results))
	}
}

func TestTest_Uncompiled(t *testing.T) {
	results, err := Test(t.Context(), files("p.rego", "package p\n\nq[1] contains 1\n", "p_test.rego", "package p_test\n\ntest_q if data.p.q[1][1]\n"), "")
	if err != nil || len(results) != 1 || !results[0].Passed() || results[0].OnBoth() || !strings.Contains(results[0].Uncompiled, "a set with a constant in its name") {
		t.Errorf("%+v, %v", results, err)
	}
}

// TestTestResult_Note: a difference fails the test, and an error of the program alone is no difference.
func TestTestResult_Note(t *testing.T) {
	yes, no, conflict := ast.BooleanTerm(true), ast.BooleanTerm(false), &topdown.Error{Code: topdown.ConflictErr}
	for _, c := range []struct {
		got     *ast.Term
		err     error
		want    *ast.Term
		wantErr error
		text    string // of the difference, empty for none
		both    bool
	}{
		{yes, nil, yes, nil, "", true},
		{nil, nil, nil, nil, "", true},
		{nil, conflict, nil, errors.New("other"), "", true},
		{yes, nil, no, nil, "the compiled program gives true and OPA's evaluator gives false: ", true},
		{yes, nil, nil, nil, "the compiled program gives true and OPA's evaluator gives undefined: ", true},
		{nil, nil, yes, nil, "the compiled program gives undefined and OPA's evaluator gives true: ", true},
		{yes, nil, nil, conflict, "the compiled program gives true and OPA's evaluator gives the error eval_conflict_error: ", true},
		{nil, conflict, yes, nil, "", false},
	} {
		var r TestResult
		r.note(c.got, c.err, c.want, c.wantErr)
		if !strings.HasPrefix(r.Difference, c.text) || r.Passed() != (c.text == "") || r.OnBoth() != c.both {
			t.Errorf("%v, %v and %v, %v: %+v", c.got, c.err, c.want, c.wantErr, r)
		}
	}
}

package policies_test

import (
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// TestShipped_OnBothEvaluators runs the tests of the shipped policies as compiled programs, too.
func TestShipped_OnBothEvaluators(t *testing.T) {
	results, err := bundle.Test(t.Context(), bundle.FS(policies.Files), "")
	if err != nil {
		t.Fatal(err)
	}
	both := 0
	for i := range results {
		r := &results[i]
		if r.OnBoth() {
			both++
		}
		if !r.Passed() || !r.OnBoth() {
			t.Errorf("%s: %s %s %v", r.Name, r.Difference, r.Uncompiled, r.Err)
		}
	}
	t.Logf("conformance: tests of the shipped policies: %d, %d on both evaluators", len(results), both)
	if both < 85 {
		t.Errorf("%d tests", both)
	}
}

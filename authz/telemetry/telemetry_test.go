package telemetry

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

func TestMetrics_CountsDecisionsByKnownReasons(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, []authz.Reason{authz.ReasonKeyExpired})
	for _, d := range []authz.Decision{
		authz.Allow(authz.Answer{}), authz.Deny(authz.Answer{Reason: authz.ReasonKeyExpired}),
		authz.Deny(authz.Answer{Reason: "made_up_1"}), authz.Deny(authz.Answer{Reason: "made_up_2"}),
	} {
		m.Record(&check.Entry{Decision: &d, Facts: &authz.Facts{}})
	}
	want := `
# HELP tollkeeper_decisions_total Checks by outcome (allow or deny) and the reason of a denial.
# TYPE tollkeeper_decisions_total counter
tollkeeper_decisions_total{outcome="allow",reason=""} 1
tollkeeper_decisions_total{outcome="deny",reason="key_expired"} 1
tollkeeper_decisions_total{outcome="deny",reason="other"} 2
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "tollkeeper_decisions_total"); err != nil {
		t.Error(err)
	}
}

func TestMetrics_FaultsOfARefusedPolicy(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, nil)
	m.PolicyRefused([]Fault{{File: "a.rego", Line: "3", Column: "7", Code: "rego_parse_error"}})
	want := `
# HELP tollkeeper_policy_fault 1 for each fault of the policy that was refused last; none while the policies on disk are in force.
# TYPE tollkeeper_policy_fault gauge
tollkeeper_policy_fault{code="rego_parse_error",column="7",file="a.rego",line="3"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "tollkeeper_policy_fault"); err != nil {
		t.Error(err)
	}
	m.PolicyLoaded("r2")
	if n := testutil.CollectAndCount(m.faults); n != 0 {
		t.Errorf("%d faults are left", n)
	}
}

package policies_test

import (
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
	"github.com/tollkeeper-authz/tollkeeper/policies"
	"go.yaml.in/yaml/v3"
)

// shippedRoutes is the table that routes.yaml makes.
func shippedRoutes(t *testing.T) *route.Table {
	t.Helper()
	p, err := policy.Load(t.Context(), bundle.FS(policies.Files), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var s route.Spec
	plans, _ := p.Data("tollkeeper", "plans")
	var wrong []quota.PlanFault
	if s.Plans, wrong = quota.ParsePlans(plans); wrong != nil {
		t.Fatal(wrong)
	}
	s.Routes, _ = p.Data("tollkeeper", "routes")
	s.Paths, _ = p.Data("tollkeeper", "paths")
	s.Unmatched, _ = p.Data("tollkeeper", "unmatched")
	table, faults := route.Parse(s)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return table
}

func TestRoutes_WhichOneApplies(t *testing.T) {
	const refused = "refused: "
	table := shippedRoutes(t)
	for request, want := range map[[2]string]string{
		{"GET", "/v1/reports"}:             "read-reports",
		{"GET", "/v1/reports/"}:            "read-reports",
		{"GET", "/v1/reports/7"}:           "read-reports",
		{"GET", "/v1/reports/7/pages/2?q"}: "read-reports",
		{"GET", "/v1//reports/7"}:          "read-reports",
		{"GET", "/V1/Reports/7"}:           "read-reports",
		{"GET", "/v1/re%70orts/7"}:         "read-reports",
		{"HEAD", "/v1/reports/7"}:          "read-reports",
		{"POST", "/v1/reports"}:            "write-reports",
		{"DELETE", "/v1/reports/7"}:        "write-reports",
		{"OPTIONS", "/v1/reports/7"}:       "write-reports",
		{"POST", "/v1/render"}:             "render",
		{"POST", "/v1/render/"}:            "render",
		{"GET", "/v1/render"}:              "render",
		{"POST", "/v1/render/7"}:           "",
		{"GET", "/v1/reportsx"}:            "",
		{"GET", "/v1"}:                     "",
		{"GET", "/"}:                       "",
		{"GET", "/v1/reports;x=1/7"}:       refused + "matrix_parameter",
		{"GET", "/v1;x/reports/7"}:         refused + "matrix_parameter",
		{"GET", "/v1/render;v=1"}:          refused + "matrix_parameter",
		{"GET", "/v1/re%2570orts/7"}:       refused + "double_encoded",
		{"GET", "/v1/reports%2F7"}:         refused + "encoded_slash",
		{"GET", "/v1/x/../reports/7"}:      refused + "dot_segment",
		{"GET", "/v1/x/%2e%2e/reports/7"}:  refused + "dot_segment",
		{"GET", "/v1\\reports/7"}:          refused + "backslash",
		{"GET", "/v1/reports%00/7"}:        refused + "control_character",
		{"GET", "/v1/reports./7"}:          refused + "loose_ending",
		{"GET", "/v1/ｒeports/7"}:           refused + "compatible_text",
		{"GET", "v1/reports/7"}:            refused + "not_absolute",
		{"get", "/v1/reports/7"}:           refused + "method_case",
		{"", "/v1/reports/7"}:              refused + "no_method",
	} {
		var path authz.PathFact
		var r authz.RouteFact
		table.Match(&authz.Request{HTTP: &authz.HTTP{Method: request[0], Path: request[1], Host: "api.example.com"}}, &path, &r, nil)
		got := r.RouteName()
		if path.State != authz.PathOK {
			got = refused + string(path.Fault)
		}
		if got != want {
			t.Errorf("%s %s: %q, want %q", request[0], request[1], got, want)
		}
	}
}

// TestManual_RoutesAreTables reads the examples of routes in the manual: two that are a conflict, and a third that settles it.
func TestManual_RoutesAreTables(t *testing.T) {
	var examples []any
	for line := range strings.Lines(string(shipped(t, "README.md"))) {
		if entry, found := strings.CutPrefix(line, "    - {name:"); found {
			var v any
			if err := yaml.Unmarshal([]byte("{name:"+entry), &v); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			examples = append(examples, v)
		}
	}
	if len(examples) != 3 {
		t.Fatalf("the manual has %d examples of routes, want 3", len(examples))
	}
	s := route.Spec{Plans: map[string][]authz.Limit{"payg": {{Name: "credits"}}}}
	for count, conflicts := range map[int]int{1: 0, 2: 1, 3: 0} {
		s.Routes = examples[:count]
		if _, faults := route.Parse(s); len(faults) != conflicts {
			t.Errorf("the first %d: %+v, want %d faults", count, faults, conflicts)
		}
	}
}

package server

import (
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// TestRoutes_AreSeenEverywhere follows a decision into the explanation, the metadata, the recent decisions and the metrics, and
// another one after a reload.
func TestRoutes_AreSeenEverywhere(t *testing.T) {
	dir := policyFolder(t, "routes.yaml", `tollkeeper: {routes: [{name: old, match: {path: "/v1/{x}"}}, {name: idle, match: {path: /idle}}]}`)
	cfg := configFor(t.TempDir())
	cfg.Policy.Paths = []string{dir}
	r := start(t, cfg)
	key := r.newKey("acme", "free").Key
	wantRoute := func(name string) {
		t.Helper()
		e := r.explain(key)
		if e.Route == nil || e.Route.Name != name || e.Route.Params["x"] != "x" {
			t.Errorf("explained as %+v", e.Route)
		}
		resp, err := r.checks.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "GET", Path: "/v1/x", Headers: map[string]string{"x-api-key": key, "x-request-id": name},
			}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		notes := resp.GetDynamicMetadata().GetFields()["tollkeeper"].GetStructValue().GetFields()
		if got := notes["route"].GetStringValue(); got != name {
			t.Errorf("Envoy gets the route %q", got)
		}
		var d admin.Decision
		if r.do("GET", admin.Path("decisions", name), nil, &d); d.Route != name || d.PathFault != "" {
			t.Errorf("recorded as %+v", d)
		}
	}
	wantMetrics := func(want ...string) {
		t.Helper()
		m := grep(r.metrics(), "tollkeeper_route_decisions_total{")
		for _, line := range want {
			if !strings.Contains(m, "tollkeeper_route_decisions_total{"+line+"\n") {
				t.Errorf("no %s in\n%s", line, m)
			}
		}
		if n := strings.Count(m, "\n"); n != len(want) {
			t.Errorf("%d series, want %d:\n%s", n, len(want), m)
		}
	}
	wantRoute("old")
	r.want("", 403, "key_missing")
	wantMetrics(`outcome="allow",route="idle"} 0`, `outcome="deny",route="idle"} 0`, `outcome="allow",route="none"} 0`, `outcome="deny",route="none"} 0`,
		`outcome="allow",route="old"} 1`, `outcome="deny",route="old"} 1`, `outcome="allow",route="other"} 0`, `outcome="deny",route="other"} 0`)

	before := r.status().Policy
	writeFiles(t, dir, "routes.yaml", `tollkeeper: {routes: [{name: new, match: {path: "/v1/{x}"}}]}`)
	r.await("the routes are in force", func() bool { return r.status().Policy != before })
	if n := r.status().Routes; n != 1 {
		t.Errorf("%d routes", n)
	}
	wantRoute("new")
	wantMetrics(`outcome="allow",route="new"} 1`, `outcome="deny",route="new"} 0`, `outcome="allow",route="none"} 0`, `outcome="deny",route="none"} 0`,
		`outcome="allow",route="other"} 0`, `outcome="deny",route="other"} 0`)
}

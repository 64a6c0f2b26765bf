package rulebook

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// FuzzRoutes reads a file of routes as a server does. It is refused with a file and a line, or every request gets one of its routes,
// none, or a fault.
func FuzzRoutes(f *testing.F) {
	shipped, err := policies.Files.ReadFile("routes.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(shipped))
	for _, text := range []string{
		"", "tollkeeper:", "tollkeeper: {routes: [], unmatched: deny}", "tollkeeper: {paths: {matrix: strip, case: exact}}",
		"tollkeeper:\n  routes:\n  - match: {path: '/a/{id}', methods: [GET], hosts: ['*.x.org']}\n    scopes: [a]\n  - name: b\n    charge: {credits: 5}\n",
		"tollkeeper:\n  routes:\n  - &a {match: {path: /a}}\n  - <<: *a\n    name: b\n", "tollkeeper: {routes: [{openapi: api.yaml}]}",
		"tollkeeper: {routes: [{match: {path: /a}, scope: [admin]}]}", "tollkeeper: {routes: {a: b}}\n---\nx: 1",
	} {
		f.Add(text)
	}
	requests := []*authz.Request{
		{HTTP: &authz.HTTP{Method: "GET", Host: "a.x.org", Path: "/a/7"}}, {HTTP: &authz.HTTP{Method: "POST", Path: "/v1/reports/%2e"}}, {},
	}
	f.Fuzz(func(t *testing.T, text string) {
		src := bundle.FS(fstest.MapFS{
			"a.rego": {Data: []byte(allowNothing)}, "routes.yaml": {Data: []byte(text)}, "api.yaml": {Data: []byte("openapi: 3.1.0\npaths: {/x: {get: {}}}\n")},
			"plans.yaml": {Data: []byte("tollkeeper: {plans: {pro: {limits: {credits: {units: 5, window: none}}}}}")},
		})
		p, err := policy.Load(t.Context(), src, policy.Options{})
		var r *rules
		if err == nil {
			r, err = rulesOf(p, nil)
		}
		var load *bundle.LoadError
		switch {
		case err == nil:
		case !errors.As(err, &load):
			t.Fatalf("no fault of the file: %v", err)
		default:
			for _, f := range load.Faults {
				if f.Text == "" || f.Code == faultRoute && (f.File == "" || f.Line == 0) {
					t.Errorf("a fault without a text or a place: %+v", f)
				}
			}
			return
		}
		for _, request := range requests {
			var path authz.PathFact
			var route authz.RouteFact
			r.Routes.Match(request, &path, &route, nil)
			if (route.State == authz.RouteOK) != (route.Route != nil) || path.State == "" || (path.Fault == "") != (path.State == authz.PathOK) {
				t.Errorf("%+v and %+v", path, route)
			}
			if route.Route != nil && strings.TrimSpace(route.Route.Name) == "" {
				t.Error("a route without a name")
			}
		}
	})
}

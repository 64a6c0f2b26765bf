package admin

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// TestExplanation_ShowsTheRouteAndThePath in the JSON of the API.
func TestExplanation_ShowsTheRouteAndThePath(t *testing.T) {
	ok := authz.PathFact{State: authz.PathOK}
	for _, c := range []struct {
		path        authz.PathFact
		route       authz.RouteFact
		inPath, inR string
	}{
		{ok, authz.RouteFact{State: authz.RouteOK, Params: []authz.Param{{Name: "id", Value: "7 7"}}, Route: &authz.Route{
			Name: "orders", Template: "/v1/orders/{id}", Methods: []string{"GET"}, Hosts: []string{"*.example.com"}, Scopes: []string{"orders:read"},
			Plans: []string{"pro"}, Environment: "live", KeyRequired: true, TokenRequired: true, Charge: authz.Charge{"rate": 2}}},
			`{"state":"ok"}`,
			`{"state":"ok","name":"orders","template":"/v1/orders/{id}","params":{"id":"7 7"},"methods":["GET"],"hosts":["*.example.com"],` +
				`"scopes":["orders:read"],"plans":["pro"],"environment":"live","key":"required","token":"required","charge":{"rate":2}}`},
		{ok, authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{Name: "free", Charge: authz.Charge{}}}, `{"state":"ok"}`, `{"state":"ok","name":"free","charge":{}}`},
		{ok, authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{Name: "open", Public: true}}, `{"state":"ok"}`, `{"state":"ok","name":"open","public":true}`},
		{ok, authz.RouteFact{State: authz.RouteNone}, `{"state":"ok"}`, `{"state":"none"}`},
		{ok, authz.RouteFact{State: authz.RouteMissing}, `{"state":"ok"}`, `{"state":"missing"}`},
		{authz.PathFact{State: authz.PathMalformed, Fault: authz.PathBackslash}, authz.RouteFact{State: authz.RouteNone},
			`{"state":"malformed","fault":"backslash","meaning":"Some servers read a backslash as a slash."}`, `{"state":"none"}`},
		{authz.PathFact{}, authz.RouteFact{}, "", ""},
	} {
		raw, err := json.Marshal(viewExplanation(&check.Explanation{Facts: authz.Facts{Path: c.path, Route: c.route}}))
		if err != nil {
			t.Fatal(err)
		}
		if path, route := string(part(raw, "path")), string(part(raw, "route")); path != c.inPath || route != c.inR {
			t.Errorf("path %s\nwant %s\nroute %s\nwant  %s", path, c.inPath, route, c.inR)
		}
	}
}

// TestPathFaults_AllHaveAMeaning reads the faults from the source, so that a new one cannot be forgotten.
func TestPathFaults_AllHaveAMeaning(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../route.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []authz.PathFault
	ast.Inspect(file, func(n ast.Node) bool {
		if c, ok := n.(*ast.ValueSpec); ok {
			if kind, ok := c.Type.(*ast.Ident); ok && kind.Name == "PathFault" {
				text, err := strconv.Unquote(c.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, authz.PathFault(text))
			}
		}
		return true
	})
	slices.Sort(all)
	if known := slices.Sorted(maps.Keys(pathFaults)); len(all) < 10 || !slices.Equal(all, known) {
		t.Errorf("the faults are %q, those with a meaning %q", all, known)
	}
}

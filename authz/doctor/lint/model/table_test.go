package model

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
)

// This package reads tables by itself, with lines. It finds the routes that the server finds, under the same names.
func TestTable_AgreesWithTheServer(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	usable, taken, open := 0, 0, 0
	for range 1500 {
		text := randomTable(r)
		served, faults := route.Parse(specOf(t, text))
		if len(faults) > 0 {
			continue
		}
		usable++
		ours := tableOf(t, text)
		if want, got := namesOf(served), entryNames(ours); !slices.Equal(want, got) {
			t.Fatalf("%s\nnames: want %q, got %q", text, want, got)
		}
		for _, e := range ours.Entries {
			for _, x := range e.examples(3) {
				for _, method := range commonMethods {
					want := serves(served, method, x)
					if got := ours.takes(method, x); got != want {
						t.Fatalf("%s\n%s %s %q: the server finds a route: %v, and doctor: %v", text, method, x.host, x.path, want, got)
					}
					if want {
						taken++
					} else {
						open++
					}
				}
			}
		}
	}
	if usable < 300 || taken < 1000 || open < 1000 {
		t.Errorf("only %d tables with %d requests that are taken and %d that are not", usable, taken, open)
	}
}

func randomTable(r *rand.Rand) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	routes := []string{}
	for range 1 + r.IntN(4) {
		match := map[string]any{}
		path := ""
		for range r.IntN(4) {
			path += "/" + pick("a", "B", "a.json", "{x}", "*", "v{y}", "{z}.pdf", "é")
		}
		match["path"] = path + pick("", "", "/**")
		if match["path"] == "" {
			match["path"] = "/"
		}
		if r.IntN(2) == 0 {
			match["methods"] = [][]string{{"GET"}, {"POST", "PUT"}, {"GET", "DELETE"}}[r.IntN(3)]
		}
		if r.IntN(3) == 0 {
			match["hosts"] = [][]string{{"a.example.com"}, {"*.example.com"}, {"a.example.com", "b.example.org"}}[r.IntN(3)]
		}
		raw, _ := json.Marshal(map[string]any{"match": match, "scopes": []string{"s"}})
		routes = append(routes, string(raw))
	}
	paths := pick(`{}`, `{}`, `{"case": "exact"}`)
	return `{"tollkeeper": {"paths": ` + paths + `, "routes": [` + strings.Join(routes, ", ") + `]}}`
}

func specOf(t *testing.T, text string) route.Spec {
	t.Helper()
	var data struct{ Tollkeeper struct{ Routes, Paths any } }
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		t.Fatal(err)
	}
	return route.Spec{Routes: data.Tollkeeper.Routes, Paths: data.Tollkeeper.Paths}
}

func tableOf(t *testing.T, text string) *Table {
	t.Helper()
	m, err := Build([]*File{Parse("routes.json", []byte(text), AnySubject)}, Options{})
	if err != nil || len(m.Tables) != 1 || m.Tables[0].Partial {
		t.Fatalf("%v: %s", err, text)
	}
	return m.Tables[0]
}

func namesOf(served *route.Table) (names []string) {
	for _, r := range served.Routes() {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	return names
}

func entryNames(t *Table) (names []string) {
	for _, e := range t.Entries {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names
}

func serves(served *route.Table, method string, x example) bool {
	var path authz.PathFact
	var found authz.RouteFact
	served.Match(&authz.Request{HTTP: &authz.HTTP{Method: method, Host: x.host, Path: "/" + strings.Join(x.path, "/")}}, &path, &found, nil)
	return found.State == authz.RouteOK
}

// Doctor never says that a route of Envoy and an entry do not meet if one request is for both.
func TestTable_MeetsRoutesThatShareARequest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	apart, shared := 0, 0
	for range 500 {
		ours := tableOf(t, randomTable(r))
		for _, e := range ours.Entries {
			for _, x := range e.examples(3) {
				path := "/" + strings.Join(x.path, "/")
				for _, raw := range []string{path, strings.TrimSuffix(path, "/") + "/"} {
					for _, m := range matchesOf(r, raw) {
						for _, o := range ours.Entries {
							meet := ours.mayMeet(o, routeOf(m, x.host))
							if o.pattern.takes(x.path) && hostsMeet(o.Hosts, []string{x.host}) {
								if shared++; !meet {
									t.Fatalf("%s of %s: %v does not meet %q", raw, x.host, m, o.Name)
								}
							} else if !meet {
								apart++
							}
						}
					}
				}
			}
		}
	}
	if shared < 1000 || apart < 1000 {
		t.Errorf("only %d pairs share a request, and %d are apart", shared, apart)
	}
}

// matchesOf are matches of Envoy that match a path.
func matchesOf(r *rand.Rand, path string) []*routev3.RouteMatch {
	letters := []rune(path)
	out := []*routev3.RouteMatch{
		{PathSpecifier: &routev3.RouteMatch_Path{Path: path}},
		{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: string(letters[:1+r.IntN(len(letters))])}},
		{PathSpecifier: &routev3.RouteMatch_SafeRegex{}},
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		out = append(out, &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path[:i]}})
	}
	return out
}

func routeOf(m *routev3.RouteMatch, host string) *Route {
	r := &Route{Msg: &routev3.Route{Match: m}}
	r.Host.Msg = &routev3.VirtualHost{Domains: []string{host + ":8080"}}
	return r
}

package route

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

func TestParse_Faults(t *testing.T) {
	entry := func(fields string) string {
		return fmt.Sprintf(`{"routes": [{"name": "x", "match": {"path": "/a"}, %s}]}`, fields)
	}
	match := func(fields string) string { return fmt.Sprintf(`{"routes": [{"name": "x", "match": {%s}}]}`, fields) }
	tests := []struct{ name, file, at, text string }{
		{"no list", `{"routes": {"openapi": "x.yaml"}}`, "routes", "want a list of routes"},
		{"no object", `{"routes": ["/a"]}`, "routes.0", "want a route with fields"},
		{"an unknown field", entry(`"scope": ["admin"]`), "routes.0.scope", "did you mean scopes?"},
		{"an unknown field of match", match(`"path": "/a", "method": ["GET"]`), "routes.0.match.method", "did you mean methods?"},
		{"match is no object", `{"routes": [{"name": "x", "match": "/a"}]}`, "routes.0.match", "want an object"},
		{"match is null", `{"routes": [{"name": "x", "match": null}]}`, "routes.0.match", "want an object"},
		{"no match and no name", `{"routes": [{"public": true}]}`, "routes.0", "match is missing"},
		{"no path", match(`"methods": ["GET"]`), "routes.0.match.path", "path is missing"},
		{"a path without a slash", match(`"path": "a"`), "routes.0.match.path", "slash at the beginning"},
		{"a slash at the end", match(`"path": "/a/"`), "routes.0.match.path", "slash at the end"},
		{"an empty segment", match(`"path": "/a//b"`), "routes.0.match.path", "between two slashes"},
		{"two stars in the middle", match(`"path": "/**/a"`), "routes.0.match.path", "only be the last"},
		{"a star in a segment", match(`"path": "/a*"`), "routes.0.match.path", `"a{name}"`},
		{"three stars", match(`"path": "/***"`), "routes.0.match.path", "not a whole segment"},
		{"a colon for a name", match(`"path": "/a/:id"`), "routes.0.match.path", "write {id}"},
		{"angles for a name", match(`"path": "/a/<id>"`), "routes.0.match.path", "write {id}"},
		{"an open brace", match(`"path": "/a/{id"`), "routes.0.match.path", "braces"},
		{"a closed brace", match(`"path": "/a/id}"`), "routes.0.match.path", "braces"},
		{"two names in one segment", match(`"path": "/{a}-{b}"`), "routes.0.match.path", "two names in one segment"},
		{"one name twice", match(`"path": "/{a}/{a}"`), "routes.0.match.path", "there twice"},
		{"no name", match(`"path": "/{}"`), "routes.0.match.path", "name is \"\""},
		{"a name of Go's ServeMux", match(`"path": "/{rest...}"`), "routes.0.match.path", "write **"},
		{"a space in a name", match(`"path": "/{rest x}"`), "routes.0.match.path", "the name is"},
		{"an escape", match(`"path": "/a%20b"`), "routes.0.match.path", "write the character itself"},
		{"a query", match(`"path": "/a?b"`), "routes.0.match.path", "query"},
		{"small letters", match(`"path": "/a", "methods": ["get"]`), "routes.0.match.methods.0", "did you mean GET?"},
		{"a misspelt method", match(`"path": "/a", "methods": ["GET", "DELTE"]`), "routes.0.match.methods.1", "did you mean DELETE?"},
		{"a text for methods", match(`"path": "/a", "methods": "GET"`), "routes.0.match.methods", "want a list of methods"},
		{"no methods", match(`"path": "/a", "methods": []`), "routes.0.match.methods", "matches nothing"},
		{"a method twice", match(`"path": "/a", "methods": ["GET", "GET"]`), "routes.0.match.methods.1", "there twice"},
		{"no hosts", match(`"path": "/a", "hosts": []`), "routes.0.match.hosts", "matches nothing"},
		{"nothing after methods", match(`"path": "/a", "methods": null`), "routes.0.match.methods", "want a list of methods"},
		{"nothing after hosts", match(`"path": "/a", "hosts": null`), "routes.0.match.hosts", "want a list of hosts"},
		{"nothing after the hosts of a document", `{"routes": [{"openapi": "a.yaml", "match": {"hosts": null}}]}`, "routes.0.match.hosts", "want a list of hosts"},
		{"a dot at the beginning of a host", match(`"path": "/a", "hosts": [".a.org"]`), "routes.0.match.hosts.0", "write *.a.org"},
		{"two dots in a host", match(`"path": "/a", "hosts": ["a..org"]`), "routes.0.match.hosts.0", "want a name"},
		{"an IPv6 address without brackets", match(`"path": "/a", "hosts": ["2001:db8::1"]`), "routes.0.match.hosts.0", "such as [2001:db8::1]"},
		{"a long IPv6 address", match(`"path": "/a", "hosts": ["[0:0:0:0:0:0:0:1]"]`), "routes.0.match.hosts.0", "shortest form"},
		{"brackets", match(`"path": "/a", "hosts": ["]:["]`), "routes.0.match.hosts.0", "want a name"},
		{"a port", match(`"path": "/a", "hosts": ["a.org:80"]`), "routes.0.match.hosts.0", "without a port"},
		{"a scheme", match(`"path": "/a", "hosts": ["https://a.org"]`), "routes.0.match.hosts.0", "without scheme"},
		{"a star alone", match(`"path": "/a", "hosts": ["*"]`), "routes.0.match.hosts.0", "a star stands for"},
		{"a star inside", match(`"path": "/a", "hosts": ["a.*.org"]`), "routes.0.match.hosts.0", "a star stands for"},
		{"an umlaut", match(`"path": "/a", "hosts": ["ä.org"]`), "routes.0.match.hosts.0", "Punycode"},
		{"an empty host", match(`"path": "/a", "hosts": [""]`), "routes.0.match.hosts.0", "want a list of hosts"},
		{"one host in two spellings", match(`"path": "/a", "hosts": ["a.org", "A.org"]`), "routes.0.match.hosts.1", "there twice"},
		{"public is a text", entry(`"public": "yes"`), "routes.0.public", "true or false"},
		{"public with scopes", entry(`"public": true, "scopes": ["a"]`), "routes.0.scopes", "asks for nothing"},
		{"scopes is a text", entry(`"scopes": "a b"`), "routes.0.scopes", "want a list of scopes"},
		{"two scopes in a text", entry(`"scopes": ["a b"]`), "routes.0.scopes.0", "without spaces"},
		{"an unknown plan", entry(`"plans": ["pro", "gold"]`), "routes.0.plans.1", `plan "gold" does not exist`},
		{"no plans", entry(`"plans": []`), "routes.0.plans", "no caller could use"},
		{"an unknown limit", entry(`"charge": {"calls": 1}`), "routes.0.charge.calls", `no plan has a limit "calls"`},
		{"a limit of other plans", entry(`"plans": ["free"], "charge": {"credits": 1}`), "routes.0.charge.credits", `none of the plans free has a limit`},
		{"a negative charge", entry(`"charge": {"rate": -1}`), "routes.0.charge.rate", "whole number"},
		{"half a unit", entry(`"charge": {"rate": 1.5}`), "routes.0.charge.rate", "whole number"},
		{"one too much", entry(`"charge": {"rate": 9007199254740993}`), "routes.0.charge.rate", "whole number"},
		{"too much", entry(`"charge": {"rate": 1e300}`), "routes.0.charge.rate", "whole number"},
		{"a text for units", entry(`"charge": {"rate": "1"}`), "routes.0.charge.rate", "whole number"},
		{"a number for a charge", entry(`"charge": 5`), "routes.0.charge", "want units by the name"},
		{"an empty environment", entry(`"environment": ""`), "routes.0.environment", "want a text"},
		{"an environment that YAML reads as true", entry(`"environment": true`), "routes.0.environment", "want a text"},
		{"a wish for a token", entry(`"token": "optional"`), "routes.0.token", "want required"},
		{"a wish for a key", entry(`"key": true`), "routes.0.key", "want required"},
		{"a path too long for a name", `{"routes": [{"match": {"path": "/` + strings.Repeat("a", 200) + `"}}]}`, "routes.0", "a name is missing"},
		{"a name twice", `{"routes": [{"name": "x"}, {"name": "x", "match": {"path": "/a"}}]}`, "routes.1", `another route has the name "x"`},
		{"a derived name", `{"routes": [{"name": "GET /a"}, {"match": {"path": "/a", "methods": ["GET"]}}]}`, "routes.1", `another route has the name "GET /a"`},
		{"an unknown setting", `{"paths": {"matrx": "keep"}}`, "paths.matrx", "did you mean matrix?"},
		{"a bad setting", `{"paths": {"case": "lower"}}`, "paths.case", "want fold or exact"},
		{"settings in a list", `{"paths": ["fold"]}`, "paths", "want an object"},
		{"bad unmatched", `{"unmatched": "refuse"}`, "unmatched", "want charge, allow or deny"},
		{"OpenAPI without a reader", `{"routes": [{"openapi": "a.yaml"}]}`, "routes.0.openapi", "cannot be read"},
		{"OpenAPI with another field", `{"routes": [{"openapi": "a.yaml", "scopes": []}]}`, "routes.0.scopes", "is no field here"},
	}
	for _, tt := range tests {
		table, faults := Parse(specOf(t, tt.file))
		if table != nil || len(faults) == 0 {
			t.Errorf("%s: no fault", tt.name)
			continue
		}
		var at []string
		for _, part := range faults[0].At {
			at = append(at, fmt.Sprint(part))
		}
		if got := strings.Join(at, "."); got != tt.at || !strings.Contains(faults[0].Text, tt.text) {
			t.Errorf("%s: %s: %s, want %s: %s", tt.name, got, faults[0].Text, tt.at, tt.text)
		}
	}
}

func TestParse_Conflicts(t *testing.T) {
	tests := []struct {
		name     string
		settings string
		lines    []string
		text     string // of the fault, "" for none
	}{
		{"the same twice", "", []string{"GET /a", "GET /a"}, "has the name"},
		{"other names of the parameters", "", []string{"/a/{x}", "/a/{y}"}, "matches the same requests"},
		{"a star and a name", "", []string{"/a/*", "/a/{y}"}, "matches the same requests"},
		{"letters that differ in case", "", []string{"/a", "/A"}, "matches the same requests"},
		{"letters that differ in case, exactly", `{"case": "exact"}`, []string{"/a", "/A"}, ""},
		{"hosts in another order", "", []string{"a.org,b.org /", "b.org,a.org /"}, "matches the same requests"},
		{"methods against a path", "", []string{"GET /a/**", "/a/b"}, "neither is more specific"},
		{"methods against a path, settled", "", []string{"GET /a/**", "/a/b", "GET /a/b"}, ""},
		{"methods against methods", "", []string{"POST,PUT /a", "PUT,DELETE /a"}, "both match PUT /a"},
		{"methods against methods, settled", "", []string{"POST,PUT /a", "PUT,DELETE /a", "PUT /a"}, ""},
		{"two settle it together", "", []string{"GET /a/**", "/a/b", "GET,POST /a/*", "HEAD /a/b", "GET /a/b"}, "neither is more specific"},
		{"a host against a path", "", []string{"a.org /**", "/a"}, "neither is more specific"},
		{"a host against a path, settled", "", []string{"a.org /**", "/a", "a.org /a"}, ""},
		{"crossed names", "", []string{"/a/{x}", "/{x}/b"}, "both match /a/b"},
		{"crossed names, settled", "", []string{"/a/{x}", "/{x}/b", "/a/b"}, ""},
		{"a beginning and an end", "", []string{"/a{x}", "/{x}b"}, "both match"},
		{"a beginning and an end, as good as settled", "", []string{"/a{x}", "/{x}b", "/a{x}b"}, "both match"},
		{"different paths", "", []string{"GET /a/**", "/b"}, ""},
		{"different methods", "", []string{"GET /a/**", "POST /a/b"}, ""},
		{"different hosts", "", []string{"a.org /**", "b.org /a", "*.a.org /b"}, ""},
		{"extensions that play no part", `{"extension": "ignore"}`, []string{"/a.json", "/a.xml"}, "matches the same requests"},
	}
	for _, tt := range tests {
		for _, reversed := range []bool{false, true} {
			lines := slices.Clone(tt.lines)
			if reversed {
				slices.Reverse(lines)
			}
			_, faults := Parse(specOf(t, fileOf(tt.settings, lines...)))
			if (len(faults) > 0) != (tt.text != "") || len(faults) > 0 && !strings.Contains(faults[0].Text, tt.text) {
				t.Errorf("%s, reversed %v: %+v, want %q", tt.name, reversed, faults, tt.text)
			}
		}
	}
}

func TestParse_RoutesThatNeverApply(t *testing.T) {
	tests := []struct {
		name     string
		settings string
		lines    []string
		text     string
	}{
		{"methods that others name", "", []string{"GET,POST /a", "GET /a", "HEAD /a", "POST /a"}, `"GET,POST /a" can never apply: more specific routes`},
		{"hosts that others name", "", []string{"a.org,b.org /", "a.org /", "b.org /"}, "more specific routes"},
		{"a rest that others cover", "", []string{"/a/**", "/a", "/a/*", "/a/*/**"}, `"/a/**" can never apply: more specific routes`},
		{"a rest of which one part is left", "", []string{"/a/**", "/a", "/a/*/**"}, "more specific routes"},
		{"a semicolon", "", []string{"/a;b"}, "refused as matrix_parameter"},
		{"a semicolon that is kept", `{"matrix": "keep"}`, []string{"/a;b"}, ""},
		{"a semicolon that is stripped", `{"matrix": "strip"}`, []string{"/a;b"}, "can never apply"},
		{"a dot segment", "", []string{"/a/../b"}, "refused as dot_segment"},
		{"a backslash", "", []string{`/a\b`}, "refused as backslash"},
		{"a dot at the end", "", []string{"/a."}, "refused as loose_ending"},
		{"a full-width letter", "", []string{"/ａ"}, "refused as compatible_text"},
		{"a rest of which none is left", "", []string{"/a/**", "/a/{x}", "/a"}, ""},
	}
	for _, tt := range tests {
		_, faults := Parse(specOf(t, fileOf(tt.settings, tt.lines...)))
		if (len(faults) > 0) != (tt.text != "") || len(faults) > 0 && !strings.Contains(faults[0].Text, tt.text) {
			t.Errorf("%s: %+v, want %q", tt.name, faults, tt.text)
		}
	}
}

func TestParse_FillsTheRoute(t *testing.T) {
	table := mustParse(t, `{"unmatched": "deny", "paths": null, "routes": [
		{"match": {"path": "/a/{id}", "methods": ["GET", "POST"], "hosts": ["API.example.com"]}, "scopes": ["r", "w"], "plans": ["pro"], "environment": "live",
		 "key": "required", "token": "required", "charge": {"credits": 5.0, "rate": 0}},
		{"name": "free", "charge": {}}, {"name": "open", "match": {"path": "/open"}, "public": true}]}`)
	got, err := json.Marshal(table.Routes()[table.names["GET,POST api.example.com /a/{id}"]])
	want := `{"Name":"GET,POST api.example.com /a/{id}","Template":"/a/{id}","Methods":["GET","POST"],"Hosts":["api.example.com"],"Public":false,` +
		`"Scopes":["r","w"],"Plans":["pro"],"Environment":"live","KeyRequired":true,"TokenRequired":true,"Charge":{"credits":5,"rate":0}}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
	if free := table.Routes()[table.names["free"]]; free.Charge == nil || len(free.Charge) > 0 {
		t.Errorf("an empty charge is %v", free.Charge)
	}
}

func TestParse_Documents(t *testing.T) {
	s := specOf(t, `{"routes": [{"openapi": "a.yaml", "match": {"hosts": ["a.org"]}}, {"name": "own", "match": {"path": "/x"}}]}`)
	s.OpenAPI = func(file string) ([]Imported, []Fault) {
		return []Imported{{Entry: jsonOf(t, `{"name": "op", "match": {"path": "/b/{id}", "methods": ["GET"]}}`).(map[string]any), File: file, Line: 7}}, nil
	}
	table, faults := Parse(s)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for line, want := range map[string]string{"GET http://a.org/b/7": "op id=7", "GET http://b.org/b/7": "-", "GET /x": "own"} {
		if got := answer(table, request(line)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	s.OpenAPI = func(file string) ([]Imported, []Fault) {
		return []Imported{{Entry: jsonOf(t, `{"name": "op", "match": {"path": "/b/"}}`).(map[string]any), File: file}}, nil
	}
	if table, faults = Parse(s); len(faults) > 0 || answer(table, request("GET http://a.org/b")) != "op" {
		t.Errorf("a slash at the end of a path of a document: %+v", faults)
	}
	s.Plans, s.OpenAPI = nil, func(file string) ([]Imported, []Fault) {
		return []Imported{{Entry: map[string]any{"name": "op", "charge": map[string]any{"x": 1}}, File: file, Line: 7}}, nil
	}
	if _, faults := Parse(s); len(faults) != 1 || faults[0].File != "a.yaml" || faults[0].Line != 7 {
		t.Errorf("the faults are %+v, want one at a.yaml:7", faults)
	}
	s.OpenAPI = func(string) ([]Imported, []Fault) { return nil, nil }
	if _, faults := Parse(s); len(faults) != 1 || !strings.Contains(faults[0].Text, "no operations") {
		t.Errorf("the faults are %+v, want one about no operations", faults)
	}
}

// TestMatch_DoesNotAllocate: a check finds its route without allocating, whatever the ids in its path are.
func TestMatch_DoesNotAllocate(t *testing.T) {
	table := thousand(t)
	for _, line := range thousandRequests {
		r := request(line)
		var path authz.PathFact
		var route authz.RouteFact
		var room [4]authz.Param
		if n := testing.AllocsPerRun(100, func() { table.Match(r, &path, &route, room[:0]) }); n > 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
		if path.State != authz.PathOK || route.State != authz.RouteOK {
			t.Errorf("%s: %+v %+v", line, path, route)
		}
	}
}

var thousandRequests = []string{
	"GET /v1/service7/orders/123", "GET /v1/service249/orders/0b6f2c1e-6a8e-4b7a-9a47-0d9d3f8f5b11/items/AbCdEF_-19xyz", "POST /v2/service12/orders", "GET /V1/Service77/Orders/7",
}

func thousand(t testing.TB) *Table {
	var lines []string
	for i := range 250 {
		lines = append(lines, fmt.Sprintf("GET /v1/service%d/orders/{id}", i), fmt.Sprintf("/v1/service%d/orders/{id}", i),
			fmt.Sprintf("GET /v1/service%d/orders/{id}/items/{item}", i), fmt.Sprintf("/v2/service%d/orders/**", i))
	}
	return tableOf(t, "", lines...)
}

func BenchmarkMatch(b *testing.B) {
	table := thousand(b)
	for _, line := range thousandRequests {
		b.Run(strings.NewReplacer(" ", "_", "/", "_").Replace(line), func(b *testing.B) {
			r := request(line)
			for range 15 {
				r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: "x-some-header", Value: "v"})
			}
			var path authz.PathFact
			var route authz.RouteFact
			var room [4]authz.Param
			b.ReportAllocs()
			for b.Loop() {
				table.Match(r, &path, &route, room[:0])
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	s := specOf(b, func() string {
		var lines []string
		for i := range 1000 {
			lines = append(lines, fmt.Sprintf("GET /v1/service%d/orders/{id}", i))
		}
		return fileOf("", lines...)
	}())
	for b.Loop() {
		Parse(s)
	}
}

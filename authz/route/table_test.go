package route

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

var plans = map[string][]authz.Limit{
	"free": {{Name: "rate"}, {Name: "daily"}},
	"pro":  {{Name: "rate"}, {Name: "credits"}},
}

// jsonOf reads JSON as the policies' data is read.
func jsonOf(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func specOf(t testing.TB, text string) Spec {
	t.Helper()
	m := jsonOf(t, text).(map[string]any)
	return Spec{Routes: m["routes"], Paths: m["paths"], Unmatched: m["unmatched"], Plans: plans}
}

func mustParse(t testing.TB, text string) *Table {
	t.Helper()
	table, faults := Parse(specOf(t, text))
	if len(faults) > 0 {
		t.Fatalf("%s: %+v", text, faults)
	}
	return table
}

// tableOf makes a table of lines such as "GET,POST api.example.com /v1/{id}". Each route has its line as its name.
func tableOf(t testing.TB, settings string, lines ...string) *Table {
	t.Helper()
	return mustParse(t, fileOf(settings, lines...))
}

func fileOf(settings string, lines ...string) string {
	var routes []string
	for _, line := range lines {
		match := map[string]any{}
		for _, word := range strings.Fields(line) {
			switch {
			case strings.HasPrefix(word, "/"):
				match["path"] = word
			case strings.ToUpper(word) == word && !strings.Contains(word, "."):
				match["methods"] = strings.Split(word, ",")
			default:
				match["hosts"] = strings.Split(word, ",")
			}
		}
		b, _ := json.Marshal(map[string]any{"name": line, "match": match})
		routes = append(routes, string(b))
	}
	if settings == "" {
		settings = "{}"
	}
	return fmt.Sprintf(`{"paths": %s, "routes": [%s]}`, settings, strings.Join(routes, ","))
}

// request makes a request of "GET http://host/path".
func request(line string) *authz.Request {
	method, url, _ := strings.Cut(line, " ")
	h := &authz.HTTP{Method: method, Host: "api.example.com", Path: url}
	if rest, ok := strings.CutPrefix(url, "http://"); ok {
		i := strings.IndexByte(rest, '/')
		h.Host, h.Path = rest[:i], rest[i:]
	}
	return &authz.Request{HTTP: h}
}

// answer is the name of the route, with its parameters, "-" for none, or the state and the fault of the path.
func answer(t *Table, r *authz.Request) string {
	var path authz.PathFact
	var route authz.RouteFact
	t.Match(r, &path, &route, nil)
	if path.State != authz.PathOK {
		return string(path.State) + " " + string(path.Fault)
	}
	switch route.State {
	case authz.RouteNone:
		return "-"
	case authz.RouteMissing:
		return "missing"
	}
	out := route.Route.Name
	for _, p := range route.Params {
		out += fmt.Sprintf(" %s=%s", p.Name, p.Value)
	}
	return out
}

func TestTable_PatternsMatch(t *testing.T) {
	tests := []struct{ pattern, path, want string }{
		{"/", "/", "/"},
		{"/", "//", "/"},
		{"/", "/a", "-"},
		{"/**", "/", "/**"},
		{"/**", "/a/b", "/**"},
		{"/a", "/a", "/a"},
		{"/a", "/a/", "/a"},
		{"/a", "/ab", "-"},
		{"/a", "/", "-"},
		{"/a", "/A", "/a"},
		{"/a", "/a?b=/c", "/a"},
		{"/a/**", "/a", "/a/**"},
		{"/a/**", "/a/b/c", "/a/**"},
		{"/a/**", "/ab", "-"},
		{"/a/**", "/b/a", "-"},
		{"/a/*", "/a/b", "/a/*"},
		{"/a/*", "/a", "-"},
		{"/a/*", "/a//", "-"},
		{"/a/*", "/a/b/c", "-"},
		{"/a/*/c/**", "/a/b/c/d", "/a/*/c/**"},
		{"/a/*/c/**", "/a/b/d", "-"},
		{"/a/b", "///a///b///", "/a/b"},
		{"/a/{id}", "/a/7", "/a/{id} id=7"},
		{"/a/{id}", "/a/X%20y", "/a/{id} id=X y"},
		{"/a/{id}/b/{n}", "/a/7/B/8", "/a/{id}/b/{n} id=7 n=8"},
		{"/a/{id}.pdf", "/a/x.y.PDF", "/a/{id}.pdf id=x.y"},
		{"/a/{id}.pdf", "/a/.pdf", "-"},
		{"/a/{id}:cancel", "/a/7:cancel", "/a/{id}:cancel id=7"},
		{"/a/v{x}", "/a/V12", "/a/v{x} x=12"},
		{"/a/K{x}", "/a/\u212aé", "/a/K{x} x=é"},
		{"/ü", "/%C3%BC", "/ü"},
		{"/ü", "/%C3%9C", "/ü"},
		{"/a b", "/a%20b", "/a b"},
		{"/pkg.Service/Get", "/pkg.Service/Get", "/pkg.Service/Get"},
		{"/.well-known/x", "/.well-known/x", "/.well-known/x"},
	}
	for _, tt := range tests {
		table := mustParse(t, fmt.Sprintf(`{"routes": [{"name": %q, "match": {"path": %q}}]}`, tt.pattern, tt.pattern))
		if got := answer(table, request("GET "+tt.path)); got != tt.want {
			t.Errorf("%s and %s: %q, want %q", tt.pattern, tt.path, got, tt.want)
		}
	}
}

func TestTable_TheMostSpecificApplies(t *testing.T) {
	lines := []string{
		"/**", "/v1/**", "GET /v1/reports/**", "/v1/reports/**", "/v1/reports/{id}", "GET /v1/reports/{id}", "/v1/reports/{id}.pdf", "GET /v1/reports/{id}.pdf",
		"/v1/reports/latest", "GET /v1/reports/latest", "/v1/*/latest", "/v1/users/*", "/v1/users/latest", "HEAD /v1/users/*",
		"admin.example.com /**", "admin.example.com /v1/**", "*.example.com /v1/**", "GET /v1/**", "GET admin.example.com /v1/**", "GET *.example.com /v1/**",
	}
	// These settle what the lines above leave open.
	for _, host := range []string{"*.example.com", "admin.example.com"} {
		for _, l := range lines[:14] {
			if l != "/**" && !strings.Contains(l, "v1/**") {
				method, path, found := strings.Cut(l, " ")
				if !found {
					method, path = "", method
				}
				lines = append(lines, strings.TrimSpace(method+" "+host+" "+path))
			}
		}
	}
	lines = append(lines, "GET /v1/users/latest", "HEAD /v1/users/latest", "GET /v1/*/latest", "GET /v1/users/*")
	for _, h := range []string{"*.example.com", "admin.example.com"} {
		for _, l := range []string{"GET /v1/users/latest", "HEAD /v1/users/latest", "GET /v1/*/latest", "GET /v1/users/*"} {
			m, p, _ := strings.Cut(l, " ")
			lines = append(lines, m+" "+h+" "+p)
		}
	}
	tests := []struct{ request, want string }{
		{"POST http://other.org/", "/**"},
		{"POST http://other.org/v1/x", "/v1/**"},
		{"GET http://other.org/v1/x", "GET /v1/**"},
		{"GET http://other.org/v1/reports/7", "GET /v1/reports/{id}"},
		{"POST http://other.org/v1/reports/7", "/v1/reports/{id}"},
		{"GET http://other.org/v1/reports/7.pdf", "GET /v1/reports/{id}.pdf"},
		{"GET http://other.org/v1/reports/latest", "GET /v1/reports/latest"},
		{"GET http://other.org/v1/reports/7/8", "GET /v1/reports/**"},
		{"HEAD http://other.org/v1/users/7", "HEAD /v1/users/*"},
		{"HEAD http://other.org/v1/reports/7", "GET /v1/reports/{id}"},
		{"POST http://admin.example.com/", "admin.example.com /**"},
		{"POST http://ADMIN.example.com.:8443/v1/x", "admin.example.com /v1/**"},
		{"POST http://a.b.example.com/v1/x", "*.example.com /v1/**"},
		{"POST http://a.b.example.com/", "/**"},
		{"POST http://example.com/v1/x", "/v1/**"},
		{"GET http://admin.example.com/v1/reports/latest", "GET admin.example.com /v1/reports/latest"},
	}
	for range 5 { // the order of the entries plays no part
		table := tableOf(t, "", lines...)
		for _, tt := range tests {
			got, _, _ := strings.Cut(answer(table, request(tt.request)), " id=")
			if got != tt.want {
				t.Errorf("%s: %q, want %q", tt.request, got, tt.want)
			}
		}
		slices.Reverse(lines)
		lines = append(lines[7:], lines[:7]...)
	}
}

func TestTable_HeadGoesWithGet(t *testing.T) {
	table := tableOf(t, "", "GET /a", "/a", "GET /b", "HEAD,POST /b", "GET /c")
	for line, want := range map[string]string{
		"HEAD /a": "GET /a", "POST /a": "/a", "HEAD /b": "HEAD,POST /b", "GET /b": "GET /b", "HEAD /c": "GET /c", "POST /c": "-",
	} {
		if got := answer(table, request(line)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestTable_TheProxyChoosesByName(t *testing.T) {
	table := mustParse(t, `{"routes": [{"name": "it", "charge": {"rate": 7}}, {"name": "one", "match": {"path": "/v1/{id}"}}]}`)
	for _, tt := range []struct{ name, path, want string }{
		{"it", "/v1/7", "it"},
		{"one", "/V1/x", "one id=x"},
		{"one", "/other", "one"},
		{"", "/v1/7", "missing"},
		{"One", "/v1/7", "missing"},
		{"it", "/v1/../x", "malformed dot_segment"},
	} {
		r := request("GET " + tt.path)
		r.ContextExtensions = map[string]string{authz.RouteExtension: tt.name}
		if got := answer(table, r); got != tt.want {
			t.Errorf("%q for %s: %q, want %q", tt.name, tt.path, got, tt.want)
		}
	}
	if got := answer(table, request("GET /x")); got != "-" {
		t.Errorf("a route without a match applies: %q", got)
	}
}

func TestTable_NoRequest(t *testing.T) {
	table := tableOf(t, "", "/**")
	for _, r := range []*authz.Request{{}, {HTTP: &authz.HTTP{Path: "/"}}, {HTTP: &authz.HTTP{Method: "GET"}}, request("GET *"), request("GET v1"), request("GET ?/")} {
		if got := answer(table, r); !strings.HasPrefix(got, "malformed ") {
			t.Errorf("%+v: %q", r.HTTP, got)
		}
	}
}

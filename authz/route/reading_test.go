package route

import (
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// shop are routes like those of a small API.
var shop = []string{
	"GET /v1/reports/**", "/v1/reports/**", "/v1/render", "/v1/orders/{id}", "/v1/orders/{id}/items/{item}", "/files/{name}.pdf", "/admin/**",
	"/public/**", "/pkg.Service/Method",
}

func TestPath_Spellings(t *testing.T) {
	// Each is a spelling that some server in use reads as a path of shop, or a harmless one.
	tests := []struct{ path, want string }{
		{"/v1/reports/7", "GET /v1/reports/**"},
		{"/v1/reports;x=1/7", "malformed matrix_parameter"},
		{"/v1;x/reports/7", "malformed matrix_parameter"},
		{"/v1/reports%3Bx/7", "malformed matrix_parameter"},
		{"/v1/reports%253Bx/7", "malformed matrix_parameter"},
		{"/v1/render;v=1", "malformed matrix_parameter"},
		{"/V1/Reports/7", "GET /v1/reports/**"},
		{"/v1/RENDER", "/v1/render"},
		{"/v1/re%70orts/7", "GET /v1/reports/**"},
		{"/v1/re%2570orts/7", "ambiguous double_encoded"},
		{"/v1/re%252570orts/7", "ambiguous double_encoded"},
		{"/v1/re%25%37%30orts/7", "ambiguous double_encoded"},
		{"/v1/orders/100%2525", "/v1/orders/{id} id=100%25"},
		{"/v1/orders/100%25", "/v1/orders/{id} id=100%"},
		{"/v1/orders/a%2570b", "/v1/orders/{id} id=a%70b"},
		{"/v1//reports///7", "GET /v1/reports/**"},
		{"//v1/reports/7/", "GET /v1/reports/**"},
		{"/v1/./reports/7", "malformed dot_segment"},
		{"/public/../admin/x", "malformed dot_segment"},
		{"/public/%2e%2e/admin/x", "malformed dot_segment"},
		{"/public/.%2E/admin/x", "malformed dot_segment"},
		{"/public/%252e%252e/admin/x", "malformed dot_segment"},
		{"/public/..;/admin/x", "malformed dot_segment"},
		{"/public/.;x/admin/x", "malformed dot_segment"},
		{"/public/..%3b/admin/x", "malformed dot_segment"},
		{"/public/..%2fadmin/x", "malformed dot_segment"},
		{"/public/x%2f..%2f..%2fadmin", "malformed dot_segment"},
		{"/v1%2Freports/7", "malformed encoded_slash"},
		{"/v1%252Freports/7", "malformed encoded_slash"},
		{"/v1%5Creports/7", "malformed backslash"},
		{`/v1\reports\7`, "malformed backslash"},
		{"/v1/reports%00/7", "malformed control_character"},
		{"/v1/reports%09/7", "malformed control_character"},
		{"/v1/reports%0a/7", "malformed control_character"},
		{"/v1/reports%250a/7", "malformed control_character"},
		{"/v1/reports%C2%85/7", "malformed control_character"},
		{"/v1/reports%7f", "malformed control_character"},
		{"/v1/reports%20/7", "ambiguous loose_ending"},
		{"/v1/reports./7", "ambiguous loose_ending"},
		{"/v1/reports.%20./7", "ambiguous loose_ending"},
		{"/v1/render::$DATA", "ambiguous loose_ending"},
		{"/v1/reports::$INDEX_ALLOCATION/7", "ambiguous loose_ending"},
		{"/v1/re%2570orts%2520/7", "ambiguous double_encoded"},
		{"/v1/orders/Acme%20Inc.", "/v1/orders/{id} id=Acme Inc."},
		{"/v1/orders/7.", "/v1/orders/{id} id=7."},
		{"/v1/orders/...", "ambiguous loose_ending"},
		{"/v1/reports%c0%ae/7", "malformed unreadable"},
		{"/v1/%u002e", "malformed unreadable"},
		{"/v1/%", "malformed unreadable"},
		{"/v1/%2", "malformed unreadable"},
		{"/v1/reports/%ff", "malformed unreadable"},
		{"/v1/reports/%25ff", "malformed unreadable"},
		{"/v1/ｒeports/7", "ambiguous compatible_text"},
		{"/v1/reports／7", "ambiguous compatible_text"},
		{"/v1/%EF%BD%92eports/7", "ambiguous compatible_text"},
		{"/public/．．/admin", "ambiguous compatible_text"},
		{"/v1/orders/日本", "/v1/orders/{id} id=日本"},
		{"/v1/orders/ﬁ", "/v1/orders/{id} id=ﬁ"},
		{"/v1/\u212aeports", "-"},
		{"/v1/report\u017f/7", "GET /v1/reports/**"}, // ſ is a lower-case s
		{"/v1/reports.json", "-"},
		{"/files/a.pdf", "/files/{name}.pdf name=a"},
		{"/files/a.PDF/", "/files/{name}.pdf name=a"},
		{"/pkg.Service/Method", "/pkg.Service/Method"},
		{"/PKG.SERVICE/method", "/pkg.Service/Method"},
		{"/v1/reports?x=/../admin;y", "GET /v1/reports/**"},
		{"/v1/reports%3f/7", "ambiguous cut_short"},
		{"/v1/render%3Fx/y", "ambiguous cut_short"},
		{"/v1/render%23x", "ambiguous cut_short"},
		{"/v1/render%253Fx", "ambiguous double_encoded"},
		{"/v1/render%ef%bc%9fx", "ambiguous compatible_text"},
		{"/v1/orders/why%3F", "/v1/orders/{id} id=why?"},
		{"/elsewhere/why%3F", "-"},
		{"/v1/reports%2520/7", "ambiguous double_encoded"},
		{"/v1/reports%252e/7", "ambiguous double_encoded"},
		{"/v1/reports%C2%A0/7", "ambiguous compatible_text"},
		{"/v1/reports%EF%BC%8E/7", "ambiguous compatible_text"},
		{"/v1/%25EF%25BD%2592eports/7", "ambiguous double_encoded"},
		{"/adm%C4%B1n/x", "/admin/**"}, // Turkish: the small letter of I
		{"/ADM%C4%B0N/x", "/admin/**"}, // and the capital letter of i
		{"/v1/orders/a:b", "/v1/orders/{id} id=a:b"},
		{"/v1/orders/a'b\"c<d>", "/v1/orders/{id} id=a'b\"c<d>"},
		{"/" + strings.Repeat("a/", 1000), "-"},
		{"/v1/orders/" + strings.Repeat("%25%32%35", 20_000), "/v1/orders/{id} id=" + strings.Repeat("%25", 20_000)},
	}
	table := tableOf(t, "", shop...)
	for _, tt := range tests {
		if got := answer(table, request("GET "+tt.path)); got != tt.want {
			t.Errorf("%.80s: %.80q, want %.80q", tt.path, got, tt.want)
		}
	}
}

func TestPath_Settings(t *testing.T) {
	tests := []struct{ settings, path, want string }{
		{`{"matrix": "strip"}`, "/v1/reports;x=1/7", "GET /v1/reports/**"},
		{`{"matrix": "strip"}`, "/v1/orders/7;v=1", "/v1/orders/{id} id=7"},
		{`{"matrix": "strip"}`, "/v1/;x/render;/", "/v1/render"},
		{`{"matrix": "strip"}`, "/v1/reports%3Bx/7", "malformed matrix_parameter"},
		{`{"matrix": "strip"}`, "/public/..;x/admin", "malformed dot_segment"},
		{`{"matrix": "keep"}`, "/v1/reports;x=1/7", "-"},
		{`{"matrix": "keep"}`, "/v1/orders/7;v=1", "/v1/orders/{id} id=7;v=1"},
		{`{"matrix": "keep"}`, "/public/..;x/admin", "malformed dot_segment"},
		{`{"case": "exact"}`, "/V1/Reports/7", "-"},
		{`{"case": "exact"}`, "/v1/reports/7", "GET /v1/reports/**"},
		{`{"encoded_slash": "keep"}`, "/v1/orders/a%2Fb", "/v1/orders/{id} id=a/b"},
		{`{"encoded_slash": "keep"}`, "/v1%2Freports/7", "-"},
		{`{"encoded_slash": "keep"}`, "/v1/orders/a%252Fb", "/v1/orders/{id} id=a%2Fb"},
		{`{"encoded_slash": "keep"}`, "/v1/orders/a%2F..%2Fb", "malformed dot_segment"},
		{`{"encoded_slash": "keep"}`, "/v1/orders/a%5Cb", "malformed backslash"},
		{`{"repeated_slash": "refuse"}`, "/v1//reports/7", "malformed repeated_slash"},
		{`{"repeated_slash": "refuse"}`, "//v1/reports/7", "malformed repeated_slash"},
		{`{"repeated_slash": "refuse"}`, "/v1/render/", "/v1/render"},
		{`{"repeated_slash": "refuse", "matrix": "strip"}`, "/v1/;x/render", "malformed repeated_slash"},
		{`{"repeated_slash": "keep"}`, "/v1//render", "-"},
		{`{"repeated_slash": "keep"}`, "/v1/orders//", "-"},
		{`{"repeated_slash": "keep"}`, "/public//x", "/public/**"},
		{`{"trailing_slash": "exact"}`, "/v1/render/", "-"},
		{`{"trailing_slash": "exact"}`, "/v1/render", "/v1/render"},
		{`{"trailing_slash": "exact"}`, "/public/", "/public/**"},
		{`{"extension": "ignore"}`, "/v1/render.json", "/v1/render"},
		{`{"extension": "ignore"}`, "/v1/orders/7.json", "/v1/orders/{id} id=7"},
		{`{"extension": "ignore"}`, "/v1/orders/7.", "/v1/orders/{id} id=7."},
		{`{"extension": "ignore"}`, "/v1/orders/.json", "/v1/orders/{id} id=.json"},
	}
	for _, tt := range tests {
		lines := shop
		if strings.Contains(tt.settings, "extension") {
			lines = shop[:5]
		}
		if got := answer(tableOf(t, tt.settings, lines...), request("GET "+tt.path)); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.settings, tt.path, got, tt.want)
		}
	}
	exact := tableOf(t, `{"trailing_slash": "exact", "case": "exact"}`, "/a", "/a/", "/A")
	for path, want := range map[string]string{"/a": "/a", "/a/": "/a/", "/A": "/A", "/": "-"} {
		if got := answer(exact, request("GET "+path)); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestPath_OtherMethodsAndURLs(t *testing.T) {
	header := func(name, value string) func(*authz.Request) {
		return func(r *authz.Request) {
			r.HTTP.Headers = authz.Headers{{Name: "accept", Value: "*/*"}, {Name: name, Value: value}}
		}
	}
	param := func(value string) func(*authz.Request) {
		return func(r *authz.Request) { r.HTTP.Params = map[string][]string{"_method": {value}} }
	}
	both := func(url, method string) func(*authz.Request) {
		return func(r *authz.Request) {
			r.HTTP.Headers = authz.Headers{{Name: "x-original-url", Value: url}, {Name: "x-http-method-override", Value: method}}
		}
	}
	many := func(name, value string) func(*authz.Request) {
		return func(r *authz.Request) {
			r.HTTP.Headers = slices.Repeat(authz.Headers{{Name: name, Value: value}}, maxClaims+1)
		}
	}
	chosen := func(change func(*authz.Request)) func(*authz.Request) {
		return func(r *authz.Request) {
			r.ContextExtensions = map[string]string{authz.RouteExtension: "/admin/**"}
			change(r)
		}
	}
	tests := []struct {
		name, line string
		change     func(*authz.Request)
		want       string
	}{
		{"a method in small letters", "get /v1/reports/7", func(*authz.Request) {}, "ambiguous method_case"},
		{"a method in small letters where methods play no part", "get /v1/render", func(*authz.Request) {}, "/v1/render"},
		{"a header for the method", "POST /v1/reports/7", header("x-http-method-override", "get"), "ambiguous method_override"},
		{"another header for the method", "POST /v1/reports/7", header("x-http-method", "GET"), "ambiguous method_override"},
		{"a third header for the method", "POST /v1/reports/7", header("x-method-override", " GET "), "ambiguous method_override"},
		{"a method with the same route", "POST /v1/reports/7", header("x-http-method-override", "PATCH"), "/v1/reports/**"},
		{"a header for the method with underscores", "POST /v1/reports/7", header("x_http_method_override", "get"), "ambiguous method_override"},
		{"a header for the path with other separators", "GET /public/x", header("x.original_url", "/admin/x"), "ambiguous url_override"},
		{"a header of another name", "POST /v1/reports/7", header("x-http-methods", "get"), "/v1/reports/**"},
		{"an empty header", "POST /v1/reports/7", header("x-http-method-override", ""), "/v1/reports/**"},
		{"a parameter for the method", "POST /v1/reports/7", param("get"), "ambiguous method_override"},
		{"a parameter with the same route", "POST /v1/reports/7", param("delete"), "/v1/reports/**"},
		{"another path", "GET /public/x", header("x-original-url", "/admin/x"), "ambiguous url_override"},
		{"another path in the other header", "GET /public/x", header("x-rewrite-url", "/admin/x?y"), "ambiguous url_override"},
		{"another URL", "GET /public/x", header("x-original-url", "http://h/admin/x"), "ambiguous url_override"},
		{"another URL without a path", "GET /public/x", header("x-original-url", "http://h"), "ambiguous url_override"},
		{"no path at all", "GET /public/x", header("x-original-url", "admin"), "ambiguous url_override"},
		{"the same path", "GET /public/x", header("x-original-url", "https://h/public/x"), "/public/**"},
		{"another path without a route", "GET /other", header("x-original-url", "/elsewhere"), "-"},
		{"another path that a server reads loosely", "GET /other", header("x-original-url", "/v1/render."), "ambiguous url_override"},
		{"another path, encoded twice", "GET /other", header("x-original-url", "/v1/%2572ender"), "ambiguous url_override"},
		{"another path and another method", "PUT /other", both("/v1/users", "POST"), "ambiguous url_override"},
		{"another path with the method as it was sent", "PUT /other", both("/v1/users", "DELETE"), "-"},
		{"a method for a path that a server reads loosely", "GET /v1/users.", header("x-http-method-override", "POST"), "ambiguous method_override"},
		{"small letters and a path that a server reads loosely", "post /v1/users.", func(*authz.Request) {}, "ambiguous method_case"},
		{"the parameter in capital letters", "GET /v1/users", func(r *authz.Request) { r.HTTP.Params = map[string][]string{"_METHOD": {"post"}} }, "ambiguous method_override"},
		{"more methods than anybody needs", "POST /v1/reports/7", many("x-http-method", "PATCH"), "ambiguous method_override"},
		{"more URLs than anybody needs", "GET /public/x", many("x-original-url", "/public/x"), "ambiguous url_override"},
		{"a route of the proxy's choice", "GET /other", chosen(func(*authz.Request) {}), "/admin/**"},
		{"the proxy's choice, another method", "GET /other", chosen(header("x-http-method-override", "POST")), "ambiguous method_override"},
		{"the proxy's choice, another path", "GET /other", chosen(header("x-original-url", "/public/x")), "ambiguous url_override"},
		{"the proxy's choice, a path that cannot be read", "GET /other", chosen(header("x-original-url", "/other;x")), "ambiguous url_override"},
		{"the proxy's choice, the same path", "GET /other", chosen(header("x-original-url", "/OTHER/?x")), "/admin/**"},
		{"the proxy's choice, the same method", "GET /other", chosen(header("x-http-method-override", "get")), "/admin/**"},
		{"the proxy's choice, more URLs than anybody needs", "GET /other", chosen(many("x-original-url", "/other")), "ambiguous url_override"},
	}
	table := tableOf(t, "", append(slices.Clone(shop), "POST /v1/users")...)
	for _, tt := range tests {
		r := request(tt.line)
		tt.change(r)
		if got := answer(table, r); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := answer(tableOf(t, ""), request("get /v1/re%2570orts")); got != "-" {
		t.Errorf("without routes a path is %q", got)
	}
}

// TestPath_LongPathsAreCheap bounds what the other readings of a long path cost, for anybody can send one.
func TestPath_LongPathsAreCheap(t *testing.T) {
	const segments = 1000
	table := tableOf(t, "", "/a/**", "/b")
	r := request("GET /a" + strings.Repeat("/%C3%A9.", segments))
	n := testing.AllocsPerRun(5, func() {
		var path authz.PathFact
		var route authz.RouteFact
		if table.Match(r, &path, &route, nil); route.State != authz.RouteOK {
			t.Fatalf("%+v", path)
		}
	})
	if n > 10*segments {
		t.Errorf("%v allocations for %d segments", n, segments)
	}
}

package envoy

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// TestKeyInQuery_KeepsTheOtherParameters removes keys from queries that a caller may have signed.
func TestKeyInQuery_KeepsTheOtherParameters(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "free")
	for path, want := range map[string]string{
		"/v1?api_key=KEY":                             "/v1",
		"/v1?a=1&api_key=KEY":                         "/v1?a=1",
		"/v1?b=2&flag&api_key=KEY&a=%E9&sig=x%2By==":  "/v1?b=2&flag&a=%E9&sig=x%2By==",
		"/v1?%61pi_key=KEY&z=1&a=%c3%a9+b":            "/v1?z=1&a=%c3%a9+b",
		"/v1?api%5Fkey=KEY":                           "/v1",
		"/v1?&api_key=KEY&&=x&a=1&a=0":                "/v1?&&=x&a=1&a=0",
		"/v1/a%20b/~c?q='(*)!'&api_key=KEY&page=a/b?": "/v1/a%20b/~c?q='(*)!'&page=a/b?",
	} {
		for _, http2 := range []bool{false, true} {
			s.Reset()
			r := get(t, httpClient(t, http2), s.addr, strings.ReplaceAll(path, "KEY", key.Text))
			if last, _ := s.Last(); r.StatusCode != http.StatusOK || last.URI != want {
				t.Errorf("%s: %d, and the upstream was asked for %q, want %q", path, r.StatusCode, last.URI, want)
			}
		}
	}
	s.Reset()
	r := s.get("/v1?api_key="+key.Text+"&%61pi_key="+key.Text, "")
	s.wantDenial(r, http.StatusForbidden, "credential_ambiguous")
}

// TestKeyInCookie_KeepsTheOtherCookies removes keys from cookies.
func TestKeyInCookie_KeepsTheOtherCookies(t *testing.T) {
	o := harness.TollkeeperOptions{Policies: ownPolicies(t), Extra: "credentials: {cookies: [key]}\n"}
	s := runStack(t, o, func(y string) string {
		y = strings.ReplaceAll(y, "disallowed_headers: {patterns: [{exact: cookie}]}", "")
		return strings.ReplaceAll(y, "|authorization)$", "|authorization|cookie)$")
	})
	key := s.customer("acme", "free")
	for name, c := range map[string]struct{ sent, want []string }{
		"between others":    {[]string{`a=1; key=KEY; b="x y"`}, []string{`a=1; b="x y"`}},
		"odd spaces":        {[]string{"a=1;b=2 ;  key = \"KEY\"; flag;; KEY=no"}, []string{"a=1;b=2 ; flag;; KEY=no"}},
		"UTF-8":             {[]string{"key=KEY; \u00e9=\u00e9%e9"}, []string{"\u00e9=\u00e9%e9"}},
		"alone":             {[]string{"key=KEY"}, nil},
		"in several fields": {[]string{"a=1", "key=KEY; b=2", "c=3"}, []string{"a=1; b=2; c=3"}},
		"not UTF-8":         {[]string{"key=KEY; a=\xe9"}, []string{"403"}},
		"a quote left open": {[]string{`a="x; key=KEY; b="`}, []string{"403"}},
		"not UTF-8, no key": {[]string{"a=\xe9", "X-API-Key: KEY"}, []string{"a=\xe9"}},
	} {
		s.Reset()
		lines := []string{"GET /v1 HTTP/1.1"}
		for _, field := range c.sent {
			field = strings.ReplaceAll(field, "KEY", key.Text)
			if !strings.HasPrefix(field, "X-") {
				field = "Cookie: " + field
			}
			lines = append(lines, field)
		}
		r := exchange(t, s.addr, lines...)
		if slices.Equal(c.want, []string{"403"}) {
			s.wantDenial(r, http.StatusForbidden, "request_malformed")
			continue
		}
		want := slices.Clone(c.want)
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "KEY", key.Text)
		}
		if last, _ := s.Last(); r.StatusCode != http.StatusOK || !slices.Equal(last.Headers["Cookie"], want) {
			t.Errorf("%s: %d, and the upstream got %q, want %q", name, r.StatusCode, last.Headers["Cookie"], want)
		}
	}
}

// spellings are names that some servers read as one of ours.
var spellings = []string{
	"x.tollkeeper.account", "x-tollkeeper.account", "X.Tollkeeper-Plan", "x~tollkeeper!key^id", "x-tollkeeper|subject", "x.authz.reason", "x-authz-decision.id",
}

// TestForgedHeaders_AreRemovedInAnySpelling sends forged headers, with a policy that allows every request. Once the shipped
// configuration of Envoy removes them, once Tollkeeper.
func TestForgedHeaders_AreRemovedInAnySpelling(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte("package envoy.authz\n\nallow := true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"stripped early": nil,
		"stripped by Tollkeeper": func(y string) string {
			return strings.ReplaceAll(y, "(?i)x[^a-z0-9]tollkeeper[^a-z0-9].*\"}}}", "x-nothing\"}}}")
		},
	} {
		s := runStack(t, harness.TollkeeperOptions{Policies: dir}, change)
		lines := []string{"GET / HTTP/1.1", "x-mine.tollkeeper: kept"}
		for _, h := range spellings {
			lines = append(lines, h+": evil")
		}
		r := exchange(t, s.addr, lines...)
		last, ok := s.Last()
		if r.StatusCode != http.StatusOK || !ok {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
		for field, got := range last.Headers {
			if slices.Contains(got, "evil") {
				t.Errorf("%s: the upstream got %s", name, field)
			}
		}
		if got := last.Headers["X-Mine.tollkeeper"]; !slices.Equal(got, []string{"kept"}) {
			t.Errorf("%s: a header with another name became %q: %v", name, got, last.Headers)
		}
	}
}

// TestPolicy_QueryValuesAreEncoded has a policy set a query parameter to a value from the caller.
func TestPolicy_QueryValuesAreEncoded(t *testing.T) {
	dir := t.TempDir()
	rego := `package envoy.authz

allow := {"allowed": true, "query_parameters_to_set": {"a": input.attributes.request.http.headers["x-a"]}, "query_parameters_to_remove": ["debug"]}
`
	if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte(rego), 0o600); err != nil {
		t.Fatal(err)
	}
	s := runStack(t, harness.TollkeeperOptions{Policies: dir}, nil)
	for value, want := range map[string]string{
		"plain":           "plain",
		"1&admin=1":       "1%26admin%3D1",
		"50% of a+b":      "50%25%20of%20a%2Bb",
		"caf\u00e9#x?y/z": "caf%C3%A9%23x%3Fy%2Fz",
		"a%20b%26c":       "a%20b%26c", // already encoded by the policy
		"a+b%2Fc":         "a%20b%2Fc",
	} {
		s.Reset()
		r := get(t, s.http, s.addr, "/v1?z=1&flag&a=evil&%61=evil&d%65bug=1&b=%E9", "x-a", value)
		if last, _ := s.Last(); r.StatusCode != http.StatusOK || last.URI != "/v1?z=1&flag&b=%E9&a="+want {
			t.Errorf("%q: %d, and the upstream was asked for %q, want a=%s", value, r.StatusCode, last.URI, want)
		}
	}
}

// Beyond its limits Envoy answers 500 to an allow, and where the limit is one of responses, only after the upstream has
// served the request. So Tollkeeper denies beforehand.
func TestPolicy_StaysWithinEnvoysLimits(t *testing.T) {
	dir := t.TempDir()
	rego := `package envoy.authz

fields(n) := {sprintf("x-tollkeeper-h%d", [i]): "v" | some i in numbers.range(1, n)}

text(s, n) := concat("", [s | some _ in numbers.range(1, n)])

cases := {
	"headers": {"headers": fields(120)},
	"response": {"response_headers_to_add": fields(120)},
	"values": {"response_headers_to_add": {"x-h": [sprintf("%d", [i]) | some i in numbers.range(1, 120)]}},
	"query": {"query_parameters_to_set": {"a": text("&&&&&&&&&&&&&&&&&&&&", 1000)}},
	"both": {"headers": {"x-tollkeeper-h": text("0123456789abcdef", 2000)}, "query_parameters_to_set": {"a": text("0123456789abcdef", 2000)}},
	"few": {"headers": fields(60), "response_headers_to_add": fields(60)},
	"roles": {"headers": {"x-tollkeeper-roles": [sprintf("%d", [i]) | some i in numbers.range(1, 120)]}},
}

allow := object.union({"allowed": true}, cases[input.attributes.request.http.headers["x-case"]])
`
	if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte(rego), 0o600); err != nil {
		t.Fatal(err)
	}
	s := runStack(t, harness.TollkeeperOptions{Policies: dir}, nil)
	for name, want := range map[string]string{
		"headers": "policy_error", "response": "policy_error", "values": "policy_error", "query": "policy_error", "both": "policy_error", "few": "", "roles": "",
	} {
		s.Reset()
		r := get(t, s.http, s.addr, "/v1", "x-case", name)
		if got := r.Header.Get("X-Authz-Reason"); got != want || (r.StatusCode == http.StatusOK) != (want == "") || s.Count() > 0 != (want == "") {
			t.Errorf("%s: %d %q, %d reached the upstream, want %q", name, r.StatusCode, got, s.Count(), want)
		}
	}
}

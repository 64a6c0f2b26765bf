package check

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// TestRewritten_LeavesTheRest holds for any query: what is named goes in every spelling, the rest stays byte for byte and in
// its order, and Envoy's way is said to do only where Envoy, which sorts and has "=" everywhere, comes to the same.
func TestRewritten_LeavesTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"key=K", "%6bey=K", "key", "a=1", "a=0", "b", "", "=", "c=%e9+", "d=x=y", "%61=2"})).Draw(t, "parts")
		query := strings.Join(parts, "&")
		got, plain := rewritten("/p?"+query, nil, []string{"key"})
		keep := slices.DeleteFunc(strings.Split(query, "&"), func(p string) bool {
			raw, _, _ := strings.Cut(p, "=")
			name, _ := url.QueryUnescape(raw)
			return name == "key"
		})
		want := "/p"
		if len(keep) > 0 || query == "" {
			want += "?" + strings.Join(keep, "&")
		}
		if got != want {
			t.Fatalf("%q became %q, want %q", query, got, want)
		}
		if plain && envoys(query, "key") != want {
			t.Fatalf("Envoy makes %q of %q, want %q", envoys(query, "key"), query, want)
		}
	})
}

// envoys is what Envoy makes of a query when a parameter is removed.
func envoys(query, remove string) string {
	values := make(map[string][]string)
	var names []string
	for rest := query; rest != ""; {
		part, more, _ := strings.Cut(rest, "&")
		rest = more
		name, value, _ := strings.Cut(part, "=")
		if name != remove {
			if values[name] == nil {
				names = append(names, name)
			}
			values[name] = append(values[name], value)
		}
	}
	slices.Sort(names)
	var out []string
	for _, name := range names {
		for _, v := range values[name] {
			out = append(out, name+"="+v)
		}
	}
	if len(out) == 0 {
		return "/p"
	}
	return "/p?" + strings.Join(out, "&")
}

// TestRewritten_KeepsAQuestionMark: Envoy takes away one that nothing follows, also where nothing is to be removed.
func TestRewritten_KeepsAQuestionMark(t *testing.T) {
	if got, plain := rewritten("/p?", nil, []string{"debug"}); got != "/p?" || plain {
		t.Errorf("%q, %t", got, plain)
	}
}

// TestQuery_OfThePolicyInPlaceOfTheKey: what a policy sets comes in place of a key of that name. What it sets and removes is
// removed, as by Envoy.
func TestQuery_OfThePolicyInPlaceOfTheKey(t *testing.T) {
	for _, path := range []string{"/p?key=K", "/p?z=1&a=1&key=K", "/p?%6bey=K"} {
		a := &attempt{Checker: &Checker{}, request: &authz.Request{HTTP: &authz.HTTP{Path: path}}, credentials: credentials{places: []place{{"query", "key"}}}}
		a.facts.Key.ID = "key_1"
		one := authz.Answer{SetQueryParameters: []authz.Header{{Name: "key", Value: "own"}}}
		if a.rewriteQuery(&one); len(one.RemoveQueryParameters) > 0 {
			t.Errorf("%s: Envoy would remove what is set: %+v", path, one)
		}
	}
	if got, _ := rewritten("/p?z=1&a=1&q=3", []authz.Header{{Name: "q", Value: "2"}}, []string{"q"}); got != "/p?z=1&a=1" {
		t.Errorf("set and removed: %q", got)
	}
	if got, _ := rewritten("/p?z=1&a=1&q=3", []authz.Header{{Name: "q", Value: "2"}, {Name: "q", Value: "1"}}, nil); got != "/p?z=1&a=1&q=1" {
		t.Errorf("two values: %q", got)
	}
}

// TestKeyInQuery_StandsBesideAnything: an answer cannot carry bytes that are not UTF-8, so beside them Envoy has to take the
// key out, and the request is refused where it would change something else.
func TestKeyInQuery_StandsBesideAnything(t *testing.T) {
	for path, want := range map[string]bool{
		"/p?a=\xe9&key=K": true, "/p?b=1&a=\xe9&key=K": false, "/p?a=\xe9&%6bey=K": false, "/p?b=1&a=\u00e9&key=K": true, "/p?b=1&a= &key=K": false,
	} {
		a := &attempt{Checker: &Checker{}, request: &authz.Request{HTTP: &authz.HTTP{
			RawHeaders: true, Headers: authz.Headers{{Name: ":path", Value: path}},
		}}, credentials: credentials{places: []place{{"query", "key"}}}}
		a.facts.Key.ID = "key_1"
		if cause := a.unmovable(); (cause == "") != want {
			t.Errorf("%q: %q", path, cause)
		}
	}
}

// TestInOurName_FoldsAsServersDo has names that become one variable, and names that do not.
func TestInOurName_FoldsAsServersDo(t *testing.T) {
	for name, want := range map[string]bool{
		"x-tollkeeper-account": true, "x_tollkeeper_account": true, "x.tollkeeper.account": true, "x-tollkeeper_key.id": true,
		"x~tollkeeper!": true, "x-authz-reason": true, "x_authz.decision-id": true,
		"x-tollkeeper": false, "xtollkeeper-account": false, "x-tollkeepers-account": false, "x0tollkeeper-account": false, "x-authz-reasons": false,
		"my-x-tollkeeper-account": false, "": false,
	} {
		if inOurName(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

// TestKeyHeader_GoesInEverySpelling: to CGI the header beside the key is the key's.
func TestKeyHeader_GoesInEverySpelling(t *testing.T) {
	a := &attempt{Checker: &Checker{}, request: &authz.Request{HTTP: &authz.HTTP{Headers: authz.Headers{
		{Name: "x-api-key", Value: "K"}, {Name: "x_api_key", Value: "L"}, {Name: "x.api-key", Value: "M"}, {Name: "x-api-keys", Value: "N"},
	}}}, credentials: credentials{places: []place{{"header", "x-api-key"}}}}
	var out authz.Answer
	a.dropCredential(&out)
	if got := strings.Join(out.RemoveRequestHeaders, " "); got != "x-api-key x_api_key x.api-key" {
		t.Errorf("removes %q", got)
	}
}

package check

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// TestRewritten_LeavesTheRest holds for any query: a removed parameter goes in every spelling, and the rest stays byte for byte
// and in its order. The result is plain only if Envoy, which sorts and writes "=" everywhere, makes the same.
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

// envoys is the path that Envoy makes when it removes a parameter from a query.
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

// TestRewritten_KeepsAQuestionMark: Envoy removes one at the end of a path, even if no parameter is removed.
func TestRewritten_KeepsAQuestionMark(t *testing.T) {
	if got, plain := rewritten("/p?", nil, []string{"debug"}); got != "/p?" || plain {
		t.Errorf("%q, %t", got, plain)
	}
}

// TestRewriteQuery_ThePolicyReplacesTheKey: if a policy sets a parameter with the name of the key, it takes the key's place. What
// a policy both sets and removes is removed, as by Envoy.
func TestRewriteQuery_ThePolicyReplacesTheKey(t *testing.T) {
	f, c := &authz.Facts{Key: authz.KeyFact{ID: "key_1"}}, &credentials{places: []place{{"query", "key"}}}
	for _, path := range []string{"/p?key=K", "/p?z=1&a=1&key=K", "/p?%6bey=K"} {
		out := authz.Answer{SetQueryParameters: []authz.Header{{Name: "key", Value: "own"}}}
		if rewriteQuery(&out, path, keyParameters(&out, c, f, &Answers{})); len(out.RemoveQueryParameters) > 0 {
			t.Errorf("%s: Envoy would remove what is set: %+v", path, out)
		}
	}
	if got, _ := rewritten("/p?z=1&a=1&q=3", []authz.Header{{Name: "q", Value: "2"}}, []string{"q"}); got != "/p?z=1&a=1" {
		t.Errorf("set and removed: %q", got)
	}
	if got, _ := rewritten("/p?z=1&a=1&q=3", []authz.Header{{Name: "q", Value: "2"}, {Name: "q", Value: "1"}}, nil); got != "/p?z=1&a=1&q=1" {
		t.Errorf("two values: %q", got)
	}
}

// TestUnremovable_BesideBytesThatAreNotUTF8: an answer cannot carry these bytes, so Envoy must remove the key. If it
// would change something else too, the request is refused.
func TestUnremovable_BesideBytesThatAreNotUTF8(t *testing.T) {
	for path, want := range map[string]bool{
		"/p?a=\xe9&key=K": true, "/p?b=1&a=\xe9&key=K": false, "/p?a=\xe9&%6bey=K": false, "/p?b=1&a=\u00e9&key=K": true, "/p?b=1&a= &key=K": false,
	} {
		e := &evaluation{Checker: &Checker{}, request: &authz.Request{HTTP: &authz.HTTP{
			RawHeaders: true, Headers: authz.Headers{{Name: ":path", Value: path}},
		}}, credentials: credentials{places: []place{{"query", "key"}}}}
		e.facts.Key.ID = "key_1"
		if fault := e.unremovable(); (fault == "") != want {
			t.Errorf("%q: %q", path, fault)
		}
	}
}

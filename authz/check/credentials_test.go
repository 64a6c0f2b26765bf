package check_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

func TestCredentials_WhereAKeyMayStand(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	other, _ := apikey.NewText("live")
	jwt := "eyJhbGciOiJub25lIn0.e30."
	cases := []struct {
		name    string
		headers []string
		params  map[string][]string
		want    authz.KeyStatus
	}{
		{"header", []string{"x-api-key", w.text}, nil, authz.KeyActive},
		{"header with spaces", []string{"x-api-key", " " + w.text + "\t"}, nil, authz.KeyActive},
		{"bearer", []string{"authorization", "bEaReR  " + w.text}, nil, authz.KeyActive},
		{"query", nil, map[string][]string{"api_key": {w.text}}, authz.KeyActive},
		{"cookie", []string{"cookie", "a=b; key=" + w.text}, nil, authz.KeyActive},
		{"same key in two places", []string{"x-api-key", w.text, "authorization", "Bearer " + w.text}, nil, authz.KeyActive},
		{"key beside a token", []string{"x-api-key", w.text, "authorization", "Bearer " + jwt}, nil, authz.KeyActive},
		{"key beside basic", []string{"x-api-key", w.text, "authorization", "Basic YTpi"}, nil, authz.KeyActive},
		{"nothing", nil, nil, authz.KeyMissing},
		{"empty", []string{"x-api-key", ""}, nil, authz.KeyMissing},
		{"only a token", []string{"authorization", "Bearer " + jwt}, nil, authz.KeyMissing},
		{"two headers that differ", []string{"x-api-key", w.text, "authorization", "Bearer " + other}, nil, authz.KeyAmbiguous},
		{"header twice", []string{"x-api-key", w.text, "x-api-key", w.text}, nil, authz.KeyAmbiguous},
		{"header joined", []string{"x-api-key", w.text + "," + w.text}, nil, authz.KeyAmbiguous},
		{"authorization joined", []string{"authorization", "Bearer " + w.text + ",Bearer " + other}, nil, authz.KeyAmbiguous},
		{"authorization joined with another scheme", []string{"authorization", "Basic YTpi,Bearer " + w.text}, nil, authz.KeyAmbiguous},
		{"authorization twice", []string{"authorization", "Bearer " + w.text, "authorization", "Basic YTpi"}, nil, authz.KeyAmbiguous},
		{"parameter twice", nil, map[string][]string{"api_key": {w.text, other}}, authz.KeyAmbiguous},
		{"cookie twice", []string{"cookie", "key=" + w.text, "cookie", "key=" + other}, nil, authz.KeyAmbiguous},
		{"space inside", []string{"x-api-key", w.text[:9] + " " + w.text[9:]}, nil, authz.KeyMalformed},
		{"one character wrong", []string{"x-api-key", w.text[:12] + "_" + w.text[13:]}, nil, authz.KeyMalformed},
		{"too long", []string{"x-api-key", strings.Repeat("k", 5000)}, nil, authz.KeyMalformed},
		{"of another", []string{"x-api-key", other}, nil, authz.KeyUnknown},
		{"of another form", []string{"x-api-key", "sk_1234"}, nil, authz.KeyUnknown},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got authz.KeyStatus
			w.Use(&check.Rules{Policy: rule(func(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
				got = f.Key.Status
				return authz.Verdict{}, nil
			})})
			r := request(c.headers...)
			r.HTTP.Params = c.params
			w.Check(t.Context(), r)
			if got != c.want {
				t.Errorf("key is %q, want %q", got, c.want)
			}
		})
	}
}

func TestCredentials_DoNotReachTheUpstream(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	r := request("authorization", "Bearer "+w.text, "cookie", "a=1; key="+w.text+"; b=2")
	r.HTTP.Params = map[string][]string{"api_key": {w.text}}
	d := w.Check(t.Context(), r)
	if !d.Allowed() || strings.Join(d.RemoveRequestHeaders, " ") != "authorization" || strings.Join(d.RemoveQueryParameters, " ") != "api_key" || d.Headers.Get("cookie") != "a=1; b=2" {
		t.Errorf("%+v", d)
	}
	w = newWorld(t, rule(goodKey), check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}, Cookies: []string{"key", "old_key"}}})
	if d := w.Check(t.Context(), request("cookie", "key="+w.text+"; old_key="+w.text+"; c=1")); !d.Allowed() || d.Headers.Get("cookie") != "c=1" {
		t.Errorf("in two cookies: %+v", d)
	}
}

// TestCredentials_AKeyThatCannotBeLookedUpDoesNotReachTheUpstream makes the store fail on a route that needs no key.
func TestCredentials_AKeyThatCannotBeLookedUpDoesNotReachTheUpstream(t *testing.T) {
	open := always(authz.Verdict{Allowed: true})
	w := newWorld(t, open, check.Options{})
	w.Checker = check.New(lost{}, w.revoked, w.meter, w.book, check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}, Query: []string{"api_key"}}})
	w.Use(&check.Rules{Policy: open})
	r := request("x-api-key", w.text)
	r.HTTP.Path, r.HTTP.Params = "/v1/x?api_key="+w.text, map[string][]string{"api_key": {w.text}}
	d := w.Check(t.Context(), r)
	if !d.Allowed() || !slices.Contains(d.RemoveRequestHeaders, "x-api-key") || !slices.Equal(d.RemoveQueryParameters, []string{"api_key"}) {
		t.Errorf("%q: removes headers %q and parameters %q", d.DeniedFor(), d.RemoveRequestHeaders, d.RemoveQueryParameters)
	}
}

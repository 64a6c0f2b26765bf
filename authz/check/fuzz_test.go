package check_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// onlyKey identifies one text and no other.
type onlyKey string

func (k onlyKey) Identify(_ context.Context, text string, _ time.Time) (authz.KeyFact, authz.AccountFact) {
	if text == string(k) {
		return authz.KeyFact{Status: authz.KeyActive, ID: "key_1"}, authz.AccountFact{}
	}
	return authz.KeyFact{Status: authz.KeyUnknown}, authz.AccountFact{}
}

func (k onlyKey) Account(context.Context, string) authz.AccountFact { return authz.AccountFact{} }

// FuzzCredentials puts arbitrary texts where a key may stand. A request is allowed only if one of the places holds the key, and
// neither another place nor a second value of the same place holds anything else.
func FuzzCredentials(f *testing.F) {
	const key = "tk_live_good"
	f.Add(key, "", "", "", "")
	f.Add("", "Bearer "+key, "", "", "")
	f.Add(key, "Bearer other", "", "", "")
	f.Add(key, key+",x", "a=b; key="+key, key, key)
	f.Add(key+"\x00", "bearer\t"+key, "key=;key="+key, "", "")
	revoked := noneRevoked{}
	c := check.New(onlyKey(key), revoked, nil, &book{}, check.Options{Credentials: check.Sources{
		Headers: []string{"x-api-key"}, Bearer: true, Query: []string{"api_key"}, Cookies: []string{"key"},
	}})
	c.Use(&check.Rules{Policy: rule(goodKey)})
	f.Fuzz(func(t *testing.T, header, authorization, cookie, param, second string) {
		r := request("x-api-key", header, "authorization", authorization, "cookie", cookie)
		r.HTTP.Params = map[string][]string{"api_key": {param}}
		if second != "" {
			r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: "x-api-key", Value: second})
		}
		d := c.Check(t.Context(), r)
		if !d.Allowed() {
			return
		}
		for _, place := range []string{header, param} {
			if s := strings.Trim(place, " \t"); s != "" && s != key {
				t.Fatalf("allowed although %q was sent with the key", s)
			}
		}
		if second != "" {
			t.Fatal("allowed although a header came twice")
		}
		if !strings.Contains(header+authorization+cookie+param, key) {
			t.Fatal("allowed without the key")
		}
		if h := strings.ToLower(authorization); strings.HasPrefix(h, "bearer ") && strings.Contains(h, ",") {
			t.Fatal("allowed although Authorization was joined")
		}
	})
}

type noneRevoked struct{}

func (noneRevoked) Key(string) bool                { return false }
func (noneRevoked) Account(string, time.Time) bool { return false }
func (noneRevoked) Token(*authz.TokenFact) bool    { return false }
func (noneRevoked) Stale() bool                    { return false }

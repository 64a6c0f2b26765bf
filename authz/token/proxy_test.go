package token_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
)

// TestFromProxy_OneToken accepts the metadata of the proxy's filter, and nothing that looks like it.
func TestFromProxy_OneToken(t *testing.T) {
	fx := newFixture(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: "https://mesh.example", Audiences: []string{"api"}, Envoy: "payload"}}
	})
	now := fx.clock.now()
	claims := func() map[string]any {
		return map[string]any{"iss": "https://mesh.example", "aud": "api", "sub": "alice", "iat": float64(now.Unix()), "exp": float64(now.Unix() + 60)}
	}
	filters := func(name string, c map[string]any) map[string]any {
		return map[string]any{"envoy.filters.http.jwt_authn": map[string]any{name: c}}
	}
	f, ok := fx.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{}, now)
	if !ok || f.Status != authz.TokenValid || f.Subject != "alice" || !f.IssuedAt.Equal(now) {
		t.Errorf("%+v", f)
	}
	expired := claims()
	expired["exp"] = float64(now.Unix() - 31)
	if f, _ := fx.FromProxy(t.Context(), filters("payload", expired), &authz.Bearer{}, now); f.Status != authz.TokenExpired {
		t.Errorf("expired: %q", f.Status)
	}
	other := claims()
	other["iss"] = "https://evil.example"
	for name, m := range map[string]map[string]any{
		"another name":    filters("other", claims()),
		"another filter":  {"envoy.filters.http.ext_authz": map[string]any{"payload": claims()}},
		"another issuer":  filters("payload", other),
		"nothing":         nil,
		"something wrong": {"envoy.filters.http.jwt_authn": "x"},
	} {
		if f, ok := fx.FromProxy(t.Context(), m, &authz.Bearer{}, now); ok {
			t.Errorf("%s: %+v", name, f)
		}
	}
	raw, _ := json.Marshal(claims())
	if f, _ := fx.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{Text: forge(`{"alg":"RS256"}`, string(raw), "x")}, now); f.Status != authz.TokenValid || f.Digest == "" {
		t.Errorf("the token that was verified: %+v", f)
	}
	if f, _ := fx.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{Text: forge(`{"alg":"RS256","typ":"refresh+jwt"}`, string(raw), "x")}, now); f.Status != authz.TokenMalformed {
		t.Errorf("a token that is not for access: %+v", f)
	}
	raw, _ = json.Marshal(other)
	if f, _ := fx.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{Text: forge(`{"alg":"RS256"}`, string(raw), "x")}, now); f.Status != authz.TokenMalformed {
		t.Errorf("a token that is not the verified one: %+v", f)
	}
	raw, _ = json.Marshal(claims())
	unvouched := forge(`{"alg":"RS256"}`, string(raw), "x")
	fx.want(t, unvouched, authz.TokenUntrustedIssuer)
	// It can be revoked.
	if f := fx.Inspect(t.Context(), unvouched); f.Status != authz.TokenUnavailable || f.ExpiresAt.Before(now.Add(timing().MaxLifetime)) {
		t.Errorf("a token that only the proxy can verify: %+v", f)
	}
}

// TestFromProxy_TwoTokens: the proxy passes on two tokens. One might be revoked, so neither is accepted.
func TestFromProxy_TwoTokens(t *testing.T) {
	fx := newFixture(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{
			{Name: "https://a.example", Audiences: []string{"api"}, Envoy: "a"}, {Name: "https://b.example", Audiences: []string{"api"}, Envoy: "b"},
		}
	})
	now := fx.clock.now()
	claims := func(iss string) map[string]any {
		return map[string]any{"iss": iss, "aud": "api", "iat": float64(now.Unix()), "exp": float64(now.Unix() + 60)}
	}
	payloads := map[string]any{"a": claims("https://a.example"), "other": claims("https://elsewhere.example")}
	filters := map[string]any{"envoy.filters.http.jwt_authn": payloads}
	if f, ok := fx.FromProxy(t.Context(), filters, &authz.Bearer{}, now); !ok || f.Status != authz.TokenValid || f.Issuer != "https://a.example" {
		t.Errorf("one that is ours: %+v", f)
	}
	payloads["b"] = claims("https://b.example")
	for range 20 {
		if f, ok := fx.FromProxy(t.Context(), filters, &authz.Bearer{}, now); !ok || f.Status != authz.TokenMalformed {
			t.Fatalf("two: %+v", f)
		}
	}
}

// TestFromProxy_ByClaims: a token has one name, whether it is made from the token's text or from the proxy's claims.
func TestFromProxy_ByClaims(t *testing.T) {
	fx := newFixture(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: "https://mesh.example", Audiences: []string{"api"}, Envoy: "payload"}}
	})
	now := fx.clock.now()
	payload := fmt.Sprintf(`{"n":12345678901234567890,"iss":"https://mesh.example","aud":["api"],"iat":%d,"exp":%d,"x":{"b":null,"a":"<&>"}}`, now.Unix(), now.Unix()+60)
	var claims object
	if err := json.Unmarshal([]byte(payload), &claims); err != nil {
		t.Fatal(err)
	}
	seen, ok := fx.FromProxy(t.Context(), object{"envoy.filters.http.jwt_authn": object{"payload": claims}}, &authz.Bearer{}, now)
	revoked := fx.Inspect(t.Context(), forge(`{"alg":"RS256"}`, payload, "x"))
	if !ok || seen.Status != authz.TokenValid || seen.ByClaims == "" || seen.ByClaims != revoked.ByClaims || revoked.Issuer != "https://mesh.example" {
		t.Errorf("%+v\n%+v", seen, revoked)
	}
	claims["sub"] = "another"
	if other, _ := fx.FromProxy(t.Context(), object{"envoy.filters.http.jwt_authn": object{"payload": claims}}, &authz.Bearer{}, now); other.ByClaims == seen.ByClaims {
		t.Error("two tokens have one name")
	}
}

package token_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

func TestIntrospection_AnswersAreRemembered(t *testing.T) {
	fx := newIntrospectionFixture(t, nil)
	now := fx.clock.now()
	fx.issuer.Opaque("abc", map[string]any{"sub": "alice", "scope": "read", "org": "acme", "client_id": "app", "exp": now.Unix() - 15, "iat": now.Unix() - 60, "jti": "j"})
	for range 3 {
		f := fx.Identify(t.Context(), &authz.Bearer{Text: "abc"}, now)
		if f.Status != authz.TokenValid || f.Subject != "alice" || f.Account != "acme" || f.Client != "app" || f.ID != "j" ||
			f.Issuer != fx.issuer.URL || f.Digest != credential.TokenDigest("abc") || len(f.Scopes) != 1 {
			t.Errorf("%+v", f)
		}
	}
	if n := fx.issuer.Asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	fx.clock.advance(11 * time.Second)
	fx.want(t, "abc", authz.TokenValid)
	if n := fx.issuer.Asked.Load(); n != 2 {
		t.Errorf("asked %d times after the answer expired", n)
	}
	fx.clock.advance(4 * time.Second) // exp: the answer of 4 seconds ago does not matter any more
	fx.want(t, "abc", authz.TokenExpired)

	fx.want(t, "stranger", authz.TokenInactive)
	fx.want(t, "stranger", authz.TokenInactive)
	if n := fx.issuer.Asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	fx.issuer.Opaque("stranger", map[string]any{"sub": "bob", "iat": now.Unix()})
	fx.clock.advance(2 * time.Second)
	fx.want(t, "stranger", authz.TokenValid)
	for _, bad := range []string{"", "a b", "a,b", "ä", "=", strings.Repeat("a", 5000), "a\nb"} {
		fx.want(t, bad, authz.TokenMalformed)
	}
}

func TestVerifier_IsToken(t *testing.T) {
	with, without := newIntrospectionFixture(t, nil), newFixture(t, nil)
	jwt := without.issuer.Token(nil)
	for text, want := range map[string][2]bool{
		"tk_live_abc": {false, false}, "abc": {true, false}, jwt: {true, true},
	} {
		if with.IsToken(text) != want[0] || without.IsToken(text) != want[1] {
			t.Errorf("%.20s: %v %v", text, with.IsToken(text), without.IsToken(text))
		}
	}
	fx := newIntrospectionFixture(t, nil)
	fx.issuer.Opaque(jwt, map[string]any{"sub": "x", "iat": fx.clock.now().Unix()})
	fx.want(t, jwt, authz.TokenValid) // its issuer is not trusted, but the introspection server vouches for it
}

// TestIntrospection_ServerClockAhead uses tokens that were issued a moment from now, by their server's clock.
func TestIntrospection_ServerClockAhead(t *testing.T) {
	fx := newIntrospectionFixture(t, nil)
	for ahead, want := range map[time.Duration]authz.TokenStatus{
		time.Second: authz.TokenValid, 30 * time.Second: authz.TokenValid, 31 * time.Second: authz.TokenNotYetValid,
	} {
		fx.issuer.Opaque(ahead.String(), map[string]any{"iat": fx.clock.now().Add(ahead).Unix()})
		fx.want(t, ahead.String(), want)
	}
}

func TestIntrospection_ConcurrentRequestsShareACall(t *testing.T) {
	fx := newIntrospectionFixture(t, nil)
	release := make(chan struct{})
	fx.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, _ *http.Request) {
		fx.issuer.Asked.Add(1)
		<-release
		_, _ = fmt.Fprintf(w, `{"active":true,"iat":%d}`, fx.clock.now().Unix())
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { fx.want(t, "abc", authz.TokenValid) })
	}
	for fx.issuer.Asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if n := fx.issuer.Asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestIntrospection_OtherKindsOfTokens uses answers that say what kind of token they are about.
func TestIntrospection_OtherKindsOfTokens(t *testing.T) {
	fx := newIntrospectionFixture(t, nil)
	for i, c := range []struct {
		name string
		kind any
		want authz.TokenStatus
	}{
		{"token_type", "Bearer", authz.TokenValid}, {"token_type", "access_token", authz.TokenValid}, {"token_type", nil, authz.TokenValid},
		{"token_type", "urn:ietf:params:oauth:token-type:access_token", authz.TokenValid},
		{"token_use", "access", authz.TokenValid}, {"typ", "Bearer", authz.TokenValid}, {"typ", "at+jwt", authz.TokenValid}, {"typ", "customer", authz.TokenValid},
		{"token_type", "refresh_token", authz.TokenMalformed}, {"token_type", "Refresh", authz.TokenMalformed}, {"token_type", "ID_TOKEN", authz.TokenMalformed},
		{"token_type", "N_A", authz.TokenMalformed}, {"token_type", 1, authz.TokenMalformed},
		{"token_type", "urn:ietf:params:oauth:token-type:id_token", authz.TokenMalformed}, {"token_type", "something new", authz.TokenMalformed},
		{"token_use", "refresh_token", authz.TokenMalformed}, {"token_use", "id", authz.TokenMalformed}, {"token_usage", "refresh-token", authz.TokenMalformed},
		{"typ", "Refresh", authz.TokenMalformed}, {"typ", "Offline", authz.TokenMalformed}, {"typ", "ID", authz.TokenMalformed},
		{"typ", "Serialized-ID", authz.TokenMalformed}, {"typ", "logout+jwt", authz.TokenMalformed}, {"purpose", "refresh_token", authz.TokenMalformed},
		{"events", map[string]any{"x": map[string]any{}}, authz.TokenMalformed}, {"token_type", "DPoP", authz.TokenUnbound},
	} {
		name := fmt.Sprint("token-", i)
		fx.issuer.Opaque(name, map[string]any{"iat": fx.clock.now().Unix(), c.name: c.kind})
		if got := fx.status(t, name); got != c.want {
			t.Errorf("%s %v: %q, want %q", c.name, c.kind, got, c.want)
		}
	}
}

// TestIntrospection_OtherTypesInTheHeader uses signed tokens whose header alone says what kind they are.
func TestIntrospection_OtherTypesInTheHeader(t *testing.T) {
	fx := newIntrospectionFixture(t, nil)
	for typ, want := range map[string]authz.TokenStatus{
		"at+jwt": authz.TokenValid, "JWT": authz.TokenValid, "application/customer+jwt": authz.TokenValid,
		"refresh+jwt": authz.TokenMalformed, "application/logout+jwt": authz.TokenMalformed, "secevent+JWT": authz.TokenMalformed,
	} {
		text := fx.issuer.Sign(typ, map[string]any{"iss": "https://other.example"})
		fx.issuer.Opaque(text, map[string]any{"iat": fx.clock.now().Unix()})
		if got := fx.status(t, text); got != want {
			t.Errorf("%s: %q, want %q", typ, got, want)
		}
	}
}

func TestIntrospection_AnswersThatDoNotFit(t *testing.T) {
	fx := newIntrospectionFixture(t, func(in *token.Introspection) { in.Audiences = []string{"api"} })
	iat := fx.clock.now().Unix()
	fx.issuer.Opaque("good", map[string]any{"aud": []string{"api"}, "iss": fx.issuer.URL, "iat": iat})
	fx.issuer.Opaque("aud", map[string]any{"aud": "other", "iat": iat})
	fx.issuer.Opaque("none", map[string]any{"iat": iat})
	fx.issuer.Opaque("iss", map[string]any{"aud": "api", "iss": "https://evil.example", "iat": iat})
	fx.issuer.Opaque("exp", map[string]any{"aud": "api", "exp": "soon", "iat": iat})
	fx.issuer.Opaque("iat", map[string]any{"aud": "api", "exp": iat + 60})
	fx.issuer.Opaque("neither", map[string]any{"aud": "api"})
	fx.issuer.Opaque("long", map[string]any{"aud": "api", "exp": iat + 100_000})
	fx.want(t, "iat", authz.TokenValid)                             // iat is optional if exp is near
	if f := fx.Inspect(t.Context(), "iat"); !f.ExpiresAt.IsZero() { // the server may move the end
		t.Errorf("its revocation would be forgotten at %s", f.ExpiresAt)
	}
	fx.want(t, "neither", authz.TokenMalformed)
	fx.want(t, "long", authz.TokenMalformed)
	fx.want(t, "good", authz.TokenValid)
	fx.want(t, "aud", authz.TokenWrongAudience)
	fx.want(t, "none", authz.TokenWrongAudience)
	fx.want(t, "iss", authz.TokenUntrustedIssuer)
	fx.want(t, "exp", authz.TokenMalformed)
}

// TestIntrospection_ExampleOfRFC7662 has the answer of the example in RFC 7662 section 2.2.
func TestIntrospection_ExampleOfRFC7662(t *testing.T) {
	fx := newIntrospectionFixture(t, func(in *token.Introspection) {
		in.Issuer, in.Audiences = "https://server.example.com/", []string{"https://protected.example.net/resource"}
	})
	fx.clock.set(time.Unix(1419350239, 0))
	fx.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("token") != "2YotnFZFEjr1zCsicMWpAA" || r.PostFormValue("token_type_hint") != "access_token" {
			t.Errorf("asked with %v", r.PostForm)
		}
		_, _ = w.Write([]byte(`{"active": true, "client_id": "l238j323ds-23ij4", "username": "jdoe", "scope": "read write dolphin",
			"sub": "Z5O3upPC88QrAjx00dis", "aud": "https://protected.example.net/resource", "iss": "https://server.example.com/",
			"exp": 1419356238, "iat": 1419350238, "extension_field": "twenty-seven"}`))
	})
	f := fx.Identify(t.Context(), &authz.Bearer{Text: "2YotnFZFEjr1zCsicMWpAA"}, fx.clock.now())
	if f.Status != authz.TokenValid || f.Client != "l238j323ds-23ij4" || f.Subject != "Z5O3upPC88QrAjx00dis" || len(f.Scopes) != 3 ||
		f.Issuer != "https://server.example.com/" || f.Claims["extension_field"] != "twenty-seven" || f.IssuedAt.Unix() != 1419350238 {
		t.Errorf("%+v", f)
	}
}

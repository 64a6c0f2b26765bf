package token_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// TestClaims_NullIsAbsent sets every claim that is read to null: in a signed token, in one from the proxy, and in an
// introspection answer.
func TestClaims_NullIsAbsent(t *testing.T) {
	fx, o := newFixture(t, nil), newIntrospectionFixture(t, nil)
	p := newFixture(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: "https://mesh.example", Audiences: []string{"api"}, Envoy: "payload"}}
	})
	now := fx.clock.now()
	names := []string{"nbf", "sub", "client_id", "azp", "sid", "jti", "scope", "scp", "org", "plan", "cnf", "events", "status", "typ", "type",
		"token_type", "token_use", "at_hash", "nonce"}
	for _, name := range append(names, "status.status_list", "cnf.jkt") {
		claims, status := object{"aud": "api", "iat": now.Unix(), "exp": now.Unix() + 60}, authz.TokenValid
		outer, inner, nested := strings.Cut(name, ".")
		if claims[outer] = nil; nested {
			claims[outer] = object{inner: nil}
		}
		if outer == "cnf" && nested {
			status = authz.TokenUnbound // bound, in an unknown way
		}
		signed := maps.Clone(claims)
		signed["iss"] = fx.issuer.URL
		raw, _ := json.Marshal(signed)
		if got := fx.status(t, fx.issuer.SignRaw(object{"kid": "key-1"}, raw)); got != status {
			t.Errorf("%s in a token: %q", name, got)
		}
		proxied := maps.Clone(claims)
		proxied["iss"], proxied["iat"], proxied["exp"] = "https://mesh.example", float64(now.Unix()), float64(now.Unix()+60)
		filters := object{"envoy.filters.http.jwt_authn": object{"payload": proxied}}
		if f, _ := p.FromProxy(t.Context(), filters, &authz.Bearer{}, now); f.Status != status {
			t.Errorf("%s from the proxy: %q", name, f.Status)
		}
		o.issuer.Opaque(name, claims)
		if got := o.status(t, name); got != status {
			t.Errorf("%s in an answer: %q", name, got)
		}
	}
	o.issuer.Opaque("iss", object{"iat": now.Unix(), "iss": nil, "aud": nil, "exp": nil})
	o.want(t, "iss", authz.TokenValid)
	list := fx.issuer.StatusList(object{"ttl": json.RawMessage("null"), "exp": json.RawMessage("null"), "iss": json.RawMessage("null")})
	fx.issuer.Serve(tokentest.StatusPath, text(list))
	fx.want(t, fx.issuer.Token(object{"status": object{"status_list": object{"idx": 0, "uri": fx.issuer.URL + tokentest.StatusPath}}}), authz.TokenValid)
}

// TestClaims_OtherKindsOfTokens uses signed tokens whose claims say that they are not access tokens.
func TestClaims_OtherKindsOfTokens(t *testing.T) {
	fx := newFixture(t, nil)
	for name, c := range map[string]struct {
		claims object
		want   authz.TokenStatus
	}{
		"Cognito, access":       {object{"token_use": "access"}, authz.TokenValid},
		"Cognito, id":           {object{"token_use": "id"}, authz.TokenMalformed},
		"Keycloak, access":      {object{"typ": "Bearer"}, authz.TokenValid},
		"Keycloak, id":          {object{"typ": "ID"}, authz.TokenMalformed},
		"Keycloak, refresh":     {object{"typ": "Refresh"}, authz.TokenMalformed},
		"SimpleJWT, access":     {object{"token_type": "access"}, authz.TokenValid},
		"SimpleJWT, refresh":    {object{"token_type": "refresh"}, authz.TokenMalformed},
		"a type of one's own":   {object{"token_type": "machine", "type": "user"}, authz.TokenValid},
		"Flask, refresh":        {object{"type": "refresh"}, authz.TokenMalformed},
		"an ID token's hash":    {object{"at_hash": "x"}, authz.TokenMalformed},
		"a logout token":        {object{"events": object{"http://schemas.openid.net/event/backchannel-logout": object{}}}, authz.TokenMalformed},
		"events that are empty": {object{"events": object{}}, authz.TokenMalformed},
		"token_use of a number": {object{"token_use": 1}, authz.TokenMalformed},
	} {
		if got := fx.status(t, fx.issuer.Token(c.claims)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestBinding_Proof(t *testing.T) {
	strict, lax := newFixture(t, nil), newFixture(t, func(o *token.Options) { o.AcceptBound = true })
	der, other := []byte("a certificate"), []byte("another")
	sum := sha256.Sum256(der)
	x5t := base64.RawURLEncoding.EncodeToString(sum[:])
	sent := func(der []byte) string {
		return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	const valid, unbound, malformed = authz.TokenValid, authz.TokenUnbound, authz.TokenMalformed
	for name, c := range map[string]struct {
		claims      object
		certificate string
		strict, lax authz.TokenStatus
	}{
		"to nothing":                  {nil, sent(der), valid, valid},
		"to a key (DPoP)":             {object{"cnf": object{"jkt": "x"}}, "", unbound, valid},
		"to a key, with certificate":  {object{"cnf": object{"jkt": "x"}}, sent(der), unbound, valid},
		"by its type":                 {object{"typ": "DPoP"}, "", unbound, valid},
		"to something new":            {object{"cnf": object{"new": "x"}}, "", unbound, valid},
		"to what it does not say":     {object{"cnf": object{}}, "", unbound, valid},
		"to the certificate":          {object{"cnf": object{"x5t#S256": x5t}}, sent(der), valid, valid},
		"to a certificate not sent":   {object{"cnf": object{"x5t#S256": x5t}}, "", unbound, valid},
		"to another certificate":      {object{"cnf": object{"x5t#S256": x5t}}, sent(other), unbound, unbound},
		"to it, which cannot be read": {object{"cnf": object{"x5t#S256": x5t}}, "%zz", unbound, unbound},
		"to it and a key":             {object{"cnf": object{"x5t#S256": x5t, "jkt": "x"}}, sent(der), unbound, valid},
		"to it, padded":               {object{"cnf": object{"x5t#S256": x5t + "="}}, sent(der), unbound, unbound},
		"to no object":                {object{"cnf": "x"}, "", malformed, malformed},
		"to a number":                 {object{"cnf": object{"x5t#S256": 1}}, sent(der), malformed, malformed},
		"and expired":                 {object{"cnf": object{"jkt": "x"}, "iat": 1, "exp": 2}, "", authz.TokenExpired, authz.TokenExpired},
	} {
		for _, mode := range []struct {
			*fixture
			want authz.TokenStatus
		}{{strict, c.strict}, {lax, c.lax}} {
			bearer := authz.Bearer{Text: mode.issuer.Token(c.claims), Certificate: c.certificate}
			for range 2 { // verified, and remembered
				if f := mode.Identify(t.Context(), &bearer, mode.clock.now()); f.Status != mode.want {
					t.Errorf("%s: %q, want %q (%s)", name, f.Status, mode.want, f.Fault)
				}
			}
		}
	}
	opaque := newIntrospectionFixture(t, nil)
	opaque.issuer.Opaque("bound", object{"iat": opaque.clock.now().Unix(), "cnf": object{"x5t#S256": x5t}})
	opaque.want(t, "bound", unbound)
	if f := opaque.Identify(t.Context(), &authz.Bearer{Text: "bound", Certificate: sent(der)}, opaque.clock.now()); f.Status != valid {
		t.Errorf("an opaque token with its certificate: %q", f.Status)
	}
}

func TestClaims_AudienceInAnotherClaim(t *testing.T) {
	fx := newFixture(t, func(o *token.Options) { o.Issuers[0].AudienceClaim = "client_id" })
	for name, c := range map[string]struct {
		claims object
		want   authz.TokenStatus
	}{
		"as Cognito has it": {object{"aud": nil, "client_id": "api", "token_use": "access"}, authz.TokenValid},
		"another client":    {object{"aud": nil, "client_id": "other"}, authz.TokenWrongAudience},
		"only aud":          {object{"aud": "api"}, authz.TokenWrongAudience},
		"null":              {object{"aud": "api", "client_id": json.RawMessage("null")}, authz.TokenWrongAudience},
	} {
		if got := fx.status(t, fx.issuer.Token(c.claims)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	o := newIntrospectionFixture(t, func(in *token.Introspection) { in.Audiences, in.AudienceClaim = []string{"api"}, "client_id" })
	o.issuer.Opaque("good", object{"iat": o.clock.now().Unix(), "client_id": "api"})
	o.issuer.Opaque("other", object{"iat": o.clock.now().Unix(), "client_id": "x", "aud": "api"})
	o.want(t, "good", authz.TokenValid)
	o.want(t, "other", authz.TokenWrongAudience)
}

// TestClaims_AccountPrefixes uses an issuer that names accounts outside its prefixes.
func TestClaims_AccountPrefixes(t *testing.T) {
	fx := newFixture(t, func(o *token.Options) { o.Issuers[0].Accounts = []string{"acme-", "beta"} })
	for account, want := range map[any]authz.TokenStatus{
		"acme-1": authz.TokenValid, "beta": authz.TokenValid, nil: authz.TokenValid,
		"acme": authz.TokenUntrustedIssuer, "gamma": authz.TokenUntrustedIssuer, " acme-1": authz.TokenUntrustedIssuer, 7: authz.TokenUntrustedIssuer,
	} {
		if got := fx.status(t, fx.issuer.Token(object{"org": account})); got != want {
			t.Errorf("%v: %q, want %q", account, got, want)
		}
	}
	o := newIntrospectionFixture(t, func(in *token.Introspection) { in.Accounts = []string{"acme-"} })
	o.issuer.Opaque("theirs", object{"iat": o.clock.now().Unix(), "org": "beta"})
	o.want(t, "theirs", authz.TokenUntrustedIssuer)
	for _, bad := range []token.Issuer{
		{Name: "https://i.example", Audiences: []string{"api"}, Discovery: true, AccountClaim: "org", Accounts: []string{""}},
		{Name: "https://i.example", Audiences: []string{"api"}, Discovery: true, Accounts: []string{"acme-"}},
	} {
		if bad.Check() == nil {
			t.Errorf("accounts %q of the claim %q limit nothing", bad.Accounts, bad.AccountClaim)
		}
	}
}

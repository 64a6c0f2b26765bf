package token_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// object is a JSON object.
type object = map[string]any

// jwkOf is the public part of a key, with members on top; those that are nil are null.
func jwkOf(t *testing.T, k crypto.Signer, members object) object {
	t.Helper()
	pub, err := jwk.Import(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(pub)
	if err != nil {
		t.Fatal(err)
	}
	var m object
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	maps.Copy(m, members)
	return m
}

func setOf(keys ...any) string {
	raw, _ := json.Marshal(object{"keys": keys})
	return string(raw)
}

func newEd25519(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signEd25519 signs an access token of that issuer.
func signEd25519(k ed25519.PrivateKey, issuer string, now time.Time, header object) string {
	part := func(v any) string {
		raw, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(header) + "." + part(object{"iss": issuer, "aud": "api", "iat": now.Unix(), "exp": now.Unix() + 60})
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(k, []byte(text)))
}

// publishing is a bench whose issuer publishes that key set.
func publishing(t *testing.T, algorithm, set string) *bench {
	t.Helper()
	issuer := tokentest.New()
	t.Cleanup(issuer.Close)
	issuer.Serve(tokentest.KeysPath, text(set))
	b := newBench(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: issuer.URL, Audiences: []string{"api"}, Discovery: true, Algorithms: []string{algorithm}}}
	})
	b.issuer = issuer
	return b
}

func TestKeySet_WithoutKid(t *testing.T) {
	right, wrong := newEd25519(t), newEd25519(t)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		set  string
		kid  any
		want authz.TokenStatus
	}{
		"the key has none":               {setOf(jwkOf(t, right, nil)), "k1", authz.TokenValid},
		"the key's is null":              {setOf(jwkOf(t, right, object{"kid": nil})), "k1", authz.TokenValid},
		"the token has none":             {setOf(jwkOf(t, right, object{"kid": "k1"})), nil, authz.TokenValid},
		"the token's is null":            {setOf(jwkOf(t, right, object{"kid": "k1"})), json.RawMessage("null"), authz.TokenValid},
		"neither has":                    {setOf(jwkOf(t, right, nil)), nil, authz.TokenValid},
		"beside a key of another type":   {setOf(jwkOf(t, weak, nil), jwkOf(t, right, nil)), "k1", authz.TokenValid},
		"beside one of another kid":      {setOf(jwkOf(t, wrong, object{"kid": "k2"}), jwkOf(t, right, nil)), "k1", authz.TokenValid},
		"two of them":                    {setOf(jwkOf(t, wrong, nil), jwkOf(t, right, nil)), "k1", authz.TokenValid},
		"the key with its kid is wrong":  {setOf(jwkOf(t, wrong, object{"kid": "k1"}), jwkOf(t, right, nil)), "k1", authz.TokenBadSignature},
		"only one with another kid":      {setOf(jwkOf(t, right, object{"kid": "k2"})), "k1", authz.TokenBadSignature},
		"the key is for another purpose": {setOf(jwkOf(t, right, object{"alg": "ES256"}), jwkOf(t, wrong, nil)), "k1", authz.TokenBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			b := publishing(t, "EdDSA", c.set)
			header := object{"alg": "EdDSA", "kid": c.kid}
			if c.kid == nil {
				delete(header, "kid")
			}
			b.want(t, signEd25519(right, b.issuer.URL, b.clock.now(), header), c.want)
		})
	}
}

// TestKeySet_WithoutKidRotates holds that a new key is fetched also where no kid tells it from the one before it.
func TestKeySet_WithoutKidRotates(t *testing.T) {
	old, next := newEd25519(t), newEd25519(t)
	b := publishing(t, "EdDSA", setOf(jwkOf(t, old, nil)))
	b.want(t, signEd25519(old, b.issuer.URL, b.clock.now(), object{"alg": "EdDSA"}), authz.TokenValid)
	b.issuer.Serve(tokentest.KeysPath, text(setOf(jwkOf(t, next, nil))))
	b.want(t, signEd25519(next, b.issuer.URL, b.clock.now(), object{"alg": "EdDSA"}), authz.TokenValid)
}

func TestKeySet_Ed25519ByBothNames(t *testing.T) {
	k := newEd25519(t)
	for _, configured := range []string{"EdDSA", "Ed25519"} {
		for _, published := range []any{"EdDSA", "Ed25519", nil} {
			for _, used := range []string{"EdDSA", "Ed25519"} {
				b := publishing(t, configured, setOf(jwkOf(t, k, object{"kid": "k", "alg": published})))
				if got := b.status(t, signEd25519(k, b.issuer.URL, b.clock.now(), object{"alg": used, "kid": "k"})); got != authz.TokenValid {
					t.Errorf("configured %s, published %v, used %s: %q", configured, published, used, got)
				}
			}
		}
	}
}

func TestKeySet_UseAndKeyOps(t *testing.T) {
	k := newEd25519(t)
	for name, c := range map[string]struct {
		members object
		want    authz.TokenStatus
	}{
		"verify":          {object{"key_ops": []string{"verify"}}, authz.TokenValid},
		"sign and verify": {object{"use": "sig", "key_ops": []string{"sign", "verify"}}, authz.TokenValid},
		"null":            {object{"use": nil, "key_ops": nil}, authz.TokenValid},
		"encrypt":         {object{"key_ops": []string{"encrypt", "wrapKey"}}, authz.TokenUnavailable},
		"sign":            {object{"key_ops": []string{"sign"}}, authz.TokenUnavailable},
		"nothing":         {object{"key_ops": []string{}}, authz.TokenUnavailable},
		"a text":          {object{"key_ops": "verify"}, authz.TokenUnavailable},
		"enc":             {object{"use": "enc"}, authz.TokenUnavailable},
		"enc and verify":  {object{"use": "enc", "key_ops": []string{"verify"}}, authz.TokenUnavailable},
	} {
		b := publishing(t, "EdDSA", setOf(jwkOf(t, k, c.members)))
		if got := b.status(t, signEd25519(k, b.issuer.URL, b.clock.now(), object{"alg": "EdDSA"})); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestKeySet_UnreadableKeys says of keys that cannot be used which they are and why, also beside one that can.
func TestKeySet_UnreadableKeys(t *testing.T) {
	k := newEd25519(t)
	for name, c := range map[string]struct {
		key  any
		says []string
	}{
		"of an unknown type": {object{"kty": "XYZ", "kid": "k-new"}, []string{`"k-new"`, "cannot be read"}},
		"without a point":    {object{"kty": "EC", "crv": "P-256", "kid": "half"}, []string{`"half"`, "cannot be read"}},
		"not in base64":      {object{"kty": "OKP", "crv": "Ed25519", "x": "***", "kid": "bad"}, []string{`"bad"`, "cannot be read"}},
		"too weak": {
			object{"kty": "RSA", "e": "AQAB", "kid": "old", "n": base64.RawURLEncoding.EncodeToString([]byte("\xc0" + strings.Repeat("\x01", 127)))},
			[]string{`"old"`, "1024 bits"},
		},
		"without a kid": {object{"kty": "RSA"}, []string{"key 1, which has no kid"}},
		"not an object": {"x", []string{"key 1", "not a JSON object"}},
	} {
		t.Run(name, func(t *testing.T) {
			says := func(where, got string) {
				for _, want := range c.says {
					if !strings.Contains(got, want) {
						t.Errorf("%s: %q does not say %s", where, got, want)
					}
				}
			}
			alone := publishing(t, "EdDSA", setOf(c.key)).Issuers()[0]
			says("alone", alone.Fault)
			b := publishing(t, "EdDSA", setOf(c.key, jwkOf(t, k, object{"kid": "good"})))
			state := b.Issuers()[0]
			if state.Keys != 1 || state.Fault != "" || len(state.Unusable) != 1 {
				t.Fatalf("%+v", state)
			}
			says("beside a good one", state.Unusable[0])
			b.want(t, signEd25519(k, b.issuer.URL, b.clock.now(), object{"alg": "EdDSA", "kid": "good"}), authz.TokenValid)
			f := b.Inspect(t.Context(), signEd25519(newEd25519(t), b.issuer.URL, b.clock.now(), object{"alg": "EdDSA", "kid": "x"}))
			says("a token", f.Fault)
		})
	}
}

// TestToken_NullIsAbsent has every claim that is read be null, in a signed token, of the proxy, and in an answer.
func TestToken_NullIsAbsent(t *testing.T) {
	b, o := newBench(t, nil), asking(t, nil)
	p := newBench(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: "https://mesh.example", Audiences: []string{"api"}, Envoy: "payload"}}
	})
	now := b.clock.now()
	names := []string{"nbf", "sub", "client_id", "azp", "sid", "jti", "scope", "scp", "org", "plan", "cnf", "events", "status", "typ", "type",
		"token_type", "token_use", "at_hash", "nonce"}
	for _, name := range append(names, "status.status_list", "cnf.jkt") {
		claims, status := object{"aud": "api", "iat": now.Unix(), "exp": now.Unix() + 60}, authz.TokenValid
		outer, inner, nested := strings.Cut(name, ".")
		if claims[outer] = nil; nested {
			claims[outer] = object{inner: nil}
		}
		if outer == "cnf" && nested {
			status = authz.TokenUnbound // to something that it does not say
		}
		signed := maps.Clone(claims)
		signed["iss"] = b.issuer.URL
		raw, _ := json.Marshal(signed)
		if got := b.status(t, b.issuer.SignRaw(object{"kid": "key-1"}, raw)); got != status {
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
	list := b.issuer.StatusList(object{"ttl": json.RawMessage("null"), "exp": json.RawMessage("null"), "iss": json.RawMessage("null")})
	b.issuer.Serve(tokentest.StatusPath, text(list))
	b.want(t, b.issuer.Token(object{"status": object{"status_list": object{"idx": 0, "uri": b.issuer.URL + tokentest.StatusPath}}}), authz.TokenValid)
}

// TestToken_ForOtherUses has signed tokens that say that they are not for access.
func TestToken_ForOtherUses(t *testing.T) {
	b := newBench(t, nil)
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
		if got := b.status(t, b.issuer.Token(c.claims)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestToken_Bound(t *testing.T) {
	strict, lax := newBench(t, nil), newBench(t, func(o *token.Options) { o.AcceptBound = true })
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
		for _, bench := range []struct {
			*bench
			want authz.TokenStatus
		}{{strict, c.strict}, {lax, c.lax}} {
			bearer := authz.Bearer{Text: bench.issuer.Token(c.claims), Certificate: c.certificate}
			for range 2 { // verified, and remembered
				if f := bench.Identify(t.Context(), &bearer, bench.clock.now()); f.Status != bench.want {
					t.Errorf("%s: %q, want %q (%s)", name, f.Status, bench.want, f.Fault)
				}
			}
		}
	}
	opaque := asking(t, nil)
	opaque.issuer.Opaque("bound", object{"iat": opaque.clock.now().Unix(), "cnf": object{"x5t#S256": x5t}})
	opaque.want(t, "bound", unbound)
	if f := opaque.Identify(t.Context(), &authz.Bearer{Text: "bound", Certificate: sent(der)}, opaque.clock.now()); f.Status != valid {
		t.Errorf("an opaque token with its certificate: %q", f.Status)
	}
}

func TestToken_AudienceInAnotherClaim(t *testing.T) {
	b := newBench(t, func(o *token.Options) { o.Issuers[0].AudienceClaim = "client_id" })
	for name, c := range map[string]struct {
		claims object
		want   authz.TokenStatus
	}{
		"as Cognito has it": {object{"aud": nil, "client_id": "api", "token_use": "access"}, authz.TokenValid},
		"another client":    {object{"aud": nil, "client_id": "other"}, authz.TokenWrongAudience},
		"only aud":          {object{"aud": "api"}, authz.TokenWrongAudience},
		"null":              {object{"aud": "api", "client_id": json.RawMessage("null")}, authz.TokenWrongAudience},
	} {
		if got := b.status(t, b.issuer.Token(c.claims)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	o := asking(t, func(in *token.Introspection) { in.Audiences, in.AudienceClaim = []string{"api"}, "client_id" })
	o.issuer.Opaque("good", object{"iat": o.clock.now().Unix(), "client_id": "api"})
	o.issuer.Opaque("other", object{"iat": o.clock.now().Unix(), "client_id": "x", "aud": "api"})
	o.want(t, "good", authz.TokenValid)
	o.want(t, "other", authz.TokenWrongAudience)
}

// TestToken_AccountsOfAnIssuer has an issuer name the accounts of another one's customers.
func TestToken_AccountsOfAnIssuer(t *testing.T) {
	b := newBench(t, func(o *token.Options) { o.Issuers[0].Accounts = []string{"acme-", "beta"} })
	for account, want := range map[any]authz.TokenStatus{
		"acme-1": authz.TokenValid, "beta": authz.TokenValid, nil: authz.TokenValid,
		"acme": authz.TokenUntrustedIssuer, "gamma": authz.TokenUntrustedIssuer, " acme-1": authz.TokenUntrustedIssuer, 7: authz.TokenUntrustedIssuer,
	} {
		if got := b.status(t, b.issuer.Token(object{"org": account})); got != want {
			t.Errorf("%v: %q, want %q", account, got, want)
		}
	}
	o := asking(t, func(in *token.Introspection) { in.Accounts = []string{"acme-"} })
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

// TestToken_OfTheProxyIsNamedByItsClaims holds that what an operator revokes by the text of a token is what a request has
// that comes without it.
func TestToken_OfTheProxyIsNamedByItsClaims(t *testing.T) {
	b := newBench(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: "https://mesh.example", Audiences: []string{"api"}, Envoy: "payload"}}
	})
	now := b.clock.now()
	payload := fmt.Sprintf(`{"n":12345678901234567890,"iss":"https://mesh.example","aud":["api"],"iat":%d,"exp":%d,"x":{"b":null,"a":"<&>"}}`, now.Unix(), now.Unix()+60)
	var claims object
	if err := json.Unmarshal([]byte(payload), &claims); err != nil {
		t.Fatal(err)
	}
	seen, ok := b.FromProxy(t.Context(), object{"envoy.filters.http.jwt_authn": object{"payload": claims}}, &authz.Bearer{}, now)
	revoked := b.Inspect(t.Context(), forge(`{"alg":"RS256"}`, payload, "x"))
	if !ok || seen.Status != authz.TokenValid || seen.ByClaims == "" || seen.ByClaims != revoked.ByClaims || revoked.Issuer != "https://mesh.example" {
		t.Errorf("%+v\n%+v", seen, revoked)
	}
	claims["sub"] = "another"
	if other, _ := b.FromProxy(t.Context(), object{"envoy.filters.http.jwt_authn": object{"payload": claims}}, &authz.Bearer{}, now); other.ByClaims == seen.ByClaims {
		t.Error("two tokens have one name")
	}
}

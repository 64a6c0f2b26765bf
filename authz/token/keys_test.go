package token_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// jwkOf returns the public JWK of a key with members added; nil becomes null.
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

// signEd25519 signs an access token of that issuer, valid for a minute.
func signEd25519(k ed25519.PrivateKey, issuer string, now time.Time, header object) string {
	part := func(v any) string {
		raw, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(header) + "." + part(object{"iss": issuer, "aud": "api", "iat": now.Unix(), "exp": now.Unix() + 60})
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(k, []byte(text)))
}

// newKeySetFixture has an issuer that publishes that key set.
func newKeySetFixture(t *testing.T, algorithm, set string) *fixture {
	t.Helper()
	issuer := tokentest.New()
	issuer.Serve(tokentest.KeysPath, text(set))
	return newFixtureOf(t, issuer, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: issuer.URL, Audiences: []string{"api"}, Discovery: true, Algorithms: []string{algorithm}}}
	})
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
		"with a key of another type":     {setOf(jwkOf(t, weak, nil), jwkOf(t, right, nil)), "k1", authz.TokenValid},
		"with a key of another kid":      {setOf(jwkOf(t, wrong, object{"kid": "k2"}), jwkOf(t, right, nil)), "k1", authz.TokenValid},
		"two of them":                    {setOf(jwkOf(t, wrong, nil), jwkOf(t, right, nil)), "k1", authz.TokenValid},
		"the key with its kid is wrong":  {setOf(jwkOf(t, wrong, object{"kid": "k1"}), jwkOf(t, right, nil)), "k1", authz.TokenBadSignature},
		"only one with another kid":      {setOf(jwkOf(t, right, object{"kid": "k2"})), "k1", authz.TokenBadSignature},
		"the key is for another purpose": {setOf(jwkOf(t, right, object{"alg": "ES256"}), jwkOf(t, wrong, nil)), "k1", authz.TokenBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			fx := newKeySetFixture(t, "EdDSA", c.set)
			header := object{"alg": "EdDSA", "kid": c.kid}
			if c.kid == nil {
				delete(header, "kid")
			}
			fx.want(t, signEd25519(right, fx.issuer.URL, fx.clock.now(), header), c.want)
		})
	}
}

// TestKeySet_WithoutKidRotates: a new key is fetched also if neither it nor the old one has a kid.
func TestKeySet_WithoutKidRotates(t *testing.T) {
	old, next := newEd25519(t), newEd25519(t)
	fx := newKeySetFixture(t, "EdDSA", setOf(jwkOf(t, old, nil)))
	fx.want(t, signEd25519(old, fx.issuer.URL, fx.clock.now(), object{"alg": "EdDSA"}), authz.TokenValid)
	fx.issuer.Serve(tokentest.KeysPath, text(setOf(jwkOf(t, next, nil))))
	fx.want(t, signEd25519(next, fx.issuer.URL, fx.clock.now(), object{"alg": "EdDSA"}), authz.TokenValid)
}

func TestKeySet_BothNamesOfEd25519(t *testing.T) {
	k := newEd25519(t)
	for _, configured := range []string{"EdDSA", "Ed25519"} {
		for _, published := range []any{"EdDSA", "Ed25519", nil} {
			for _, used := range []string{"EdDSA", "Ed25519"} {
				fx := newKeySetFixture(t, configured, setOf(jwkOf(t, k, object{"kid": "k", "alg": published})))
				if got := fx.status(t, signEd25519(k, fx.issuer.URL, fx.clock.now(), object{"alg": used, "kid": "k"})); got != authz.TokenValid {
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
		fx := newKeySetFixture(t, "EdDSA", setOf(jwkOf(t, k, c.members)))
		if got := fx.status(t, signEd25519(k, fx.issuer.URL, fx.clock.now(), object{"alg": "EdDSA"})); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestKeySet_UnreadableKeys: the fault names each unusable key and the reason, even if another key is usable.
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
			alone := newKeySetFixture(t, "EdDSA", setOf(c.key)).Issuers()[0]
			says("alone", alone.Fault)
			fx := newKeySetFixture(t, "EdDSA", setOf(c.key, jwkOf(t, k, object{"kid": "good"})))
			state := fx.Issuers()[0]
			if state.Keys != 1 || state.Fault != "" || len(state.Unusable) != 1 {
				t.Fatalf("%+v", state)
			}
			says("with a good key", state.Unusable[0])
			fx.want(t, signEd25519(k, fx.issuer.URL, fx.clock.now(), object{"alg": "EdDSA", "kid": "good"}), authz.TokenValid)
			f := fx.Inspect(t.Context(), signEd25519(newEd25519(t), fx.issuer.URL, fx.clock.now(), object{"alg": "EdDSA", "kid": "x"}))
			says("a token", f.Fault)
		})
	}
}

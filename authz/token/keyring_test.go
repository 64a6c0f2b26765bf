package token_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// TestKeyring_Rotation uses an issuer that signs with a key as soon as it publishes it. No token is refused.
func TestKeyring_Rotation(t *testing.T) {
	fx := newFixture(t, nil)
	old := fx.issuer.Token(nil)
	fx.want(t, old, authz.TokenValid)
	for range 5 {
		fx.clock.advance(time.Minute)
		fx.issuer.AddKey()
		before := fx.issuer.Fetches.Load()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { fx.want(t, fx.issuer.Token(nil), authz.TokenValid) })
		}
		wg.Wait()
		if n := fx.issuer.Fetches.Load() - before; n != 1 {
			t.Errorf("%d fetches for one new key", n)
		}
		fx.want(t, old, authz.TokenValid)
	}
}

// TestKeyring_UnknownKeysFetchOncePerInterval sends many tokens with invented kids.
func TestKeyring_UnknownKeysFetchOncePerInterval(t *testing.T) {
	fx := newFixture(t, nil)
	before := fx.issuer.Fetches.Load()
	for range 100 {
		fx.want(t, fx.issuer.SignRaw(map[string]any{"kid": rand.Text()}, []byte(fmt.Sprintf(`{"iss":%q}`, fx.issuer.URL))), authz.TokenBadSignature)
	}
	if n := fx.issuer.Fetches.Load() - before; n != 1 {
		t.Errorf("%d fetches", n)
	}
	fx.clock.advance(timing().MissInterval)
	fx.want(t, fx.issuer.SignRaw(map[string]any{"kid": "x"}, []byte(fmt.Sprintf(`{"iss":%q}`, fx.issuer.URL))), authz.TokenBadSignature)
	if n := fx.issuer.Fetches.Load() - before; n != 2 {
		t.Errorf("%d fetches after the interval", n)
	}
}

// TestKeyring_RemovedKeyEndsItsTokens: a verified token is not remembered longer than its key is published.
func TestKeyring_RemovedKeyEndsItsTokens(t *testing.T) {
	fx := newFixture(t, nil)
	old := fx.issuer.Token(nil)
	fx.want(t, old, authz.TokenValid)
	fx.issuer.AddKey()
	fx.issuer.HideKey("key-1")
	fx.want(t, fx.issuer.Token(nil), authz.TokenValid) // fetches the keys
	fx.clock.advance(time.Minute)
	fx.want(t, old, authz.TokenBadSignature)
}

// TestKeyring_AllKeysWithdrawn uses an issuer that publishes an empty set for a while.
func TestKeyring_AllKeysWithdrawn(t *testing.T) {
	fx := newFixture(t, nil)
	good := fx.issuer.Token(nil)
	fx.want(t, good, authz.TokenValid)
	fx.issuer.Serve(tokentest.KeysPath, text(`{"keys":[]}`))
	fx.want(t, fx.issuer.SignRaw(map[string]any{"kid": "new"}, []byte(fmt.Sprintf(`{"iss":%q}`, fx.issuer.URL))), authz.TokenBadSignature)
	fx.want(t, good, authz.TokenBadSignature)
	fx.issuer.Serve(tokentest.KeysPath, nil)
	fx.clock.advance(time.Minute)
	fx.want(t, good, authz.TokenValid)
}

// TestKeyring_BadKeySets has fetches that fail in many ways. The fault says how. Keys that were there stay, and without any the
// tokens are unavailable.
func TestKeyring_BadKeySets(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		fault  string
	}{
		"HTML":    {text("<html><body>Not here</body></html>"), "HTML"},
		"nothing": {text(""), "is not JSON"},
		"huge":    {text(`{"keys":[],"x":"` + strings.Repeat("x", 2<<20) + `"}`), "more than"},
		"many":    {text(`{"keys":[` + strings.Repeat(`{"kty":"EC"},`, 500) + `{}]}`), "keys"},
		"a list":  {text(`[]`), "not a JSON object"},
		"secrets": {text(`{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}`), "none of the key set's 1 keys"},
		"error":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "answered 500"},
		"weak RSA": {
			text(`{"keys":[{"kty":"RSA","e":"AQAB","n":"` + base64.RawURLEncoding.EncodeToString([]byte("\xc0"+strings.Repeat("\x01", 127))) + `"}]}`),
			"none of the key set's",
		},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/keys", http.StatusFound)
		}, "want https"},
	} {
		t.Run(name, func(t *testing.T) {
			fx := newFixture(t, nil)
			good := fx.issuer.Token(nil)
			fx.want(t, good, authz.TokenValid)
			fx.issuer.Serve(tokentest.KeysPath, c.answer)
			fx.want(t, fx.issuer.SignRaw(map[string]any{"kid": "new"}, []byte(fmt.Sprintf(`{"iss":%q}`, fx.issuer.URL))), authz.TokenBadSignature)
			if got := fx.Issuers(); len(got) != 1 || !strings.Contains(got[0].Fault, c.fault) || got[0].Keys != 1 {
				t.Errorf("issuers: %+v, want a fault with %q", got, c.fault)
			}
			fx.want(t, fx.issuer.Token(nil), authz.TokenValid)

			fresh := newFixture(t, func(o *token.Options) {
				o.Issuers[0].Discovery, o.Issuers[0].JWKSURL = false, fx.issuer.URL+tokentest.KeysPath
				o.Issuers[0].Name = fx.issuer.URL
			})
			fresh.want(t, good, authz.TokenUnavailable)
		})
	}
}

// TestKeyring_SlowFetchDoesNotBlock uses an issuer that does not answer. A check waits until its deadline, and known tokens do
// not wait.
func TestKeyring_SlowFetchDoesNotBlock(t *testing.T) {
	fx := newFixture(t, nil)
	good := fx.issuer.Token(nil)
	release := make(chan struct{})
	defer close(release)
	fx.issuer.Serve(tokentest.KeysPath, func(http.ResponseWriter, *http.Request) { <-release })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	unknown := fx.issuer.SignRaw(map[string]any{"kid": "new"}, []byte(fmt.Sprintf(`{"iss":%q}`, fx.issuer.URL)))
	if f := fx.Identify(ctx, &authz.Bearer{Text: unknown}, fx.clock.now()); f.Status != authz.TokenBadSignature || ctx.Err() == nil {
		t.Errorf("%q", f.Status)
	}
	fx.want(t, good, authz.TokenValid)
}

// TestKeyring_MaxAge uses an issuer that cannot be reached for longer than its keys are trusted.
func TestKeyring_MaxAge(t *testing.T) {
	fx := newFixture(t, nil)
	fx.issuer.Serve(tokentest.DiscoveryPath, text("<html>"))
	fx.clock.advance(timing().MaxAge)
	known := fx.issuer.Token(nil)
	fx.want(t, known, authz.TokenValid)
	fx.clock.advance(time.Second)
	fx.want(t, fx.issuer.Token(nil), authz.TokenUnavailable)
	fx.want(t, known, authz.TokenUnavailable)
	fx.issuer.Serve(tokentest.DiscoveryPath, nil)
	fx.clock.advance(time.Minute)
	fx.want(t, fx.issuer.Token(nil), authz.TokenValid)
}

func TestDiscovery_OfAnotherIssuer(t *testing.T) {
	fx := newFixture(t, func(o *token.Options) { o.Issuers[0].Name += "/" }) // not what the issuer calls itself
	fx.want(t, fx.issuer.Token(map[string]any{"iss": fx.issuer.URL + "/"}), authz.TokenUnavailable)
	if f := fx.Issuers()[0].Fault; !strings.Contains(f, "describes the issuer") {
		t.Errorf("fault %q", f)
	}
}

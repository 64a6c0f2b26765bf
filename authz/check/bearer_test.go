package check_test

import (
	"context"
	"encoding/pem"
	"log/slog"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// hanging is a key store that gives no answer about one key.
type hanging struct {
	apikey.Store
	of apikey.Digest
}

func (h *hanging) Find(ctx context.Context, d apikey.Digest) (*apikey.Key, error) {
	if d == h.of {
		return nil, authz.Errorf(authz.KindUnavailable, "no answer")
	}
	return h.Store.Find(ctx, d)
}

// opaqueWorld is a world that asks a token server about unknown bearer tokens.
func opaqueWorld(t *testing.T, keys bool) (*world, *hanging, *tokentest.Issuer) {
	t.Helper()
	issuer := tokentest.New()
	t.Cleanup(issuer.Close)
	var store *hanging
	v := token.New(token.Options{
		Introspection: &token.Introspection{
			URL: issuer.URL + tokentest.IntrospectPath, Issuer: issuer.URL, ClientID: issuer.ClientID, Secret: issuer.Secret, AccountClaim: "org",
			TTL: time.Minute, NegativeTTL: time.Minute, Timeout: time.Second,
		},
		Timing: token.Timing{Skew: time.Second, MaxLifetime: time.Hour}, IsKey: apikey.IsOurs, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		MayBeKey: func(ctx context.Context, text string) (bool, error) {
			return apikey.NewIdentifier(store, apikey.Hasher{}).MayBeKey(ctx, text)
		},
	})
	t.Cleanup(v.Close)
	opt := check.Options{Tokens: v, Credentials: check.Sources{Headers: []string{"x-api-key"}, Bearer: keys}}
	w := newWorld(t, rule(goodCredential), opt)
	store = &hanging{Store: w.keys}
	w.Checker = check.New(apikey.NewIdentifier(store, apikey.Hasher{}), w.revoked, w.meter, w.book, opt)
	w.Use(&check.Rules{Policy: rule(goodCredential), Plans: map[string][]authz.Limit{"small": {}}})
	return w, store, issuer
}

// importKey adds a key of any form.
func (w *world) importKey(t *testing.T, text string, change func(*apikey.Key)) {
	t.Helper()
	k := apikey.Key{ID: "key of " + text, Account: "acme", CreatedAt: time.Now(), Version: 1, Digest: apikey.Hasher{}.Text(text)}
	if change != nil {
		change(&k)
	}
	if _, err := w.keys.CreateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// TestBearer_NoKeyIsSentToATokenServer sends keys of every form and state by the bearer scheme.
func TestBearer_NoKeyIsSentToATokenServer(t *testing.T) {
	w, store, issuer := opaqueWorld(t, true)
	jwt := issuer.Token(map[string]any{"iss": "x", "aud": nil, "sub": nil, "jti": nil})
	past := time.Now().Add(-time.Hour)
	w.importKey(t, "imported-key-1", nil)
	w.importKey(t, jwt, nil)
	w.importKey(t, "expired-key-12", func(k *apikey.Key) { k.ExpiresAt = past })
	w.importKey(t, "disabled-key-1", func(k *apikey.Key) { k.Disabled = true })
	w.importKey(t, "rotated-key-12", func(k *apikey.Key) { k.Successor, k.OverlapEnds = "key_1", past })
	w.importKey(t, "revoked-key-12", nil)
	if _, err := w.revoked.Revoke(t.Context(), revocation.Record{Kind: revocation.KindKey, Value: "key of revoked-key-12", At: past}); err != nil {
		t.Fatal(err)
	}
	unknown, _ := apikey.NewText("live")
	store.of = apikey.Hasher{}.Text("hangs-key-1234")
	for text, reason := range map[string]authz.Reason{
		"imported-key-1": "", jwt: "", w.text: "",
		"expired-key-12": "key_expired", "disabled-key-1": "key_disabled", "rotated-key-12": "key_rotated", "revoked-key-12": "key_revoked",
		unknown: "key_unknown", w.text + "x": "key_malformed", "tk_": "key_malformed", "hangs-key-1234": "key_unavailable",
	} {
		d := w.Check(t.Context(), request("authorization", "Bearer "+text))
		if d.Allowed() != (reason == "") || !d.Allowed() && d.DeniedFor() != reason {
			t.Errorf("%.20s: allowed %v for %q, want %q", text, d.Allowed(), d.DeniedFor(), reason)
		}
		if d.Allowed() && !slices.Contains(d.RemoveRequestHeaders, "authorization") {
			t.Errorf("%.20s reaches the upstream", text)
		}
		d = w.Check(t.Context(), request("authorization", "Bearer "+text, "x-api-key", "another-key"))
		if d.DeniedFor() != "key_ambiguous" {
			t.Errorf("%.20s with another key: %q", text, d.DeniedFor())
		}
		if e := w.book.entries[len(w.book.entries)-1]; e.Facts.Key.ID != "" || e.Facts.Account.Status != authz.AccountUnknown {
			t.Errorf("%.20s with another key is described: %+v", text, e.Facts.Key)
		}
	}
	if n := issuer.Asked.Load(); n != 0 {
		t.Errorf("%d keys were sent to the token server", n)
	}
	now := time.Now().Unix()
	issuer.Opaque("a-token", map[string]any{"org": "acme", "iat": now})
	for _, headers := range [][]string{{"authorization", "Bearer a-token"}, {"authorization", "Bearer a-token", "x-api-key", w.text}} {
		if d := w.Check(t.Context(), request(headers...)); !d.Allowed() {
			t.Errorf("%v: %s", headers, d.DeniedFor())
		}
	}
	if d := w.Check(t.Context(), request("authorization", "Bearer never-issued")); d.DeniedFor() != "token_inactive" {
		t.Errorf("a token that was never issued: %q", d.DeniedFor())
	}
}

// TestBearer_KeysAreNotSentWhereNoKeyMayComeThisWay sends keys by the bearer scheme, which is not a source of keys.
func TestBearer_KeysAreNotSentWhereNoKeyMayComeThisWay(t *testing.T) {
	w, store, issuer := opaqueWorld(t, false)
	w.importKey(t, "imported-key-1", nil)
	store.of = apikey.Hasher{}.Text("hangs-key-1234")
	for text, reason := range map[string]authz.Reason{
		"imported-key-1": "token_malformed", "hangs-key-1234": "token_unavailable", w.text: "account_unknown", "tk_live_x": "account_unknown",
	} {
		if d := w.Check(t.Context(), request("authorization", "Bearer "+text)); d.DeniedFor() != reason {
			t.Errorf("%s: %q, want %q", text, d.DeniedFor(), reason)
		}
	}
	if n := issuer.Asked.Load(); n != 0 {
		t.Errorf("%d keys were sent to the token server", n)
	}
}

// TestToken_BoundToTheClientsCertificate takes the certificate from the source of the request.
func TestToken_BoundToTheClientsCertificate(t *testing.T) {
	w, issuer := tokenWorld(t, check.Answers{})
	const x5t = "gazXYhQPppKhQoItL75NxvVLyqUB9oqzflru0Lr-TZk" // of "a certificate"
	bearer := "Bearer " + issuer.Token(map[string]any{"org": "acme", "cnf": map[string]any{"x5t#S256": x5t}})
	for name, c := range map[string]struct {
		source *authz.Peer
		reason authz.Reason
	}{
		"the one":        {&authz.Peer{Certificate: url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("a certificate")})))}, ""},
		"no source":      {nil, "token_unbound"},
		"no certificate": {&authz.Peer{}, "token_unbound"},
		"another":        {&authz.Peer{Certificate: url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("other")})))}, "token_unbound"},
	} {
		r := request("authorization", bearer)
		r.Source = c.source
		if d := w.Check(t.Context(), r); d.DeniedFor() != c.reason {
			t.Errorf("%s: %q", name, d.DeniedFor())
		}
	}
}

// TestIdentity_NamesTheIssuer: the upstream gets a subject together with its issuer.
func TestIdentity_NamesTheIssuer(t *testing.T) {
	w, issuer := tokenWorld(t, check.Answers{})
	d := w.Check(t.Context(), request("authorization", "Bearer "+issuer.Token(map[string]any{"org": "acme"}), "x-tollkeeper-issuer", "https://evil.example"))
	if got := d.Headers.Values("x-tollkeeper-issuer"); !slices.Equal(got, []string{issuer.URL}) {
		t.Errorf("the issuer of the subject: %q", got)
	}
	d = w.Check(t.Context(), request("x-api-key", w.text, "x-tollkeeper-issuer", "https://evil.example"))
	if d.Headers.Has("x-tollkeeper-issuer") || !slices.Contains(d.RemoveRequestHeaders, "x-tollkeeper-issuer") {
		t.Errorf("forged with a key: set %v, removed %v", d.Headers, d.RemoveRequestHeaders)
	}
}

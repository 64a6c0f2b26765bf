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

// hanging is a key store that cannot say of some keys whether they are there.
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

// opaqueBench asks a server about bearer tokens that nobody here knows.
func opaqueBench(t *testing.T, keys bool) (*bench, *hanging, *tokentest.Issuer) {
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
	b := newBench(t, rule(goodCredential), opt)
	store = &hanging{Store: b.keys}
	b.Checker = check.New(apikey.NewIdentifier(store, apikey.Hasher{}), b.revoked, b.meter, b.book, opt)
	b.Use(&check.Rules{Policy: rule(goodCredential), Plans: map[string][]authz.Limit{"small": {}}})
	return b, store, issuer
}

// importKey adds a key of another form.
func (b *bench) importKey(t *testing.T, text string, change func(*apikey.Key)) {
	t.Helper()
	k := apikey.Key{ID: "key of " + text, Account: "acme", CreatedAt: time.Now(), Version: 1, Digest: apikey.Hasher{}.Text(text)}
	if change != nil {
		change(&k)
	}
	if _, err := b.keys.CreateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

// TestBearer_NoKeyIsSentToATokenServer has keys of every form and state come by the bearer scheme.
func TestBearer_NoKeyIsSentToATokenServer(t *testing.T) {
	b, store, issuer := opaqueBench(t, true)
	jwt := issuer.Token(map[string]any{"iss": "x", "aud": nil, "sub": nil, "jti": nil})
	past := time.Now().Add(-time.Hour)
	b.importKey(t, "imported-key-1", nil)
	b.importKey(t, jwt, nil)
	b.importKey(t, "expired-key-12", func(k *apikey.Key) { k.ExpiresAt = past })
	b.importKey(t, "disabled-key-1", func(k *apikey.Key) { k.Disabled = true })
	b.importKey(t, "rotated-key-12", func(k *apikey.Key) { k.Successor, k.OverlapEnds = "key_1", past })
	b.importKey(t, "revoked-key-12", nil)
	if _, err := b.revoked.Revoke(t.Context(), revocation.Record{Kind: revocation.KindKey, Value: "key of revoked-key-12", At: past}); err != nil {
		t.Fatal(err)
	}
	unknown, _ := apikey.NewText("live")
	store.of = apikey.Hasher{}.Text("hangs-key-1234")
	for text, reason := range map[string]authz.Reason{
		"imported-key-1": "", jwt: "", b.text: "",
		"expired-key-12": "key_expired", "disabled-key-1": "key_disabled", "rotated-key-12": "key_rotated", "revoked-key-12": "key_revoked",
		unknown: "key_unknown", b.text + "x": "key_malformed", "tk_": "key_malformed", "hangs-key-1234": "key_unavailable",
	} {
		d := b.Check(t.Context(), request("authorization", "Bearer "+text))
		if d.Allowed() != (reason == "") || !d.Allowed() && d.DeniedFor() != reason {
			t.Errorf("%.20s: allowed %v for %q, want %q", text, d.Allowed(), d.DeniedFor(), reason)
		}
		if d.Allowed() && !slices.Contains(d.RemoveRequestHeaders, "authorization") {
			t.Errorf("%.20s reaches the upstream", text)
		}
		d = b.Check(t.Context(), request("authorization", "Bearer "+text, "x-api-key", "another-key"))
		if d.DeniedFor() != "key_ambiguous" {
			t.Errorf("%.20s beside another key: %q", text, d.DeniedFor())
		}
		if e := b.book.entries[len(b.book.entries)-1]; e.Facts.Key.ID != "" || e.Facts.Account.Status != authz.AccountUnknown {
			t.Errorf("%.20s beside another key is described: %+v", text, e.Facts.Key)
		}
	}
	if n := issuer.Asked.Load(); n != 0 {
		t.Errorf("%d keys were sent to the token server", n)
	}
	now := time.Now().Unix()
	issuer.Opaque("a-token", map[string]any{"org": "acme", "iat": now})
	for _, headers := range [][]string{{"authorization", "Bearer a-token"}, {"authorization", "Bearer a-token", "x-api-key", b.text}} {
		if d := b.Check(t.Context(), request(headers...)); !d.Allowed() {
			t.Errorf("%v: %s", headers, d.DeniedFor())
		}
	}
	if d := b.Check(t.Context(), request("authorization", "Bearer nobody-made-this")); d.DeniedFor() != "token_inactive" {
		t.Errorf("a token that nobody made: %q", d.DeniedFor())
	}
}

// TestBearer_KeysThatDoNotComeThisWayStayToo has keys come as a bearer where no key may.
func TestBearer_KeysThatDoNotComeThisWayStayToo(t *testing.T) {
	b, store, issuer := opaqueBench(t, false)
	b.importKey(t, "imported-key-1", nil)
	store.of = apikey.Hasher{}.Text("hangs-key-1234")
	for text, reason := range map[string]authz.Reason{
		"imported-key-1": "token_malformed", "hangs-key-1234": "token_unavailable", b.text: "account_unknown", "tk_live_x": "account_unknown",
	} {
		if d := b.Check(t.Context(), request("authorization", "Bearer "+text)); d.DeniedFor() != reason {
			t.Errorf("%s: %q, want %q", text, d.DeniedFor(), reason)
		}
	}
	if n := issuer.Asked.Load(); n != 0 {
		t.Errorf("%d keys were sent to the token server", n)
	}
}

// TestToken_BoundToTheClientsCertificate takes the certificate from the source of the request.
func TestToken_BoundToTheClientsCertificate(t *testing.T) {
	b, issuer := tokenBench(t, check.Answers{})
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
		if d := b.Check(t.Context(), r); d.DeniedFor() != c.reason {
			t.Errorf("%s: %q", name, d.DeniedFor())
		}
	}
}

// TestIdentity_NamesTheIssuer holds that a subject comes with whose it is.
func TestIdentity_NamesTheIssuer(t *testing.T) {
	b, issuer := tokenBench(t, check.Answers{})
	d := b.Check(t.Context(), request("authorization", "Bearer "+issuer.Token(map[string]any{"org": "acme"}), "x-tollkeeper-issuer", "https://evil.example"))
	if got := d.Headers.Values("x-tollkeeper-issuer"); !slices.Equal(got, []string{issuer.URL}) {
		t.Errorf("the issuer of the subject: %q", got)
	}
	d = b.Check(t.Context(), request("x-api-key", b.text, "x-tollkeeper-issuer", "https://evil.example"))
	if d.Headers.Has("x-tollkeeper-issuer") || !slices.Contains(d.RemoveRequestHeaders, "x-tollkeeper-issuer") {
		t.Errorf("forged beside a key: set %v, removed %v", d.Headers, d.RemoveRequestHeaders)
	}
}

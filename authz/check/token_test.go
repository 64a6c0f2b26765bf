package check_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// goodCredential allows callers with a good key, or with a good token of a good account, and no other, bad credential.
func goodCredential(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
	for _, q := range f.Quota {
		if q.State != authz.QuotaOK {
			return authz.Verdict{Reason: authz.ReasonQuotaExceeded, Status: 402}, nil
		}
	}
	key, tok := f.Key.Status, f.Token.Status
	switch {
	case key != authz.KeyActive && key != authz.KeyMissing:
		return authz.Verdict{Reason: authz.Reason("key_" + string(key))}, nil
	case tok != authz.TokenValid && tok != authz.TokenMissing:
		return authz.Verdict{Reason: authz.Reason("token_" + string(tok))}, nil
	case key == authz.KeyMissing && f.Account.Status != authz.AccountActive:
		return authz.Verdict{Reason: authz.Reason("account_" + string(f.Account.Status))}, nil
	}
	return authz.Verdict{Allowed: true}, nil
}

// tokenWorld is a world that also trusts an issuer.
func tokenWorld(t *testing.T, answers check.Answers) (*world, *tokentest.Issuer) {
	t.Helper()
	issuer := tokentest.New()
	t.Cleanup(issuer.Close)
	v := token.New(token.Options{
		Issuers: []token.Issuer{
			{Name: issuer.URL, Audiences: []string{"api"}, Discovery: true, AccountClaim: "org", PlanClaim: "plan"},
			{Name: "https://mesh.example", Audiences: []string{"api"}, Envoy: "payload", AccountClaim: "org"},
		},
		Timing: token.Timing{Refresh: time.Minute, MissInterval: time.Second, MaxAge: time.Hour, Skew: time.Second, MaxLifetime: 24 * time.Hour}, IsKey: apikey.IsOurs, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(v.Close)
	v.Ready(t.Context())
	return newWorld(t, rule(goodCredential), check.Options{
		Tokens: v, Answers: answers, Credentials: check.Sources{Headers: []string{"x-api-key"}, Bearer: true},
	}), issuer
}

func TestToken_Alone(t *testing.T) {
	w, issuer := tokenWorld(t, check.Answers{})
	text := issuer.Token(map[string]any{"sub": "alice", "org": "acme"})
	r := request("authorization", "Bearer "+text, "x-tollkeeper-subject", "mallory", "x-tollkeeper-key-id", "key_9")
	d := w.Check(t.Context(), r)
	if !d.Allowed() {
		t.Fatalf("denied: %s", d.DeniedFor())
	}
	for name, want := range map[string]string{"x-tollkeeper-account": "acme", "x-tollkeeper-plan": "small", "x-tollkeeper-subject": "alice"} {
		if got := d.Headers.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"authorization", "x-tollkeeper-key-id"} {
		if !slices.Contains(d.RemoveRequestHeaders, name) {
			t.Errorf("%s reaches the upstream", name)
		}
	}
	e := w.book.entries[0]
	if e.Plan != "small" || e.Charge["daily"] != 1 || e.Facts.Token.Claims["org"] != "acme" {
		t.Errorf("%+v", e)
	}
	// Three units a day for each subject, as for each key.
	for _, want := range []bool{true, true, false} {
		if d := w.Check(t.Context(), request("authorization", "Bearer "+text)); d.Allowed() != want {
			t.Errorf("allowed %v, want %v", d.Allowed(), want)
		}
	}
	if d := w.Check(t.Context(), request("authorization", "Bearer "+issuer.Token(map[string]any{"sub": "bob", "org": "acme"}))); !d.Allowed() {
		t.Errorf("another subject: %s", d.DeniedFor())
	}
	if d := w.Check(t.Context(), request("x-api-key", w.text)); !d.Allowed() {
		t.Errorf("a key of the account: %s", d.DeniedFor())
	}
}

// TestHolder_TokenAlone finds out which callers without a key share their three units a day.
func TestHolder_TokenAlone(t *testing.T) {
	for name, c := range map[string]struct {
		first, second map[string]any
		same          bool
	}{
		"one subject, two tokens":                  {map[string]any{"sub": "alice", "jti": "1"}, map[string]any{"sub": "alice", "jti": "2"}, true},
		"one subject, two clients":                 {map[string]any{"sub": "alice", "azp": "a"}, map[string]any{"sub": "alice", "azp": "b"}, true},
		"two subjects":                             {map[string]any{"sub": "alice"}, map[string]any{"sub": "bob"}, false},
		"one subject on two accounts":              {map[string]any{"sub": "alice", "org": "acme"}, map[string]any{"sub": "alice", "org": "beta"}, false},
		"two clients without a subject":            {map[string]any{"sub": nil, "azp": "a"}, map[string]any{"sub": nil, "azp": "b"}, false},
		"one client without a subject":             {map[string]any{"sub": nil, "azp": "a"}, map[string]any{"sub": nil, "azp": "a"}, true},
		"a client called like a subject":           {map[string]any{"sub": nil, "azp": "alice"}, map[string]any{"sub": "alice"}, false},
		"an account that ends like another":        {map[string]any{"sub": "x", "org": "a"}, map[string]any{"sub": "x", "org": "aa"}, false},
		"neither subject nor client, one account":  {map[string]any{"sub": nil}, map[string]any{"sub": nil}, true},
		"neither subject nor client, two accounts": {map[string]any{"sub": nil, "org": "acme"}, map[string]any{"sub": nil, "org": "beta"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w, issuer := tokenWorld(t, check.Answers{})
			send := func(claims map[string]any) bool {
				all := map[string]any{"org": "acme", "plan": "small"}
				maps.Copy(all, claims)
				d := w.Check(t.Context(), request("authorization", "Bearer "+issuer.Token(all)))
				return d.Allowed()
			}
			for i := range 4 {
				if got := send(c.first); got != (i < 3) {
					t.Fatalf("request %d: allowed %v", i, got)
				}
			}
			if got := send(c.second); got == c.same {
				t.Errorf("the second caller is allowed: %v", got)
			}
		})
	}
}

func TestToken_WhoPays(t *testing.T) {
	w, issuer := tokenWorld(t, check.Answers{})
	for name, c := range map[string]struct {
		claims map[string]any
		reason authz.Reason
		plan   string
	}{
		"a known account":                    {map[string]any{"org": "acme"}, "", "small"},
		"no account":                         {nil, "account_unknown", ""},
		"an unknown account":                 {map[string]any{"org": "other"}, "account_unknown", ""},
		"an account with a plan":             {map[string]any{"org": "other", "plan": "small"}, "", "small"},
		"a plan that is not defined":         {map[string]any{"org": "other", "plan": "huge"}, authz.ReasonPolicyError, "huge"},
		"a plan of its own":                  {map[string]any{"org": "acme", "plan": "huge"}, authz.ReasonPolicyError, "huge"},
		"a plan without an account":          {map[string]any{"plan": "small"}, "account_unknown", ""},
		"an account that is a list of names": {map[string]any{"org": []string{"acme"}}, "account_unknown", ""},
	} {
		d := w.Check(t.Context(), request("authorization", "Bearer "+issuer.Token(c.claims)))
		if c.reason == "" != d.Allowed() || !d.Allowed() && d.DeniedFor() != c.reason {
			t.Errorf("%s: allowed %v for %q (%s)", name, d.Allowed(), d.DeniedFor(), w.lastCause())
		}
		if e := w.book.entries[len(w.book.entries)-1]; e.Plan != c.plan {
			t.Errorf("%s: plan %q, want %q", name, e.Plan, c.plan)
		}
	}
}

func TestToken_BesideAKey(t *testing.T) {
	w, issuer := tokenWorld(t, check.Answers{KeepTokens: true, KeepCredentials: true})
	good, expired := issuer.Token(nil), issuer.Token(map[string]any{"iat": 1, "exp": 2})
	for name, c := range map[string]struct {
		key, token string
		reason     authz.Reason
	}{
		"both good":     {w.text, good, ""},
		"a bad key":     {"tk_live_x", good, "key_malformed"},
		"a bad token":   {w.text, expired, "token_expired"},
		"half a token":  {w.text, "eyJ.x.y", "token_malformed"},
		"a foreign one": {w.text, issuer.Token(map[string]any{"iss": "https://other.example"}), "token_untrusted_issuer"},
	} {
		d := w.Check(t.Context(), request("x-api-key", c.key, "authorization", "bearer "+c.token))
		if c.reason == "" != d.Allowed() || !d.Allowed() && d.DeniedFor() != c.reason {
			t.Errorf("%s: allowed %v for %q", name, d.Allowed(), d.DeniedFor())
		}
		if d.Allowed() && slices.Contains(d.RemoveRequestHeaders, "authorization") {
			t.Error("the token is removed although it was to be kept")
		}
	}
	// A key by the bearer scheme is a key. Two tokens are ambiguous.
	if d := w.Check(t.Context(), request("authorization", "Bearer "+w.text)); !d.Allowed() {
		t.Errorf("a key as a bearer: %s", d.DeniedFor())
	}
	for _, r := range []*authz.Request{
		request("authorization", "Bearer "+good, "authorization", "Bearer "+good), request("authorization", "Bearer "+good+",Bearer "+good),
	} {
		if d := w.Check(t.Context(), r); d.DeniedFor() != "key_ambiguous" {
			t.Errorf("two tokens: %q", d.DeniedFor())
		}
	}
}

// TestToken_RevokedIsRefused revokes a verified token in every way.
func TestToken_RevokedIsRefused(t *testing.T) {
	for name, record := range map[string]func(f *authz.TokenFact) revocation.Record{
		"digest": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindToken, Value: f.Digest}
		},
		"jti": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindJTI, Issuer: f.Issuer, Value: f.ID}
		},
		"sid": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindSession, Issuer: f.Issuer, Value: f.Session}
		},
		"sub": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindSubject, Issuer: f.Issuer, Value: f.Subject, Before: f.IssuedAt}
		},
		"account": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindAccount, Value: f.Account, Before: f.IssuedAt}
		},
		"client": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindClient, Issuer: f.Issuer, Value: f.Client, Before: f.IssuedAt}
		},
		"signing key": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindSigningKey, Issuer: f.Issuer, Value: f.SigningKey}
		},
		"suspension": func(f *authz.TokenFact) revocation.Record {
			return revocation.Record{Kind: revocation.KindSuspension, Issuer: f.Issuer, Value: f.Subject}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, issuer := tokenWorld(t, check.Answers{})
			text := issuer.Token(map[string]any{"org": "acme", "sid": "s", "azp": "app"})
			if d := w.Check(t.Context(), request("authorization", "Bearer "+text)); !d.Allowed() {
				t.Fatalf("denied: %s", d.DeniedFor())
			}
			r := record(&w.book.entries[0].Facts.Token)
			r.At = time.Now()
			if _, err := w.revoked.Revoke(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if d := w.Check(t.Context(), request("authorization", "Bearer "+text)); d.DeniedFor() != "token_revoked" {
				t.Errorf("allowed %v for %q", d.Allowed(), d.DeniedFor())
			}
		})
	}
}

// TestToken_VerifiedByTheProxy: claims in metadata are accepted only from the issuer whose tokens the proxy verifies.
func TestToken_VerifiedByTheProxy(t *testing.T) {
	w, issuer := tokenWorld(t, check.Answers{})
	now := float64(time.Now().Unix())
	vouched := func(iss string) *authz.Request {
		r := request()
		r.Metadata = &authz.Metadata{Filter: map[string]any{"envoy.filters.http.jwt_authn": map[string]any{"payload": map[string]any{
			"iss": iss, "aud": "api", "sub": "alice", "org": "acme", "iat": now, "exp": now + 60,
		}}}}
		return r
	}
	if d := w.Check(t.Context(), vouched("https://mesh.example")); !d.Allowed() {
		t.Errorf("denied: %s", d.DeniedFor())
	}
	if d := w.Check(t.Context(), vouched(issuer.URL)); d.Allowed() {
		t.Error("the proxy is believed about an issuer that is not left to it")
	}
}

func TestToken_WithoutIssuersIsLeftToTheUpstream(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	d := w.Check(t.Context(), request("x-api-key", w.text, "authorization", "Bearer eyJhbGciOiJub25lIn0.e30."))
	if !d.Allowed() || slices.Contains(d.RemoveRequestHeaders, "authorization") {
		t.Errorf("allowed %v, removed %s", d.Allowed(), strings.Join(d.RemoveRequestHeaders, ","))
	}
}

// TestChallenge_SaysWhatIsWrong uses a profile that answers 401 (RFC 6750 section 3).
func TestChallenge_SaysWhatIsWrong(t *testing.T) {
	w, issuer := tokenWorld(t, check.Answers{Realm: `a"pi`})
	w.Use(&check.Rules{
		Policy: rule(goodCredential), Plans: map[string][]authz.Limit{"small": limits},
		Reasons: map[authz.Reason]authz.ReasonInfo{"token_expired": {Status: 401, Title: "The \"token\" has expired ä"}, "token_missing": {Status: 401}},
	})
	d := w.Check(t.Context(), request("authorization", "Bearer "+issuer.Token(map[string]any{"iat": 1, "exp": 2})))
	if got, want := d.Headers.Get("www-authenticate"), `Bearer realm="api", error="invalid_token", error_description="The token has expired "`; d.HTTPStatus() != 401 || got != want {
		t.Errorf("%d %s, want %s", d.HTTPStatus(), got, want)
	}
	w.Use(&check.Rules{Policy: always(authz.Verdict{Reason: authz.ReasonTokenMissing, Status: 401})})
	if got := w.Check(t.Context(), request()); got.Headers.Get("www-authenticate") != `Bearer realm="api"` { // no error code if no token was sent
		t.Errorf("%s", got.Headers.Get("www-authenticate"))
	}
}

package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// tokenConfig trusts an issuer, and lets it and a client revoke.
func tokenConfig(t *testing.T, issuer *tokentest.Issuer) config.Config {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := configFor(dir)
	cfg.Listen.Events = "127.0.0.1:0"
	cfg.Tokens.Issuers = []config.Issuer{{
		Issuer: issuer.URL, Audiences: []string{"api"}, Discovery: true, AccountClaim: "org",
		LogoutAudiences: []string{"rp"}, EventAudiences: []string{"receiver"},
	}}
	cfg.Revocation.Clients = []config.Client{{ID: "crm", SecretFile: secret}}
	return cfg
}

// bearer sends one check with a token.
func (r *running) bearer(token string) (int, string) {
	r.t.Helper()
	return r.ask("authorization", "Bearer "+token, nil)
}

func (r *running) wantBearer(token string, status int, reason string) {
	r.t.Helper()
	if s, why := r.bearer(token); s != status || why != reason {
		r.t.Errorf("got %d %q, want %d %q", s, why, status, reason)
	}
}

// post sends a body to the events port and returns the status.
func (r *running) post(path, contentType, body string, change func(*http.Request)) int {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "http://"+r.EventsAddr()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode
}

const form = "application/x-www-form-urlencoded"

// waysIn are the ways to revoke a token. Each returns the status that it got and the one that it should get.
func waysIn(r *running, issuer *tokentest.Issuer) map[string]func(token string, sub, sid string) (got, want int) {
	push := func(set string) (int, int) { return r.post("/ssf/events", "application/secevent+jwt", set, nil), 202 }
	logout := func(claims map[string]any) (int, int) {
		body := url.Values{"logout_token": {issuer.LogoutToken(claims)}}
		return r.post("/oidc/backchannel-logout", form, body.Encode(), nil), 200
	}
	return map[string]func(token, sub, sid string) (int, int){
		"RFC 7009": func(token, _, _ string) (int, int) {
			return r.post("/oauth2/revoke", form, url.Values{"token": {token}}.Encode(), func(q *http.Request) { q.SetBasicAuth("crm", "hush") }), 200
		},
		"logout of a session": func(_, _, sid string) (int, int) { return logout(map[string]any{"sid": sid}) },
		"logout of a subject": func(_, sub, _ string) (int, int) { return logout(map[string]any{"sub": sub}) },
		"session-revoked": func(_, sub, _ string) (int, int) {
			return push(issuer.Event("caep/event-type/session-revoked", sub))
		},
		"account-disabled": func(_, sub, _ string) (int, int) {
			return push(issuer.Event("risc/event-type/account-disabled", sub))
		},
		"the admin API": func(token, _, _ string) (int, int) {
			r.do("POST", "/v1/tokens/revoke", admin.TokenRevoke{Token: token}, nil)
			return 200, 200
		},
		"the admin API, by subject": func(_, sub, _ string) (int, int) {
			r.do("POST", "/v1/tokens/revoke", admin.TokenRevoke{Kind: "sub", Value: sub}, nil)
			return 200, 200
		},
	}
}

// TestRevoke_EveryWay revokes a token that is in use in each way. As soon as that is acknowledged, checks are refused, also
// after a restart.
func TestRevoke_EveryWay(t *testing.T) {
	issuer := tokentest.New()
	defer issuer.Close()
	cfg := tokenConfig(t, issuer)
	r := start(t, cfg)
	r.newKey("acme", "free")
	dead := make(map[string]string)
	for name, revoke := range waysIn(r, issuer) {
		sub, sid := "user of "+name, "session of "+name
		token := issuer.Token(map[string]any{"org": "acme", "sub": sub, "sid": sid})
		other := issuer.Token(map[string]any{"org": "acme", "sub": "other " + name, "sid": "other " + name})
		r.wantBearer(token, 200, "")
		r.wantBearer(other, 200, "")
		if got, want := revoke(token, sub, sid); got != want {
			t.Errorf("%s: answered %d, want %d", name, got, want)
			continue
		}
		r.wantBearer(token, 403, "token_revoked")
		r.wantBearer(other, 200, "")
		dead[name] = token
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	for name, token := range dead {
		if status, reason := again.bearer(token); status != 403 || reason != "token_revoked" {
			t.Errorf("%s, after a restart: %d %q", name, status, reason)
		}
	}
	again.wantBearer(issuer.Token(map[string]any{"org": "acme", "sub": "user of account-disabled", "iat": time.Now().Unix() + 1}), 403, "token_revoked")
}

// startProxied starts a server that leaves signatures to the proxy.
func startProxied(t *testing.T) (*running, *tokentest.Issuer) {
	t.Helper()
	issuer := tokentest.New()
	t.Cleanup(issuer.Close)
	cfg := tokenConfig(t, issuer)
	cfg.Tokens.Issuers[0].Discovery, cfg.Tokens.Issuers[0].Envoy = false, "payload"
	r := start(t, cfg)
	r.newKey("acme", "free")
	return r, issuer
}

// proxied sends a check with the claims that the proxy has verified, and with the token itself unless it is "".
func (r *running) proxied(token string, claims map[string]any) (int, string) {
	r.t.Helper()
	payload, err := structpb.NewStruct(map[string]any{"payload": claims})
	if err != nil {
		r.t.Fatal(err)
	}
	header, value := "accept", "*/*"
	if token != "" {
		header, value = "authorization", "Bearer "+token
	}
	return r.ask(header, value, &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.filters.http.jwt_authn": payload}})
}

// revokers are the two ways to revoke a token by its text.
func (r *running) revokers() map[string]func(token string) {
	return map[string]func(token string){
		"RFC 7009": func(token string) {
			body := url.Values{"token": {token}}.Encode()
			if got := r.post("/oauth2/revoke", form, body, func(q *http.Request) { q.SetBasicAuth("crm", "hush") }); got != 200 {
				r.t.Errorf("answered %d", got)
			}
		},
		"the admin API": func(token string) { r.do("POST", "/v1/tokens/revoke", admin.TokenRevoke{Token: token}, nil) },
	}
}

// TestProxiedTokens_AreRevoked revokes tokens by their text. The proxy forwards it in some cases, and only the claims in
// others. A second token with the same subject is not affected.
func TestProxiedTokens_AreRevoked(t *testing.T) {
	r, issuer := startProxied(t)
	for name, revoke := range r.revokers() {
		for _, c := range []struct {
			jti       string
			forwarded bool
		}{{"", true}, {"", false}, {"id of " + name, false}} {
			now := float64(time.Now().Unix())
			claims := map[string]any{"iss": issuer.URL, "aud": "api", "iat": now, "exp": now + 60, "org": "acme", "sub": fmt.Sprint(name, c)}
			if c.jti != "" {
				claims["jti"] = c.jti
			}
			other := maps.Clone(claims)
			other["exp"], other["jti"] = now+61, "another"
			token, sent := issuer.Sign("JWT", maps.Clone(claims)), ""
			if c.forwarded {
				sent = token
			}
			if status, why := r.proxied(sent, claims); status != 200 {
				t.Errorf("%s, %+v: before: %d %q", name, c, status, why)
			}
			revoke(token)
			if status, why := r.proxied(sent, claims); status != 403 || why != "token_revoked" {
				t.Errorf("%s, %+v: after: %d %q", name, c, status, why)
			}
			if status, why := r.proxied("", other); status != 200 {
				t.Errorf("%s, %+v: another token: %d %q", name, c, status, why)
			}
		}
	}
}

// TestProxiedTokens_RevocationThatMatchesNothing is refused.
func TestProxiedTokens_RevocationThatMatchesNothing(t *testing.T) {
	r, issuer := startProxied(t)
	for _, c := range []struct {
		in   admin.TokenRevoke
		want string
	}{
		{admin.TokenRevoke{Kind: "signing_key", Value: "key-1"}, "is not known here"},
		{admin.TokenRevoke{Kind: "sub", Value: "u", Issuer: issuer.URL + "/"}, "no issuer is called"},
	} {
		if err := r.admin.Do(t.Context(), "POST", "/v1/tokens/revoke", c.in, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.in, err)
		}
	}
}

// TestRevoke_IssuerWhoseClockIsAhead revokes tokens that were just issued, by a clock that is 25 seconds ahead.
func TestRevoke_IssuerWhoseClockIsAhead(t *testing.T) {
	issuer := tokentest.New()
	defer issuer.Close()
	issuer.Now = func() time.Time { return time.Now().Add(25 * time.Second) }
	r := start(t, tokenConfig(t, issuer))
	r.newKey("acme", "free")
	r.newKey("beta", "free")
	for name, revoke := range map[string]func(){
		"sub":     func() { r.do("POST", "/v1/tokens/revoke", admin.TokenRevoke{Kind: "sub", Value: "of sub"}, nil) },
		"client":  func() { r.do("POST", "/v1/tokens/revoke", admin.TokenRevoke{Kind: "client", Value: "of client"}, nil) },
		"account": func() { r.do("POST", "/v1/accounts/beta/revoke", struct{}{}, nil) },
	} {
		token := issuer.Token(map[string]any{"org": map[string]string{"account": "beta"}[name], "sub": "of " + name, "azp": "of " + name})
		if name != "account" {
			token = issuer.Token(map[string]any{"org": "acme", "sub": "of " + name, "azp": "of " + name})
		}
		r.wantBearer(token, 200, "")
		revoke()
		r.wantBearer(token, 403, "token_revoked")
	}
	var k admin.Key
	r.do("POST", "/v1/keys", admin.KeyCreate{Account: "beta"}, &k)
	r.want(k.Key, 200, "") // by our own clock, the key was made afterwards
	before := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	r.do("POST", "/v1/tokens/revoke", admin.TokenRevoke{Kind: "sub", Value: "exact", Before: before}, nil)
	var list []admin.Revocation
	r.do("GET", "/v1/revocations", nil, &list)
	for _, rec := range list {
		if rec.Value == "exact" && !rec.Before.Equal(before) {
			t.Errorf("an instant that was given became %s", rec.Before)
		}
		if rec.Value == "of sub" && rec.Before.After(time.Now().Add(30*time.Second)) {
			t.Errorf("tokens are revoked until %s", rec.Before)
		}
	}
}

// TestRevoke_Strangers tries each way without the right to.
func TestRevoke_Strangers(t *testing.T) {
	issuer, stranger := tokentest.New(), tokentest.New()
	defer issuer.Close()
	defer stranger.Close()
	r := start(t, tokenConfig(t, issuer))
	r.newKey("acme", "free")
	token := issuer.Token(map[string]any{"org": "acme", "sid": "s"})
	revoke := url.Values{"token": {token}}.Encode()
	logout := func(by *tokentest.Issuer, iss, aud string) string {
		return url.Values{"logout_token": {by.LogoutToken(map[string]any{"iss": iss, "aud": aud, "sid": "s"})}}.Encode()
	}
	for name, got := range map[string]int{
		"no client":            r.post("/oauth2/revoke", form, revoke, nil),
		"another secret":       r.post("/oauth2/revoke", form, revoke, func(q *http.Request) { q.SetBasicAuth("crm", "hash") }),
		"no secret":            r.post("/oauth2/revoke", form, revoke, func(q *http.Request) { q.SetBasicAuth("crm", "") }),
		"another client":       r.post("/oauth2/revoke", form, revoke, func(q *http.Request) { q.SetBasicAuth("erp", "hush") }),
		"a stranger's logout":  r.post("/oidc/backchannel-logout", form, logout(stranger, stranger.URL, "rp"), nil),
		"a forged logout":      r.post("/oidc/backchannel-logout", form, logout(stranger, issuer.URL, "rp"), nil),
		"another app's logout": r.post("/oidc/backchannel-logout", form, logout(issuer, issuer.URL, "api"), nil),
		"an access token":      r.post("/ssf/events", "application/secevent+jwt", token, nil),
		"nothing":              r.post("/ssf/events", "application/secevent+jwt", "", nil),
		"the admin's path":     r.post("/v1/tokens/revoke", "application/json", `{"kind":"sub","value":"alice"}`, nil),
	} {
		if got < 400 {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	r.wantBearer(token, 200, "")
	for _, want := range []string{`tollkeeper_signals_refused_total{endpoint="/oauth2/revoke"} 4`, "tollkeeper_revocation_pruning_paused 0"} {
		if !strings.Contains(r.metrics(), want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

// TestIssuers_FaultIsAMetric has an issuer whose keys cannot be fetched.
func TestIssuers_FaultIsAMetric(t *testing.T) {
	issuer := tokentest.New()
	defer issuer.Close()
	issuer.Serve(tokentest.KeysPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
	r := start(t, tokenConfig(t, issuer))
	r.wantBearer(issuer.Token(nil), 403, "token_status_unknown")
	if want := fmt.Sprintf("tollkeeper_issuer_fault{issuer=%q} 1\n", issuer.URL); !strings.Contains(r.metrics(), want) {
		t.Errorf("no %s in the metrics", want)
	}
}

// TestIssuers_SharedAccountsAreWarnedOf has two issuers. One is limited to accounts of its own.
func TestIssuers_SharedAccountsAreWarnedOf(t *testing.T) {
	a, b := tokentest.New(), tokentest.New()
	defer a.Close()
	defer b.Close()
	cfg := tokenConfig(t, a)
	second := cfg.Tokens.Issuers[0]
	second.Issuer, second.Accounts = b.URL, []string{"beta-"}
	cfg.Tokens.Issuers = append(cfg.Tokens.Issuers, second)
	var log bytes.Buffer
	s, err := New(t.Context(), cfg, "test", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	if warned := "issuers=[" + a.URL + "]"; !strings.Contains(log.String(), warned) {
		t.Errorf("no warning of %s: %s", warned, log.String())
	}
}

// TestIssuers_UnusableConfigurationStopsTheStart tries several.
func TestIssuers_UnusableConfigurationStopsTheStart(t *testing.T) {
	for want, change := range map[string]func(*config.Config){
		"tokens.issuers[0]: audiences":             func(c *config.Config) { c.Tokens.Issuers[0].Audiences = nil },
		"tokens.issuers[0]: algorithm \"HS256\"":   func(c *config.Config) { c.Tokens.Issuers[0].Algorithms = []string{"HS256"} },
		"is there twice":                           func(c *config.Config) { c.Tokens.Issuers = append(c.Tokens.Issuers, c.Tokens.Issuers[0]) },
		"want https":                               func(c *config.Config) { c.Tokens.Issuers[0].Issuer = "http://issuer.example" },
		"client_secret_file":                       func(c *config.Config) { c.Tokens.Introspection.URL = "https://issuer.example/introspect" },
		"revocation.clients[0]: secret_file: open": func(c *config.Config) { c.Revocation.Clients[0].SecretFile += "x" },
		"no revocation could be believed":          func(c *config.Config) { c.Tokens.Issuers = nil },
	} {
		issuer := tokentest.New()
		cfg := tokenConfig(t, issuer)
		change(&cfg)
		t.Setenv("XDG_CONFIG_HOME", t.TempDir())
		s, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
		if err == nil {
			s.close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
		issuer.Close()
	}
}

package envoy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// provider is an independent OpenID provider: the example server of zitadel/oidc, with the client "web" and the user
// test-user2. The client gets JSON Web Tokens or opaque access tokens.
type provider struct {
	*httptest.Server
	jwt atomic.Bool
}

// clients makes the client's access tokens JSON Web Tokens if the provider says so.
type clients struct {
	*storage.Storage
	p *provider
}

func (s clients) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil || !s.p.jwt.Load() {
		return c, err
	}
	return jwtClient{c}, nil
}

type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// callback is the redirect URI, at which nothing listens.
const callback = "http://localhost:1/callback"

func startProvider(t *testing.T) *provider {
	t.Helper()
	before := slog.Default() // the example server logs to it
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(before) })
	p := &provider{Server: httptest.NewUnstartedServer(nil)}
	issuer := "http://" + p.Listener.Addr().String()
	store := storage.NewStorageWithClients(storage.NewUserStore(issuer), map[string]*storage.Client{
		"web": storage.WebClient("web", "secret", callback),
	})
	p.Config.Handler = exampleop.SetupServer(issuer, clients{store, p}, nil, false)
	p.Start()
	t.Cleanup(p.Close)
	return p
}

// signIn signs the user in as a browser would (RFC 6749, section 4.1), and returns the access token.
func (p *provider) signIn(t *testing.T, jwt bool) string {
	t.Helper()
	p.jwt.Store(jwt)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var code string
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), callback) {
			code = r.URL.Query().Get("code")
			return http.ErrUseLastResponse
		}
		return nil
	}}
	authorize := url.Values{"client_id": {"web"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s"}}
	page, err := browser.Get(p.URL + "/auth?" + authorize.Encode())
	if err != nil {
		t.Fatal(err)
	}
	_ = page.Body.Close()
	form := url.Values{"username": {"test-user2"}, "password": {"verysecure"}, "id": {page.Request.URL.Query().Get("authRequestID")}}
	done, err := browser.PostForm(p.URL+"/login/username", form)
	if err != nil {
		t.Fatal(err)
	}
	_ = done.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	p.post(t, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}, &answer)
	if answer.AccessToken == "" {
		t.Fatal("the provider issued no token")
	}
	return answer.AccessToken
}

func (p *provider) post(t *testing.T, path string, form url.Values, out any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("web", "secret")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s answered %s: %s", path, resp.Status, text)
	}
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProvider_TokensAreVerified verifies the provider's JSON Web Tokens by its published keys, and its opaque tokens by
// introspection.
func TestProvider_TokensAreVerified(t *testing.T) {
	p := startProvider(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := runStack(t, harness.TollkeeperOptions{Extra: fmt.Sprintf(`
tokens:
  issuers:
  - {issuer: %[1]q, audiences: [web], discovery: true, account_claim: client_id}
  introspection:
    {url: %[2]q, issuer: %[1]q, client_id: web, client_secret_file: %[3]q, account_claim: client_id, ttl: 200ms, negative_ttl: 100ms}
`, p.URL, p.URL+"/oauth/introspect", secret)}, nil)
	s.account("web", "pro")
	bearer := func(token string) (int, string) {
		r := get(t, s.http, s.addr, "/v1/x", "authorization", "Bearer "+token)
		return r.StatusCode, r.Header.Get("x-authz-reason")
	}
	want := func(what, token string, status int, reason string) {
		t.Helper()
		if got, why := bearer(token); got != status || why != reason {
			t.Errorf("%s: %d %q, want %d %q", what, got, why, status, reason)
		}
	}

	signed := p.signIn(t, true)
	want("a JWT", signed, 200, "")
	s.cli(nil, "token", "revoke", signed)
	want("a JWT that was revoked here", signed, 403, "token_revoked")
	want("another JWT", p.signIn(t, true), 200, "")
	want("a JWT that was changed", signed[:len(signed)-4]+"AAAA", 403, "token_signature_invalid")

	opaque := p.signIn(t, false)
	if strings.Count(opaque, ".") == 2 {
		t.Fatalf("not an opaque token: %s", opaque)
	}
	want("an opaque token", opaque, 200, "")
	want("an opaque token that was never issued", "x"+opaque, 403, "token_inactive")
	p.post(t, "/revoke", url.Values{"token": {opaque}}, nil)
	await(t, func() bool { // the provider's revocation is seen when the cached answer expires
		status, reason := bearer(opaque)
		return status == 403 && reason == "token_inactive"
	})
	other := p.signIn(t, false)
	want("another opaque token", other, 200, "")
	s.cli(nil, "token", "revoke", other)
	want("an opaque token that was revoked here", other, 403, "token_revoked")
	p.Close()
	await(t, func() bool { // the introspection server is down
		status, reason := bearer(other + "x")
		return status == 403 && reason == "token_status_unknown"
	})
}

package envoy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles/tlstest"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// tokenStack is a stack that trusts an issuer.
type tokenStack struct {
	*stack
	issuer *tokentest.Issuer
}

// newTokenStack starts one with an account acme. keys is YAML: more fields of the issuer.
func newTokenStack(t *testing.T, keys string, change func(string) string) *tokenStack {
	t.Helper()
	issuer := tokentest.New()
	t.Cleanup(issuer.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	extra := fmt.Sprintf(`
tokens:
  issuers:
  - {issuer: %q, audiences: [api], %s, account_claim: org, logout_audiences: [rp], event_audiences: [receiver]}
revocation:
  clients: [{id: crm, secret_file: %q}]
`, issuer.URL, keys, secret)
	s := &tokenStack{runStack(t, harness.TollkeeperOptions{Extra: extra, Events: true}, change), issuer}
	s.account("acme", "pro")
	return s
}

func (s *tokenStack) bearer(path, token string) reply {
	s.t.Helper()
	return get(s.t, s.http, s.addr, path, "authorization", "Bearer "+token)
}

func TestTokens_EveryReason(t *testing.T) {
	s := newTokenStack(t, "discovery: true", nil)
	r := s.bearer("/v1/x", s.issuer.Token(map[string]any{"sub": "alice", "org": "acme"}))
	wantStatus(t, r, 200)
	seen := s.Requests()[0]
	for name, want := range map[string]string{"X-Tollkeeper-Account": "acme", "X-Tollkeeper-Plan": "pro", "X-Tollkeeper-Subject": "alice", "Authorization": ""} {
		if got := seen.Headers.Get(name); got != want {
			t.Errorf("the upstream got %s %q, want %q", name, got, want)
		}
	}
	now := time.Now().Unix()
	stranger := tokentest.New()
	defer stranger.Close()
	for reason, token := range map[string]string{
		"key_missing":             s.issuer.Token(nil),
		"permission_denied":       s.issuer.Token(map[string]any{"org": "unknown"}),
		"token_malformed":         "eyJhbGciOiJub25lIn0.x.x",
		"token_signature_invalid": stranger.Token(map[string]any{"iss": s.issuer.URL}),
		"token_issuer_untrusted":  stranger.Token(nil),
		"token_audience_mismatch": s.issuer.Token(map[string]any{"aud": "other"}),
		"token_expired":           s.issuer.Token(map[string]any{"iat": now - 100, "exp": now - 50}),
		"token_not_yet_valid":     s.issuer.Token(map[string]any{"nbf": now + 100}),
		"token_status_unknown": s.issuer.Token(map[string]any{"status": map[string]any{
			"status_list": map[string]any{"idx": 1, "uri": "https://elsewhere.example/list"},
		}}),
	} {
		if got := s.bearer("/v1/x", token); got.StatusCode != 403 || got.Header.Get("x-authz-reason") != reason {
			t.Errorf("%d %q, want 403 %q", got.StatusCode, got.Header.Get("x-authz-reason"), reason)
		}
	}
}

// waysToRevoke are the ways to revoke a token, by its text, subject or session. Each returns when the server has
// acknowledged.
func (s *tokenStack) waysToRevoke() map[string]func(ctx context.Context, token, sub, sid string) error {
	post := func(ctx context.Context, path, contentType, body string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.tk.EventsURL()+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", contentType)
		req.SetBasicAuth("crm", "hush")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode > 299 {
			return fmt.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
		return nil
	}
	const form = "application/x-www-form-urlencoded"
	logout := func(ctx context.Context, claims map[string]any) error {
		return post(ctx, "/oidc/backchannel-logout", form, url.Values{"logout_token": {s.issuer.LogoutToken(claims)}}.Encode())
	}
	push := func(event string) func(ctx context.Context, token, sub, sid string) error {
		return func(ctx context.Context, _, sub, _ string) error {
			return post(ctx, "/ssf/events", "application/secevent+jwt", s.issuer.Event(event, sub))
		}
	}
	cli := func(ctx context.Context, args ...string) error {
		_, err := s.tk.CLI(ctx, append([]string{"token", "revoke"}, args...)...)
		return err
	}
	return map[string]func(ctx context.Context, token, sub, sid string) error{
		"RFC 7009": func(ctx context.Context, token, _, _ string) error {
			return post(ctx, "/oauth2/revoke", form, url.Values{"token": {token}}.Encode())
		},
		"back-channel logout, sid": func(ctx context.Context, _, _, sid string) error { return logout(ctx, map[string]any{"sid": sid}) },
		"back-channel logout, sub": func(ctx context.Context, _, sub, _ string) error { return logout(ctx, map[string]any{"sub": sub}) },
		"session-revoked":          push("caep/event-type/session-revoked"),
		"token-claims-change":      push("caep/event-type/token-claims-change"),
		"account-disabled":         push("risc/event-type/account-disabled"),
		"account-purged":           push("risc/event-type/account-purged"),
		"CLI, token":               func(ctx context.Context, token, _, _ string) error { return cli(ctx, token) },
		"CLI, sub":                 func(ctx context.Context, _, sub, _ string) error { return cli(ctx, "--sub", sub) },
	}
}

// TestRevocation_HoldsAtOnce revokes tokens in each way while clients use them. No request that begins after the
// acknowledgement gets through. The test logs how long the first refusal took, without a limit: the machine may be busy.
func TestRevocation_HoldsAtOnce(t *testing.T) {
	s := newTokenStack(t, "discovery: true", nil)
	const rounds, clients = 12, 4
	var took []time.Duration
	for name, revoke := range s.waysToRevoke() {
		for round := range rounds {
			id := fmt.Sprintf("%s %d", name, round)
			token := s.issuer.Token(map[string]any{"org": "acme", "sub": "sub " + id, "sid": "sid " + id})
			wantStatus(t, s.bearer("/v1/x", token), 200)
			load := s.underLoad(clients, "authorization", "Bearer "+token)
			await(t, func() bool { return load.count() >= clients*3 })
			if err := revoke(t.Context(), token, "sub "+id, "sid "+id); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			acknowledged := time.Now()
			mark := load.count()
			await(t, func() bool { return load.count() >= mark+clients*5 })
			load.stop()
			first := wantRevoked(t, name, load.outcomes, acknowledged)
			took = append(took, max(0, first.Sub(acknowledged)))
		}
	}
	slices.Sort(took)
	t.Logf("from the acknowledgement to the first 403, %d revocations: p50 %v, p99 %v, longest %v",
		len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

// wantRevoked checks that no request that began after the acknowledgement was allowed, and returns the time of the first
// refusal.
func wantRevoked(t *testing.T, way string, outcomes []outcome, acknowledged time.Time) (first time.Time) {
	t.Helper()
	late := 0
	for _, o := range outcomes {
		switch {
		case o.status == http.StatusOK:
			if o.began.After(acknowledged) {
				late++
			}
		case o.reason != "token_revoked":
			t.Errorf("%s: answered %d %q", way, o.status, o.reason)
		case first.IsZero() || o.ended.Before(first):
			first = o.ended
		}
	}
	if late != 0 {
		t.Errorf("%s: %d requests passed that began after the revocation was acknowledged", way, late)
	}
	if first.IsZero() {
		t.Fatalf("%s: no request was refused", way)
	}
	return first
}

// jwtAuthn adds Envoy's jwt_authn filter to a configuration. It verifies the tokens of an issuer, and forwards them or not.
func jwtAuthn(yaml string, issuer *tokentest.Issuer, forward bool) string {
	const extAuthz = "          - name: envoy.filters.http.ext_authz\n"
	filter := fmt.Sprintf(`          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                issuer:
                  issuer: %s
                  audiences: [api]
                  local_jwks: {inline_string: '%s'}
                  forward: %t
                  payload_in_metadata: verified
              rules: [{match: {prefix: /}, requires: {requires_any: {requirements: [{provider_name: issuer}, {allow_missing: {}}]}}}]
`, issuer.URL, issuer.Keys(), forward)
	yaml = strings.Replace(yaml, extAuthz, filter+extAuthz, 1)
	return strings.Replace(yaml, "              stat_prefix: tollkeeper\n",
		"              stat_prefix: tollkeeper\n              metadata_context_namespaces: [envoy.filters.http.jwt_authn]\n", 1)
}

// TestTokens_VerifiedByEnvoy has Envoy's jwt_authn filter verify the signatures.
func TestTokens_VerifiedByEnvoy(t *testing.T) {
	for _, forward := range []bool{true, false} {
		t.Run(fmt.Sprintf("forward=%t", forward), func(t *testing.T) {
			issuer := tokentest.New()
			defer issuer.Close()
			s := &tokenStack{runStack(t, harness.TollkeeperOptions{Extra: fmt.Sprintf(
				"tokens: {issuers: [{issuer: %q, audiences: [api], envoy: verified, account_claim: org}]}\n", issuer.URL)},
				func(yaml string) string { return jwtAuthn(yaml, issuer, forward) }), issuer}
			s.account("acme", "pro")
			good := issuer.Token(map[string]any{"org": "acme", "n": 12345678, "jti": "j"})
			nameless := issuer.Token(map[string]any{"org": "acme", "n": 0.1, "x": map[string]any{"b": "<&>", "a": nil}, "jti": nil})
			wantStatus(t, s.bearer("/v1/x", good), 200)
			if got := s.Requests()[0].Headers.Get("X-Tollkeeper-Subject"); got != "alice" {
				t.Errorf("subject %q", got)
			}
			wantStatus(t, s.bearer("/v1/x", nameless), 200)
			wantStatus(t, s.bearer("/v1/x", issuer.Token(map[string]any{"org": "acme", "aud": "other"})), 403) // by Envoy
			s.cli(nil, "token", "revoke", "--jti", "j", "--issuer", issuer.URL)
			s.cli(nil, "token", "revoke", nameless)
			for _, token := range []string{good, nameless} {
				if r := s.bearer("/v1/x", token); r.StatusCode != 403 || r.Header.Get("x-authz-reason") != "token_revoked" {
					t.Errorf("%d %q", r.StatusCode, r.Header.Get("x-authz-reason"))
				}
			}
			wantStatus(t, s.bearer("/v1/x", issuer.Token(map[string]any{"org": "acme"})), 200)
		})
	}
}

// TestTokens_BoundToACertificate has Envoy send the client's certificate with the check.
func TestTokens_BoundToACertificate(t *testing.T) {
	dir := t.TempDir()
	server, clients := tlstest.NewCA(t), tlstest.NewCA(t)
	files := server.Write(t, filepath.Join(dir, "edge"), clients, time.Hour, "127.0.0.1")
	s := newTokenStack(t, "discovery: true", func(yaml string) string {
		yaml = strings.Replace(yaml, "include_peer_certificate: false", "include_peer_certificate: true", 1)
		return strings.Replace(yaml, "    filter_chains:\n    - filters:\n", fmt.Sprintf(`    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{certificate_chain: {filename: %q}, private_key: {filename: %q}}]
            validation_context: {trusted_ca: {filename: %q}}
      filters:
`, files.Cert, files.Key, files.CA), 1)
	})
	client := func(name string) (*http.Client, string) {
		cert, key := clients.Issue(t, time.Hour, name)
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(server.PEM)
		sum := sha256.Sum256(pair.Certificate[0])
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}},
			base64.RawURLEncoding.EncodeToString(sum[:])
	}
	alice, x5t := client("alice.example")
	bob, _ := client("bob.example")
	bound := s.issuer.Token(map[string]any{"org": "acme", "cnf": map[string]any{"x5t#S256": x5t}})
	proof := s.issuer.Token(map[string]any{"org": "acme", "cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})
	for name, c := range map[string]struct {
		by     *http.Client
		token  string
		status int
		reason string
	}{
		"by its client":       {alice, bound, 200, ""},
		"by another client":   {bob, bound, 403, "token_binding_failed"},
		"to a key, by anyone": {alice, proof, 403, "token_binding_failed"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.addr+"/v1/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.token)
		resp, err := c.by.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status || resp.Header.Get("x-authz-reason") != c.reason {
			t.Errorf("%s: %d %q, want %d %q", name, resp.StatusCode, resp.Header.Get("x-authz-reason"), c.status, c.reason)
		}
	}
}

func wantStatus(t *testing.T, r reply, status int) {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("status %d %s, want %d", r.StatusCode, r.Header.Get("x-authz-reason"), status)
	}
}

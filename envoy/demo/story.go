package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// story holds the running parts and the results.
type story struct {
	policies   string
	upstream   *harness.Upstream
	issuer     *tokentest.Issuer
	tollkeeper *harness.Tollkeeper
	proxy      *harness.Proxy

	asked, wrong int    // requests, and answers other than expected
	sample       string // a key that is active at the end
}

// writePolicies writes the shipped policies into dir, with the plans and routes of the story.
func writePolicies(ctx context.Context, binary, dir string) error {
	if out, err := exec.CommandContext(ctx, binary, "policy", "init", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("policy init: %w: %s", err, out)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "plans.yaml"), []byte(plans), 0o600),
		os.WriteFile(filepath.Join(dir, "routes.yaml"), []byte(routes), 0o600))
}

// want is the expected answer. A denial without a reason is Envoy's own.
type want struct {
	status int
	reason string
}

var ok = want{200, ""}

// tell tells the story, and returns how many answers were wrong.
func (s *story) tell(ctx context.Context) (int, error) {
	fmt.Printf("%-46s %-6s %-23s %s\n", "REQUEST", "STATUS", "REASON", "REMEDY, OR WHAT IS LEFT")
	for _, chapter := range []func(context.Context) error{s.keys, s.accounts, s.tokens, s.quotas, s.credits, s.outage} {
		if err := chapter(ctx); err != nil {
			return s.wrong, err
		}
	}
	return s.wrong, nil
}

func (s *story) keys(ctx context.Context) error {
	if err := s.cli(ctx, nil, "account", "create", "acme", "--plan", "team"); err != nil {
		return err
	}
	good, err := s.newKey(ctx, "--account", "acme", "--name", "good", "--scopes", "reports:read")
	if err != nil {
		return err
	}
	s.sample = good.Key
	s.ask(ctx, "a good key", "/v1/orders", good.Key, ok)
	s.ask(ctx, "no key", "/v1/orders", "", want{403, "key_missing"})
	s.ask(ctx, "a garbage key", "/v1/orders", "tk_live_garbage", want{403, "key_malformed"})
	s.ask(ctx, "an unknown key", "/v1/orders", "sk_of_another_product", want{403, "key_unknown"})
	expired, err := s.newKey(ctx, "--account", "acme", "--name", "expired", "--force",
		"--expires-at", time.Now().Add(-time.Hour).Format(time.RFC3339))
	if err != nil {
		return err
	}
	s.ask(ctx, "an expired key", "/v1/orders", expired.Key, want{403, "key_expired"})
	off, err := s.newKey(ctx, "--account", "acme", "--name", "off")
	if err != nil {
		return err
	}
	if err := s.cli(ctx, nil, "key", "disable", off.ID); err != nil {
		return err
	}
	s.ask(ctx, "a disabled key", "/v1/orders", off.Key, want{403, "key_disabled"})
	leaked, err := s.newKey(ctx, "--account", "acme", "--name", "leaked")
	if err != nil {
		return err
	}
	s.ask(ctx, "a key that leaks ...", "/v1/orders", leaked.Key, ok)
	if err := s.cli(ctx, nil, "key", "revoke", leaked.ID); err != nil {
		return err
	}
	s.ask(ctx, "... and is revoked", "/v1/orders", leaked.Key, want{403, "key_revoked"})
	s.ask(ctx, "a key with the scope", "/v1/reports/7", good.Key, ok)
	narrow, err := s.newKey(ctx, "--account", "acme", "--name", "narrow", "--scopes", "orders:read")
	if err != nil {
		return err
	}
	s.ask(ctx, "a key with another scope", "/v1/reports/7", narrow.Key, want{403, "permission_denied"})
	s.ask(ctx, "... and the path spelled /v1/reports;x=1/7", "/v1/reports;x=1/7", narrow.Key, want{403, "request_malformed"})
	return nil
}

func (s *story) accounts(ctx context.Context) error {
	if err := s.cli(ctx, nil, "account", "create", "late", "--plan", "team"); err != nil {
		return err
	}
	k, err := s.newKey(ctx, "--account", "late")
	if err != nil {
		return err
	}
	if err := s.cli(ctx, nil, "account", "suspend", "late"); err != nil {
		return err
	}
	s.ask(ctx, "a suspended account", "/v1/orders", k.Key, want{403, "account_suspended"})
	if err := s.cli(ctx, nil, "account", "overdue", "late"); err != nil {
		return err
	}
	s.ask(ctx, "an account that owes", "/v1/orders", k.Key, want{402, "payment_overdue"})
	return nil
}

// tokens has a user sign in at the issuer and sign out, which the issuer tells Tollkeeper.
func (s *story) tokens(ctx context.Context) error {
	signedIn, err := s.post(ctx, s.issuer.URL+tokentest.TokenPath, url.Values{"username": {"alice"}, "org": {"acme"}})
	if err != nil {
		return err
	}
	var alice struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(signedIn, &alice); err != nil {
		return err
	}
	s.ask(ctx, "alice signs in, and sends her token", "/v1/orders", bearer+alice.Token, ok)
	s.ask(ctx, "a token that she changed", "/v1/orders", bearer+alice.Token[:len(alice.Token)-5]+"AAAAA", want{403, "token_signature_invalid"})
	logout := url.Values{"logout_token": {s.issuer.LogoutToken(map[string]any{"sub": "alice"})}}
	if _, err := s.post(ctx, s.tollkeeper.EventsURL()+"/oidc/backchannel-logout", logout); err != nil {
		return err
	}
	s.ask(ctx, "alice signs out (OpenID back-channel logout)", "/v1/orders", bearer+alice.Token, want{403, "token_revoked"})
	return nil
}

// post sends a form, and returns an error unless the status is 200.
func (s *story) post(ctx context.Context, to string, form url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", to, resp.Status, body)
	}
	return body, err
}

func (s *story) quotas(ctx context.Context) error {
	k, err := s.newKey(ctx, "--account", "acme", "--plan", "starter")
	if err != nil {
		return err
	}
	for i := range 3 {
		s.ask(ctx, fmt.Sprintf("request %d of 3 a day", i+1), "/v1/orders", k.Key, ok)
	}
	s.ask(ctx, "request 4 of 3 a day", "/v1/orders", k.Key, want{402, "quota_exceeded"})
	return nil
}

func (s *story) credits(ctx context.Context) error {
	if err := s.cli(ctx, nil, "account", "create", "prepaid", "--plan", "payg"); err != nil {
		return err
	}
	k, err := s.newKey(ctx, "--account", "prepaid")
	if err != nil {
		return err
	}
	if err := s.cli(ctx, nil, "quota", "credit", "--account", "prepaid", "--limit", "credits", "--units", "6"); err != nil {
		return err
	}
	s.ask(ctx, "rendering costs 5 of 6 credits", "/v1/render", k.Key, ok)
	s.ask(ctx, "rendering costs 5, 1 is left", "/v1/render", k.Key, want{402, "credits_insufficient"})
	s.ask(ctx, "an order costs 1", "/v1/orders", k.Key, ok)
	s.ask(ctx, "no credits are left", "/v1/orders", k.Key, want{402, "credits_exhausted"})
	if err := s.cli(ctx, nil, "quota", "credit", "--account", "prepaid", "--limit", "credits", "--units", "100"); err != nil {
		return err
	}
	s.ask(ctx, "100 credits are bought", "/v1/orders", k.Key, ok)
	return nil
}

func (s *story) outage(ctx context.Context) error {
	reached := s.upstream.Count()
	s.tollkeeper.Kill()
	s.ask(ctx, "tollkeeper is killed (kill -9)", "/v1/orders", s.sample, want{503, ""})
	if n := s.upstream.Count() - reached; n != 0 {
		s.wrong++
		fmt.Printf("  WRONG: %d requests reached the service without being checked\n", n)
	}
	if err := s.tollkeeper.Start(ctx); err != nil {
		return err
	}
	return s.askUntil(ctx, "tollkeeper is back", "/v1/orders", s.sample, ok)
}

// madeKey is a key as the CLI prints it.
type madeKey struct{ ID, Key string }

func (s *story) newKey(ctx context.Context, args ...string) (madeKey, error) {
	var k madeKey
	err := s.cli(ctx, &k, append([]string{"key", "create"}, args...)...)
	return k, err
}

func (s *story) cli(ctx context.Context, out any, args ...string) error {
	raw, err := s.tollkeeper.CLI(ctx, args...)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// bearer marks a credential as a token.
const bearer = "Bearer "

// ask sends a request through Envoy, with a key or a token, and prints the answer as a line of the table.
func (s *story) ask(ctx context.Context, what, path, key string, w want) {
	s.asked++
	status, h, remedy, err := s.get(ctx, path, key)
	s.print(what, status, h, remedy, err, w)
}

// askUntil repeats a request until its status is right: Envoy needs a moment to see that Tollkeeper is back.
func (s *story) askUntil(ctx context.Context, what, path, key string, w want) error {
	s.asked++
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, h, remedy, err := s.get(ctx, path, key)
		if status == w.status || ctx.Err() != nil {
			s.print(what, status, h, remedy, err, w)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (s *story) get(ctx context.Context, path, key string) (status int, h http.Header, remedy string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.proxy.Addr()+path, nil)
	if err != nil {
		return 0, nil, "", err
	}
	switch {
	case strings.HasPrefix(key, bearer):
		req.Header.Set("Authorization", key)
	case key != "":
		req.Header.Set("x-api-key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	var problem struct{ Remedy string }
	if resp.StatusCode != http.StatusOK && len(body) > 0 && json.NewDecoder(bytes.NewReader(body)).Decode(&problem) == nil {
		remedy = problem.Remedy
	}
	return resp.StatusCode, resp.Header, remedy, err
}

func (s *story) print(what string, status int, h http.Header, remedy string, err error, w want) {
	reason := h.Get("x-authz-reason")
	if err != nil {
		remedy = err.Error()
	}
	if status == 200 {
		remedy = h.Get("ratelimit")
		remedy, _, _ = strings.Cut(remedy, ";t=")
	}
	if status == 503 && reason == "" && remedy == "" {
		remedy = "(denied by Envoy, which got no answer)"
	}
	fmt.Printf("%-46s %-6d %-23s %s\n", what, status, reason, remedy)
	if status != w.status || reason != w.reason {
		s.wrong++
		fmt.Printf("  WRONG: want %d %s\n", w.status, w.reason)
	}
}

// invite prints how to go on by hand.
func (s *story) invite() {
	fmt.Printf(`
Everything keeps running until you press Ctrl-C. In another terminal:

  curl -i -H 'x-api-key: %s' http://%s/v1/orders
  curl -i http://%s/v1/orders
  bin/tollkeeper key list
  bin/tollkeeper explain --path /v1/reports/7 --key %s
`, s.sample, s.proxy.Addr(), s.proxy.Addr(), s.sample)
}

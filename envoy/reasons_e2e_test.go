package envoy

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// problem is the body of a denial (RFC 9457).
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Instance string `json:"instance"`
	Code     string `json:"code"`
	Remedy   string `json:"remedy"`
}

// wantDenial checks all parts of a denial, and that nothing was forwarded.
func (s *stack) wantDenial(r reply, status int, code string) problem {
	s.t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		s.t.Errorf("%s: status %d, reason %q, body %q: %v", code, r.StatusCode, r.Header.Get("X-Authz-Reason"), r.body, err)
		return p
	}
	if r.StatusCode != status || p.Status != status {
		s.t.Errorf("%s: status %d, in the body %d, want %d", code, r.StatusCode, p.Status, status)
	}
	if got := r.Header["X-Authz-Reason"]; !slices.Equal(got, []string{code}) || p.Code != code {
		s.t.Errorf("reason %q, in the body %q, want %q", got, p.Code, code)
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		s.t.Errorf("%s: content type %q", code, got)
	}
	if got := r.Header.Get("Cache-Control"); got != "no-store" {
		s.t.Errorf("%s: cache control %q", code, got)
	}
	if p.Type == "" || p.Title == "" || p.Instance == "" || p.Remedy == "" {
		s.t.Errorf("%s: a member is missing in %s", code, r.body)
	}
	if n := s.Count(); n != 0 {
		s.t.Errorf("%s: %d requests reached the upstream", code, n)
	}
	return p
}

func TestReasons_RequestsAndKeys(t *testing.T) {
	s := newStack(t)
	good := s.customer("acme", "free", "--env", "live")
	other := s.key("acme", "--env", "test")
	unknown, err := apikey.NewText("live")
	if err != nil {
		t.Fatal(err)
	}
	future := s.key("acme", "--not-before", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	disabled, revoked, rotated := s.key("acme"), s.key("acme"), s.key("acme")
	s.cli(nil, "key", "disable", disabled.ID)
	s.cli(nil, "key", "revoke", revoked.ID)
	s.cli(nil, "key", "rotate", rotated.ID, "--overlap", "0s")
	for _, c := range []struct {
		name, code string
		request    []string
	}{
		{"path that decodes twice", "request_malformed", []string{"GET /a/%252e%252e/b HTTP/1.1", "x-api-key: " + good.Text}},
		{"two keys", "credential_ambiguous", []string{"GET / HTTP/1.1", "x-api-key: " + good.Text, "Authorization: Bearer " + other.Text}},
		{"header twice", "credential_ambiguous", []string{"GET / HTTP/1.1", "x-api-key: " + good.Text, "X-Api-Key: " + other.Text}},
		{"authorization twice", "credential_ambiguous", []string{"GET / HTTP/1.1", "Authorization: Bearer " + good.Text, "Authorization: Bearer " + other.Text}},
		{"no key", "key_missing", []string{"GET / HTTP/1.1"}},
		{"checksum", "key_malformed", []string{"GET / HTTP/1.1", "x-api-key: " + misspell(good.Text)}},
		{"unknown", "key_unknown", []string{"GET / HTTP/1.1", "x-api-key: " + unknown}},
		{"before its time", "key_not_yet_valid", []string{"GET / HTTP/1.1", "x-api-key: " + future.Text}},
		{"switched off", "key_disabled", []string{"GET / HTTP/1.1", "x-api-key: " + disabled.Text}},
		{"revoked", "key_revoked", []string{"GET / HTTP/1.1", "x-api-key: " + revoked.Text}},
		{"rotated", "key_rotated", []string{"GET / HTTP/1.1", "x-api-key: " + rotated.Text}},
		{"environment", "key_wrong_environment", []string{"GET /live/x HTTP/1.1", "x-api-key: " + other.Text}},
		{"scope", "permission_denied", []string{"GET /admin/x HTTP/1.1", "x-api-key: " + good.Text}},
		{"own rule", "policy_denied", []string{"GET /closed HTTP/1.1", "x-api-key: " + good.Text}},
		{"own rule with a reason", "teapot_busy", []string{"GET /teapot HTTP/1.1", "x-api-key: " + good.Text}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.wantDenial(exchange(t, s.addr, c.request...), http.StatusForbidden, c.code)
		})
	}
	s.cli(nil, "key", "enable", disabled.ID)
	for name, key := range map[string]string{"enabled again": disabled.Text, "good": good.Text} {
		if r := s.get("/live/x", key); r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
}

// misspell changes the last character, which is part of the checksum.
func misspell(key string) string {
	last := "A"
	if strings.HasSuffix(key, "A") {
		last = "B"
	}
	return key[:len(key)-1] + last
}

func TestKey_ExpiresWhileInUse(t *testing.T) {
	s := newStack(t)
	s.account("acme", "free")
	key := s.key("acme", "--expires-in", "1s")
	var r reply
	await(t, func() bool {
		s.Reset()
		r = s.get("/", key.Text)
		return r.StatusCode != http.StatusOK
	})
	s.wantDenial(r, http.StatusForbidden, "key_expired")
}

func TestReasons_Accounts(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "free")
	for _, c := range []struct {
		verb   string
		status int
		code   string
	}{
		{"suspend", http.StatusForbidden, "account_suspended"},
		{"overdue", http.StatusPaymentRequired, "payment_overdue"},
	} {
		s.cli(nil, "account", c.verb, "acme")
		s.wantDenial(s.get("/", key.Text), c.status, c.code)
		s.cli(nil, "account", "resume", "acme")
		if r := s.get("/", key.Text); r.StatusCode != http.StatusOK {
			t.Errorf("resumed after %s: %d %s", c.verb, r.StatusCode, r.body)
		}
		s.Reset()
	}
	s.cli(nil, "account", "revoke", "acme")
	s.wantDenial(s.get("/", key.Text), http.StatusForbidden, "key_revoked")

	s.account("lapsed", "free", "--meta", "subscription_ends=2020-01-01T00:00:00Z")
	s.wantDenial(s.get("/", s.key("lapsed").Text), http.StatusPaymentRequired, "subscription_expired")
	s.wantDenial(s.get("/pro/x", s.customer("small", "free").Text), http.StatusPaymentRequired, "plan_upgrade_required")
}

func TestReasons_Quotas(t *testing.T) {
	s := newStack(t)
	three, burst := s.customer("three", "three"), s.customer("burst", "burst")
	for range 3 {
		if r := s.get("/", three.Text); r.StatusCode != http.StatusOK {
			t.Fatalf("within the quota: %d %s", r.StatusCode, r.body)
		}
	}
	s.Reset()
	r := s.get("/", three.Text)
	s.wantDenial(r, http.StatusPaymentRequired, "quota_exceeded")
	if !regexp.MustCompile(`^[1-9]\d*$`).MatchString(r.Header.Get("Retry-After")) || !strings.Contains(r.Header.Get("Ratelimit"), "r=0") {
		t.Errorf("quota_exceeded: retry-after %q, ratelimit %q", r.Header.Get("Retry-After"), r.Header.Get("Ratelimit"))
	}

	payg := s.customer("payg", "payg")
	s.wantDenial(s.get("/", payg.Text), http.StatusPaymentRequired, "credits_exhausted")
	s.cli(nil, "quota", "credit", "--account", "payg", "--limit", "credits", "--units", "5")
	if r := s.get("/render", payg.Text); r.StatusCode != http.StatusOK {
		t.Fatalf("with 5 credits: %d %s", r.StatusCode, r.body)
	}
	s.Reset()
	s.wantDenial(s.get("/render", payg.Text), http.StatusPaymentRequired, "credits_insufficient") // 2 left, 3 needed
	s.cli(nil, "quota", "credit", "--account", "payg", "--limit", "credits", "--units", "1")
	if r := s.get("/render", payg.Text); r.StatusCode != http.StatusOK {
		t.Errorf("after the credit: %d %s", r.StatusCode, r.body)
	}

	await(t, func() bool { // a minute may end in between, and renew the limit
		s.Reset()
		r = s.get("/", burst.Text)
		return r.StatusCode != http.StatusOK
	})
	s.wantDenial(r, http.StatusForbidden, "rate_limited")
}

func TestReasons_StaleRevocations(t *testing.T) {
	s := startStack(t, "", "revocation: {max_staleness: 1ns}\n")
	s.wantDenial(s.get("/", s.customer("acme", "free").Text), http.StatusForbidden, "state_stale")
}

package server

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// deny sends a check from 192.0.2.7 that must be denied, and returns the headers of the denial and its body.
func (r *running) deny(headers map[string]string) (map[string]string, string) {
	r.t.Helper()
	resp, err := r.checks.Check(r.t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "192.0.2.7"}}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/v1/x", Headers: headers,
		}},
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	out := make(map[string]string)
	for _, h := range resp.GetDeniedResponse().GetHeaders() {
		out[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	return out, resp.GetDeniedResponse().GetBody()
}

func (r *running) decision(id string) (admin.Decision, error) {
	var d admin.Decision
	err := r.admin.Do(r.t.Context(), "GET", admin.Path("decisions", id), nil, &d)
	return d, err
}

// TestDecision_FoundByWhatTheCallerWasTold follows a denial from its headers and its body to the log and the admin API.
func TestDecision_FoundByWhatTheCallerWasTold(t *testing.T) {
	cfg := configFor(t.TempDir())
	cfg.Log.Decisions = filepath.Join(t.TempDir(), "decisions.log")
	r := start(t, cfg)
	requestID := "9f0c \"<7>"
	headers, body := r.deny(map[string]string{"x-request-id": requestID})
	id := headers["x-authz-decision-id"]
	if len(id) != 36 || headers["x-request-id"] != requestID {
		t.Fatalf("headers of the denial: %q", headers)
	}
	if want := `"instance":"urn:uuid:` + id + "?=x-request-id=" + url.QueryEscape(requestID) + `"`; !strings.Contains(body, want) {
		t.Errorf("no %s in %s", want, body)
	}
	r.deny(map[string]string{"x-request-id": id}) // must not hide the decision with that id
	for _, by := range []string{id, requestID} {
		if d, err := r.decision(by); err != nil || d.DecisionID != id || d.RequestID != requestID || d.Peer != "192.0.2.7" || d.Reason != "key_missing" {
			t.Errorf("by %q: %+v, %v", by, d, err)
		}
	}
	var refused *admin.Refused
	if _, err := r.decision(id[:8]); !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("by a part of the id: %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(cfg.Log.Decisions)
	if err != nil || !strings.Contains(string(raw), id) || !strings.Contains(string(raw), `"peer":"192.0.2.7"`) {
		t.Errorf("the log: %s, %v", raw, err)
	}
}

// TestKeyHint_NamesAKeyAndDoesNotRevealIt sends unknown keys, before and after a restart.
func TestKeyHint_NamesAKeyAndDoesNotRevealIt(t *testing.T) {
	cfg := configFor(t.TempDir())
	r := start(t, cfg)
	prefixes := map[string]string{
		"tk_live_0123456789012345678901234567890123456": "tk_live_", // a digit too many
		"sk_test_4eC39HqLyjWDarjtT1zdp7dc":              "sk_test_",
		"550e8400-e29b-41d4-a716-446655440000":          "",
		"Q2hhbmdl_bWUtbm93LXBsZWFzZQ":                   "",
		"short_secret":                                  "",
		"hunter2":                                       "",
	}
	hintOf := func(key string) string {
		headers, _ := r.deny(map[string]string{"x-api-key": key})
		d, err := r.decision(headers["x-authz-decision-id"])
		if err != nil {
			t.Fatal(err)
		}
		return d.KeyHint
	}
	hints := make(map[string]string)
	for key, prefix := range prefixes {
		hint := hintOf(key)
		if p, hash, ok := strings.Cut(hint, "~"); !ok || p != prefix || len(hash) != 16 {
			t.Errorf("the hint of %q is %q, want %s and a hash", key, hint, prefix)
		}
		if hints[hint] != "" {
			t.Errorf("%q is the hint of two keys", hint)
		}
		hints[hint] = key
	}
	if headers, _ := r.deny(nil); headers != nil {
		if d, err := r.decision(headers["x-authz-decision-id"]); err != nil || d.KeyHint != "" {
			t.Errorf("without a key: %+v, %v", d, err)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	for hint, key := range hints {
		if again := hintOf(key); again != hint {
			t.Errorf("after a restart the hint of %q is %q, and was %q", key, again, hint)
		}
	}
}

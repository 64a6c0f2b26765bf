package envoy

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAllow_NamesTheCallerAndHidesTheKey(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "free")
	for _, c := range []struct {
		name, path string
		fields     []string
	}{
		{"header", "/v1?a=1", []string{"X-API-Key", key.Text}},
		{"bearer", "/v1?a=1", []string{"authorization", "Bearer " + key.Text}},
		{"query", "/v1?api_key=" + key.Text + "&a=1", nil},
		{"the same key in two places", "/v1?a=1", []string{"x-api-key", key.Text, "authorization", "Bearer " + key.Text}},
	} {
		for _, http2 := range []bool{false, true} {
			s.Reset()
			r := get(t, httpClient(t, http2), s.addr, c.path, append(c.fields, forged...)...)
			if r.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", c.name, r.StatusCode, r.body)
				continue
			}
			s.wantIdentity(c.name, key)
			if strings.Contains(r.body, key.Text) {
				t.Errorf("%s: the upstream got the key: %s", c.name, r.body)
			}
			if last, _ := s.Last(); last.URI != "/v1?a=1" {
				t.Errorf("%s: the upstream was asked for %q", c.name, last.URI)
			}
			if limit, policy := r.Header.Get("Ratelimit"), r.Header.Get("Ratelimit-Policy"); !strings.Contains(limit, `"daily"`) || !strings.Contains(policy, "q=1000000") {
				t.Errorf("%s: ratelimit %q, ratelimit-policy %q", c.name, limit, policy)
			}
		}
	}
}

// The shipped policies work without changes.
func TestShippedBundle_WorksUnchanged(t *testing.T) {
	s := startStack(t, "")
	key := s.customer("acme", "free", "--scopes", "reports:read")
	for _, path := range []string{"/v1/reports/1", "/anything"} {
		if r := s.get(path, key.Text); r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
	s.wantIdentity("shipped bundle", key)
	s.Reset()
	for _, path := range []string{"/anything", "/public/logo.png"} { // the shipped bundle makes no path public
		s.wantDenial(get(t, s.http, s.addr, path), http.StatusForbidden, "key_missing")
	}
}

// wantIdentity checks that the upstream got the caller's identity, once and from Tollkeeper.
func (s *stack) wantIdentity(name string, key madeKey) {
	s.t.Helper()
	last, ok := s.Last()
	if !ok {
		s.t.Fatalf("%s: nothing reached the upstream", name)
	}
	ours := map[string]string{"X-Tollkeeper-Key-Id": key.ID, "X-Tollkeeper-Account": "acme", "X-Tollkeeper-Plan": "free"}
	for field, want := range ours {
		if got := last.Headers[field]; !slices.Equal(got, []string{want}) {
			s.t.Errorf("%s: the upstream got %s: %q, want %q", name, field, got, want)
		}
	}
	for field, got := range last.Headers {
		if slices.Contains(got, "evil") {
			s.t.Errorf("%s: the client's own %s reached the upstream", name, field)
		}
	}
}

func TestGRPC_AllowsAndDenies(t *testing.T) {
	s := newStack(t)
	free, three := s.customer("acme", "free"), s.customer("three", "three")
	conn := dialGRPC(t, s.addr)
	for range 3 {
		if _, err := echo(t, conn, "x-api-key", three.Text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := echo(t, conn, "authorization", "Bearer "+free.Text); err != nil {
		t.Fatal(err)
	}
	s.wantIdentity("gRPC", free)
	s.Reset()
	for _, c := range []struct {
		reason string
		code   codes.Code
		fields []string
	}{
		{"quota_exceeded", codes.ResourceExhausted, []string{"x-api-key", three.Text}},
		{"key_missing", codes.PermissionDenied, nil},
		{"credential_ambiguous", codes.PermissionDenied, []string{"x-api-key", three.Text, "x-api-key", free.Text}},
	} {
		trailer, err := echo(t, conn, c.fields...)
		if status.Code(err) != c.code {
			t.Errorf("%s: %v, want %v", c.reason, err, c.code)
		}
		if got := trailer.Get("x-authz-reason"); !slices.Equal(got, []string{c.reason}) {
			t.Errorf("reason %q in the trailers, want %q", got, c.reason)
		}
	}
	if n := s.Count(); n != 0 {
		t.Errorf("%d refused calls reached the upstream", n)
	}
}

func TestWebSocket_IsCheckedWhenItOpens(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "free")
	s.wantDenial(askForWebSocket(t, s.addr), http.StatusForbidden, "key_missing")
	if got := echoOverWebSocket(t, s.addr, "x-api-key", key.Text); got != "hello" {
		t.Errorf("the echo was %q", got)
	}
	s.wantIdentity("WebSocket", key)
}

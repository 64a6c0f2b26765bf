package admin

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func handler(token string) http.Handler {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })
	return Handler(&Service{Status: func(context.Context) Status { return Status{Version: "v"} }}, token, "v", metrics, slog.New(slog.DiscardHandler))
}

// TestHandler_NothingWithoutTheToken asks for every path without the right token.
func TestHandler_NothingWithoutTheToken(t *testing.T) {
	const token = "tka_0123456789abcdef"
	paths := []string{"/", "/metrics", "/openapi.json", "/openapi.yaml", "/docs", "/v1/status", "/v1/keys", "/v1/accounts/x", "/v1/doctor/ledger", "//metrics", "/v1/../metrics", "/debug/pprof/"}
	headers := []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + token, token, "Bearer " + token[:10], "Bearer " + token + "x"}
	for _, path := range paths {
		for _, h := range headers {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			if h != "" {
				r.Header.Set("Authorization", h)
			}
			w := httptest.NewRecorder()
			handler(token).ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s with %q: %d", path, h, w.Code)
			}
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Authorization", "Bearer ")
	w := httptest.NewRecorder()
	if handler("").ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("an empty token lets an empty one pass: %d", w.Code)
	}
}

func TestHandler_OpenAPI(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/openapi.json", nil)
	r.Header.Set("Authorization", "bearer tka_0123456789abcdef")
	w := httptest.NewRecorder()
	handler("tka_0123456789abcdef").ServeHTTP(w, r)
	for _, want := range []string{`"openapi":"3.1.0"`, "/v1/keys/{id}/rotate", "/v1/quota/credit", "/v1/explain", `"path_fault":{`, `"template":{`, `"evaluated":{`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in %d %.200s", want, w.Code, w.Body)
		}
	}
}

func TestToken_File(t *testing.T) {
	dir := t.TempDir()
	first, err := Token(dir)
	if err != nil || len(first) < 20 {
		t.Fatalf("%q, %v", first, err)
	}
	path := filepath.Join(dir, TokenFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if again, err := Token(dir); err != nil || again != first {
		t.Errorf("the token changed: %q, %v", again, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Token(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a token that others can read: %v", err)
	}
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := Token(dir); err == nil {
		t.Errorf("an empty file became the token %q", token)
	}
}

package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Handler serves the API, its OpenAPI document at /openapi.json, and metrics at /metrics. Everything needs the token.
func Handler(s *Service, token, version string, metrics http.Handler, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	s.routes(mux, version, log)
	return authenticate(token, mux)
}

// authenticate refuses requests without the token (RFC 6750, section 2.1). It compares hashes, in constant time. An empty
// token refuses every request.
func authenticate(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(given)))
		if token == "" || !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="tollkeeper admin"`)
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"title":"Unauthorized","status":401,"detail":"the admin API needs the token from admin.token in the data directory"}`))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Names of files in the data directory.
const (
	TokenFile   = "admin.token"   // the admin token
	AddressFile = "admin.address" // the URL of the running server
)

// Token reads the admin token of a data directory. If there is none, it makes one that only the owner can read. The file gets
// its name when it is complete, so that a crash does not leave half a token.
func Token(dir string) (string, error) {
	path := filepath.Join(dir, TokenFile)
	if token, err := ReadToken(path); !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	f, err := os.CreateTemp(dir, "."+TokenFile+"-*") // which only the owner can read
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString("tka_" + rand.Text() + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return ReadToken(path)
}

// ReadToken reads a token file. It refuses a file that other users can read.
func ReadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", authz.Errorf(authz.KindInvalid, "%s can be read by others: chmod 600 %s", path, path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(raw))
	if len(token) < 16 {
		return "", authz.Errorf(authz.KindInvalid, "%s holds no token: delete it and start the server again", path)
	}
	return token, nil
}

// cut splits a pattern such as "GET /v1/status".
func cut(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, path
}

// operationID makes a name such as post-keys-id-rotate.
func operationID(method, path string) string {
	path = strings.TrimPrefix(path, "/v1/")
	return strings.ToLower(method) + "-" + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path)
}

// PointerFile returns the path of the file that holds the data directory of the server that the user started last.
func PointerFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "tollkeeper", "data_dir"), nil
}

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

// Handler serves the API, its OpenAPI document at /openapi.json, and metrics at /metrics, all behind the token.
func Handler(s *Service, token, version string, metrics http.Handler, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	s.routes(mux, version, log)
	return authenticate(token, mux)
}

// authenticate lets nobody pass without the token (RFC 6750 section 2.1), which is compared by its hash in constant
// time. An empty token lets nobody pass at all.
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

// TokenFile and AddressFile are the names, in the data directory, of the admin token and of the address at which the
// running server listens.
const (
	TokenFile   = "admin.token"
	AddressFile = "admin.address"
)

// Token reads the admin token of a data directory, and makes one that only the owner can read if there is none.
//
// The file gets its name when it is whole: a crash in between leaves nothing that the next start would stumble over.
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

// ReadToken reads a token file. It refuses one that others can read, for who reads it can do everything.
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

func cut(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, path
}

// operationID makes a name such as post-keys-id-rotate.
func operationID(method, path string) string {
	path = strings.TrimPrefix(path, "/v1/")
	return strings.ToLower(method) + "-" + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path)
}

// PointerFile is where the server that the user started last leaves the path of its data directory.
func PointerFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "tollkeeper", "data_dir"), nil
}

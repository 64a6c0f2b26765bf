package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// noEnvironment removes what libpq would read.
func noEnvironment(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
}

// TestParse_VerifiesOtherMachines: who is on the way to the database could otherwise read and change everything.
func TestParse_VerifiesOtherMachines(t *testing.T) {
	noEnvironment(t)
	for _, c := range []struct {
		url      string
		insecure bool
		env      string
		ok, tls  bool
	}{
		{url: "postgres://u@db.example.com/d", ok: true, tls: true},
		{url: "postgres://u@db.example.com/d", env: "PGSSLMODE=disable", ok: true, tls: true},
		{url: "postgres://u@/d", env: "PGHOST=db.example.com", ok: true, tls: true},
		{url: "postgres://u@/d?host=db.example.com", ok: true, tls: true},
		{url: "postgres://u@10.0.0.1,10.0.0.2/d", ok: true, tls: true},
		{url: "postgres://u@127.0.0.1,10.0.0.2/d", ok: true, tls: true},
		{url: "postgres://u@[2001:db8::1]:5432/d", ok: true, tls: true},
		{url: "postgres://u@db.example.com/d?sslmode=verify-full", ok: true, tls: true},
		{url: "postgres://u@db.example.com/d?sslmode=disable"},
		{url: "postgres://u@db.example.com/d?sslmode=prefer"},
		{url: "postgres://u@db.example.com/d?sslmode=require"},
		{url: "postgres://u@db.example.com/d?sslmode=verify-ca"},
		{url: "postgres://u@db.example.com/d?ssl=true"},
		{url: "postgres://u@127.0.0.1,db.example.com/d?sslmode=disable"},
		{url: "postgres://u@db.example.com/d?sslmode=disable", insecure: true, ok: true},
		{url: "postgres://u@127.0.0.1/d?sslmode=disable", ok: true},
		{url: "postgres://u@127.9.9.9/d?sslmode=disable", ok: true},
		{url: "postgres://u@[::1]/d?sslmode=disable", ok: true},
		{url: "postgres://u@localhost/d?sslmode=disable", ok: true},
		{url: "postgres://u@/d?host=/run/postgresql&sslmode=disable", ok: true},
		{url: "mysql://u@127.0.0.1/d"},
		{url: "host=127.0.0.1"},
		{url: ""},
	} {
		t.Run(c.url+c.env, func(t *testing.T) {
			if name, value, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(name, value)
			}
			cfg, err := parse(Options{URL: c.url, Insecure: c.insecure})
			if (err == nil) != c.ok {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				if authz.KindOf(err) != authz.KindInvalid {
					t.Errorf("kind %s", authz.KindOf(err))
				}
				return
			}
			if c.tls != verified(cfg) {
				t.Errorf("verified: %v", verified(cfg))
			}
		})
	}
}

func TestParse_ErrorsShowNoPassword(t *testing.T) {
	noEnvironment(t)
	for _, url := range []string{
		"postgres://u:secret%@127.0.0.1/d", "postgres://u:secret@127.0.0.1:port/d", "postgres://u:secret@127.0.0.1/d?sslmode=secret",
		"postgres://u:secret@[::1/d", "postgres://u:secret@db.example.com/d?sslmode=disable", "secret", "postgres://u@127.0.0.1/d?passfile=/nowhere&password=secret%",
		"postgres://u:secret@127.0.0.1/d?sslrootcert=/nowhere",
	} {
		if _, err := parse(Options{URL: url}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestParse_File(t *testing.T) {
	noEnvironment(t)
	file := filepath.Join(t.TempDir(), "url")
	if _, err := parse(Options{URLFile: file}); authz.KindOf(err) != authz.KindInvalid {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte("postgres://u:first@127.0.0.1/d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if cfg, err := parse(Options{URLFile: file}); err != nil || cfg.ConnConfig.Password != "first" {
		t.Errorf("%v", err)
	}
}

package server

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// TestCheck_FindsWhatStopsTheStart breaks a good configuration in one way after the other. Each stops New, and is found by
// Check, in the same field.
func TestCheck_FindsWhatStopsTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	issuer := func(change func(*config.Issuer)) func(*config.Config, string) {
		return func(c *config.Config, _ string) {
			c.Tokens.Issuers = []config.Issuer{{Issuer: "https://id.example.com", Audiences: []string{"a"}, JWKSURL: "https://id.example.com/keys"}}
			change(&c.Tokens.Issuers[0])
		}
	}
	events := func(change func(*config.Config)) func(*config.Config, string) {
		return func(c *config.Config, dir string) {
			issuer(func(*config.Issuer) {})(c, dir)
			c.Listen.Events = "127.0.0.1:0"
			change(c)
		}
	}
	for name, c := range map[string]struct {
		field  string
		change func(c *config.Config, dir string)
	}{
		"HS256":                  {"tokens.issuers[0]", issuer(func(i *config.Issuer) { i.Algorithms = []string{"HS256"} })},
		"no audiences":           {"tokens.issuers[0]", issuer(func(i *config.Issuer) { i.Audiences = nil })},
		"discovery and jwks_url": {"tokens.issuers[0]", issuer(func(i *config.Issuer) { i.Discovery = true })},
		"no source of keys":      {"tokens.issuers[0]", issuer(func(i *config.Issuer) { i.JWKSURL = "" })},
		"keys from nowhere":      {"tokens.issuers[0]", issuer(func(i *config.Issuer) { i.JWKSURL = "file:///keys" })},
		"no secret":              {"tokens.introspection", func(c *config.Config, _ string) { c.Tokens.Introspection.URL = "https://id.example.com/introspect" }},
		"a client's secret is gone": {"revocation.clients[0]", events(func(c *config.Config) {
			c.Revocation.Clients = []config.Client{{ID: "crm", SecretFile: "/does/not/exist"}}
		})},
		"a client is there twice": {"revocation.clients[1]", events(func(c *config.Config) {
			c.Revocation.Clients = []config.Client{{ID: "crm", SecretFile: "prepare_test.go"}, {ID: "crm", SecretFile: "prepare_test.go"}}
		})},
		"the events' secret is gone": {"revocation", events(func(c *config.Config) { c.Revocation.EventAuthorizationFile = "/does/not/exist" })},
		"events of no issuer":        {"listen.events", func(c *config.Config, _ string) { c.Listen.Events = "127.0.0.1:0" }},
		"no certificate":             {"tls.cert_file", func(c *config.Config, _ string) { c.TLS.CertFile, c.TLS.KeyFile = "/does/not/exist", "/does/not/exist" }},
		"no pepper":                  {"keys.pepper_file", func(c *config.Config, _ string) { c.Keys.PepperFile = "/does/not/exist" }},
		"no descriptors":             {"request.proto_descriptor", func(c *config.Config, _ string) { c.Request.ProtoDescriptor = "prepare_test.go" }},
		"no policies":                {"policy", func(c *config.Config, _ string) { c.Policy.Paths = []string{"/does/not/exist"} }},
		"a reason without a status": {"policy", func(c *config.Config, dir string) {
			c.Policy.Profile, c.Policy.Paths = "rfc", []string{profileless(t, dir)}
		}},
		"no data directory":       {"data_dir", func(c *config.Config, _ string) { c.DataDir = "prepare_test.go" }},
		"one that cannot be made": {"data_dir", func(c *config.Config, _ string) { c.DataDir = "prepare_test.go/data" }},
		"an open token":           {"data_dir", func(c *config.Config, dir string) { openToken(t, c.DataDir) }},
		"another pepper":          {"data_dir", func(c *config.Config, dir string) { useOnce(t, *c); c.Keys.PepperFile = "prepare_test.go" }},
		"decisions to nowhere":    {"log.decisions", func(c *config.Config, _ string) { c.Log.Decisions = "/does/not/exist/decisions.log" }},
		"decisions to a folder":   {"log.decisions", func(c *config.Config, dir string) { c.Log.Decisions = dir }},
		"a port in use":           {"listen.admin", func(c *config.Config, _ string) { c.Listen.Admin = taken.Addr().String() }},
		"a socket that is none":   {"listen.grpc", func(c *config.Config, dir string) { c.Listen.GRPC = "unix:" + mustWrite(t, filepath.Join(dir, "s")) }},
		"a socket in no folder":   {"listen.grpc", func(c *config.Config, _ string) { c.Listen.GRPC = "unix:/does/not/exist/s" }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("XDG_CONFIG_HOME", dir)
			cfg := configFor(dir)
			c.change(&cfg, dir)
			seen := Check(t.Context(), cfg)
			if !slices.ContainsFunc(seen.Faults, func(f StartFault) bool { return f.Field == c.field }) {
				t.Errorf("Check found %v, want %s", seen.Faults, c.field)
			}
			s, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
			if err == nil {
				s.close()
				t.Fatal("the server starts")
			}
			if !strings.HasPrefix(err.Error(), strings.TrimSuffix(c.field, "[1]")) && !strings.HasPrefix(err.Error(), "admin token: ") {
				t.Errorf("%v, want %s", err, c.field)
			}
		})
	}
}

// TestCheck_FindsNothing checks a good configuration before, while and after a server runs. It leaves no trace.
func TestCheck_FindsNothing(t *testing.T) {
	dir := t.TempDir()
	cfg := configFor(dir)
	cfg.Log.Decisions = filepath.Join(dir, "decisions.log")
	well := func(when string) {
		t.Helper()
		if seen := Check(t.Context(), cfg); len(seen.Faults) != 0 || seen.Policy == nil {
			t.Errorf("%s: %v", when, seen.Faults)
		}
	}
	well("before")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	r := start(t, cfg)
	cfg.Listen.GRPC, cfg.Listen.Admin = r.GRPCAddr(), r.AdminAddr()
	well("while it runs")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	well("afterwards")
}

// TestCheckFields_NeedsNoFiles checks a configuration for another machine.
func TestCheckFields_NeedsNoFiles(t *testing.T) {
	cfg := config.Default()
	cfg.Listen.Events = "127.0.0.1:9005"
	cfg.Tokens.Issuers = []config.Issuer{{Issuer: "https://a", Audiences: []string{"a"}, JWKSFile: "/elsewhere"}, {Issuer: "https://a", Audiences: []string{"a"}, Discovery: true}}
	cfg.Revocation.Clients = []config.Client{{ID: "crm", SecretFile: "/elsewhere"}}
	if got := CheckFields(&cfg); len(got) != 1 || got[0].Field != "tokens.issuers[1]" {
		t.Errorf("%v", got)
	}
}

func mustWrite(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// profileless writes policies with a reason that has a status in one profile only.
func profileless(t *testing.T, dir string) string {
	t.Helper()
	p := filepath.Join(dir, "policies")
	for name, text := range map[string]string{
		"authz.rego": "package envoy.authz\n\ndefault allow := false\n",
		"data.yaml":  "tollkeeper:\n  reasons:\n    closed_today: {status: {strict: 403}, title: Closed, remedy: Wait., retry: never}\n",
	} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func openToken(t *testing.T, dataDir string) {
	t.Helper()
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dataDir, "admin.token"), []byte("tka_0123456789abcdef"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// useOnce runs a server, so that there is a data file.
func useOnce(t *testing.T, cfg config.Config) {
	t.Helper()
	s, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.close()
}

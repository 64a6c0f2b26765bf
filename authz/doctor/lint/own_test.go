package lint_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
)

// stateSample is a sample of a rule that looks at the machine: a configuration, and what was seen on the machine.
type stateSample struct {
	id, kind string
	change   func(*config.Config, *lint.State)
}

func (s *stateSample) check(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	pepper := filepath.Join(dir, "pepper")
	write(t, pepper, []byte("0123456789abcdef"), 0o600)
	cfg := config.Default()
	cfg.Keys.PepperFile = pepper
	state := &lint.State{VerdictCache: "on", Data: lint.DataDir{Free: 1 << 40}}
	s.change(&cfg, state)
	file := lint.OwnFile("tollkeeper.yaml", nil, cfg, nil, state)
	verify(t, &sample{id: s.id, kind: s.kind, opt: lint.Options{Now: today}}, []*lint.File{file})
}

var today = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func stateSamples(t *testing.T) []stateSample {
	t.Helper()
	state := func(change func(*lint.State)) func(*config.Config, *lint.State) {
		return func(_ *config.Config, s *lint.State) { change(s) }
	}
	tls := func(o certOptions) func(*config.Config, *lint.State) {
		files := o.write(t)
		return func(c *config.Config, s *lint.State) {
			c.Listen.GRPC, s.TLS, c.TLS.ClientNames = "0.0.0.0:9001", files, []string{"envoy.edge.svc"}
		}
	}
	good := certOptions{dns: "tollkeeper.tollkeeper.svc", ca: true, usage: x509.ExtKeyUsageServerAuth}
	with := func(change func(*certOptions)) func(*config.Config, *lint.State) {
		o := good
		change(&o)
		return tls(o)
	}
	return []stateSample{
		{"TK202", "bad", state(func(s *lint.State) { s.PolicyFaults = []string{"a.rego:1: rego_parse_error: unexpected eof"} })},
		{"TK202", "good", state(func(*lint.State) {})},
		{"TK203", "bad", state(func(s *lint.State) { s.VerdictCache = "off, because of io.jwt.decode_verify" })},
		{"TK203", "good", state(func(s *lint.State) { s.VerdictCache = "on" })},
		{"TK209", "bad", state(func(s *lint.State) { s.Evaluator = "OPA's: a.rego:3: too new" })},
		{"TK209", "good", state(func(s *lint.State) { s.Evaluator = "compiled" })},
		{"TK204", "bad", state(func(s *lint.State) { s.FailedTests = []string{"data.authz.test_deny"} })},
		{"TK204", "good", state(func(s *lint.State) { s.FailedTests = []string{} })},
		{"TK201", "bad", state(func(s *lint.State) {
			s.Faults = []lint.StartFault{{Field: "tokens.issuers[0]", Text: "audiences: want at least one"}}
		})},
		{"TK201", "bad", state(func(s *lint.State) {
			s.Faults = []lint.StartFault{{Field: "tls.client_names", Text: "want whole names"}}
		})},
		{"TK201", "good", state(func(*lint.State) {})},
		{"TK206", "bad", state(func(s *lint.State) {
			s.Faults = []lint.StartFault{{Field: "keys.pepper_file", Text: "open /does/not/exist", File: true}}
		})},
		{"TK206", "bad", func(c *config.Config, _ *lint.State) {
			c.Tokens.Issuers = []config.Issuer{{Issuer: "https://id.example.com", JWKSFile: "/does/not/exist"}}
		}},
		{"TK206", "good", state(func(*lint.State) {})},
		{"TK207", "bad", state(func(s *lint.State) { s.PolicyNotes = []string{"a.rego:1: rego_compile_error: unused"} })},
		{"TK207", "good", state(func(*lint.State) {})},
		{"TK208", "bad", state(func(s *lint.State) {
			s.MissingPlans = []string{`plan "gold" does not exist, and is used by 1 account (acme)`}
		})},
		{"TK208", "good", state(func(*lint.State) {})},
		{"TK210", "bad", state(func(s *lint.State) { s.Data.Fault = "it is not writable" })},
		{"TK210", "good", state(func(s *lint.State) { s.Data.Fault = "" })},
		{"TK211", "bad", state(func(s *lint.State) { s.Data.Running = true })},
		{"TK211", "good", state(func(s *lint.State) { s.Data.Running = false })},
		{"TK212", "bad", state(func(s *lint.State) { s.Data.Free = 1 << 20 })},
		{"TK212", "good", state(func(s *lint.State) { s.Data.Free = 0 })},
		{"TK213", "bad", state(func(s *lint.State) { s.Data.Shared = true })},
		{"TK213", "good", state(func(s *lint.State) { s.Data.Shared = false })},
		{"TK214", "bad", state(func(s *lint.State) { s.Data.Damage = "books: granted 0 is not spent 1" })},
		{"TK214", "good", state(func(s *lint.State) { s.Data.Damage = "" })},

		{"TK220", "bad", with(func(o *certOptions) { o.otherKey = true })},
		{"TK220", "bad", state(func(s *lint.State) { s.TLS = lint.TLSFiles{Cert: "/does/not/exist", Key: "/does/not/exist"} })},
		{"TK220", "bad", with(func(o *certOptions) { o.badCA = true })},
		{"TK220", "good", tls(good)},
		{"TK221", "bad", with(func(o *certOptions) { o.left = -time.Hour })},
		{"TK221", "bad", with(func(o *certOptions) { o.left = 13 * 24 * time.Hour })},
		{"TK221", "bad", with(func(o *certOptions) { o.begins = time.Hour })},
		{"TK221", "good", with(func(o *certOptions) { o.left = 15 * 24 * time.Hour })},
		{"TK222", "bad", with(func(o *certOptions) { o.dns = "" })},
		{"TK222", "bad", with(func(o *certOptions) { o.usage = x509.ExtKeyUsageClientAuth })},
		{"TK222", "good", tls(good)},
		{"TK223", "bad", with(func(o *certOptions) { o.ca = false })},
		{"TK223", "bad", func(c *config.Config, s *lint.State) { tls(good)(c, s); c.TLS.ClientNames = nil }},
		{"TK223", "good", tls(good)},
		{"TK224", "bad", with(func(o *certOptions) { o.mode = 0o644 })},
		{"TK224", "good", with(func(o *certOptions) { o.mode = 0o640 })},
	}
}

// A refused configuration has one finding, with the line of the fault.
func TestOwnFile_FaultHasItsLine(t *testing.T) {
	raw := []byte("# a comment\nrequest:\n  timeout: never\n")
	err := errors.New(`tollkeeper.yaml:3:12: request.timeout: "never": want a duration`)
	f := lint.OwnFile("tollkeeper.yaml", raw, config.Config{}, err, nil)
	r, err := lint.Run([]*lint.File{f}, lint.Options{})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Line != 3 || r.Findings[0].Wrong != `request.timeout: "never": want a duration` {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// The TLS files are those that the document names, unless the loaded configuration has others.
func TestOwnFile_NamesTLSFiles(t *testing.T) {
	raw := []byte("tls:\n  cert_file: /does/not/exist\n  key_file: /does/not/exist\n")
	cfg := config.Default()
	r, err := lint.Run([]*lint.File{lint.OwnFile("x.yaml", raw, cfg, nil, &lint.State{VerdictCache: "on"})}, lint.Options{Ignore: []string{"TK240"}})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Rule != "TK220" || r.Findings[0].Line != 2 {
		t.Errorf("%v, %+v", err, r.Findings)
	}
}

// With the configurations of both ends, the names are compared.
func TestCertificate_HasTheNameThatEnvoyVerifies(t *testing.T) {
	envoy := read(t, "testdata/base/envoy.yaml")
	for dns, good := range map[string]bool{"tollkeeper.tollkeeper.svc": true, "*.tollkeeper.svc": true, "tollkeeper": false} {
		cfg := config.Default()
		files := certOptions{dns: dns, ca: true, usage: x509.ExtKeyUsageServerAuth}.write(t)
		own := lint.OwnFile("tollkeeper.yaml", nil, cfg, nil, &lint.State{VerdictCache: "on", TLS: files})
		r, err := lint.Run([]*lint.File{own, lint.Parse("envoy.yaml", []byte(envoy), "")}, lint.Options{Now: today, Ignore: []string{"TK240"}})
		if err != nil || (len(r.Findings) == 0) != good {
			t.Errorf("%s: %v, %+v", dns, err, r.Findings)
		}
		if !good && (len(r.Findings) != 1 || r.Findings[0].Rule != "TK222" || r.Findings[0].File != "envoy.yaml") {
			t.Errorf("%s: %+v", dns, r.Findings)
		}
	}
}

// certOptions describe a certificate to make.
type certOptions struct {
	dns             string
	left, begins    time.Duration
	usage           x509.ExtKeyUsage
	ca              bool
	badCA, otherKey bool
	mode            os.FileMode
}

func (o certOptions) write(t *testing.T) lint.TLSFiles {
	t.Helper()
	dir := t.TempDir()
	files := lint.TLSFiles{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tollkeeper"},
		NotBefore: today.Add(-time.Hour), NotAfter: today.Add(90 * 24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{o.usage},
	}
	if o.dns != "" {
		template.DNSNames = []string{o.dns}
	}
	if o.left != 0 {
		template.NotAfter = today.Add(o.left)
	}
	if o.begins != 0 {
		template.NotBefore = today.Add(o.begins)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	if o.otherKey {
		key = newKey(t)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if o.mode == 0 {
		o.mode = 0o600
	}
	write(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), o.mode)
	if o.ca {
		files.ClientCA = files.Cert
	}
	if o.badCA {
		files.ClientCA = files.Key // a file without a certificate
	}
	return files
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func write(t *testing.T, name string, raw []byte, mode os.FileMode) {
	t.Helper()
	err := os.WriteFile(name, raw, mode)
	if err == nil {
		err = os.Chmod(name, mode) // even with another umask
	}
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", name, err))
	}
}

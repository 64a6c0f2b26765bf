package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
)

// StartFault is why a server does not start.
type StartFault struct {
	Field string // of the configuration, such as tokens.issuers[0]
	Err   error
}

func (f *StartFault) Error() string { return fmt.Sprintf("%s: %v", f.Field, f.Err) }
func (f *StartFault) Unwrap() error { return f.Err }

// parts are what a configuration makes of itself and of the files that it names, before anything is opened that only one
// server can have. New and Check make them, so that what stops the one is found by the other.
type parts struct {
	hasher        apikey.Hasher
	tls           *tlsfiles.Files // nil: there is none
	decodeOptions extauthz.Options
	tokens        *token.Options // nil: no tokens are understood
	events        signals.Options
}

// prepare makes the parts, or says everything that is wrong with them.
func prepare(cfg *config.Config, log *slog.Logger) (p parts, faults []StartFault) {
	fail := func(field string, err error) {
		if err != nil {
			faults = append(faults, StartFault{field, err})
		}
	}
	var err error
	p.hasher, err = readPepper(cfg.Keys.PepperFile)
	fail("keys.pepper_file", err)
	var field string
	p.tls, field, err = openTLS(&cfg.TLS, log)
	fail(field, err)
	p.decodeOptions, err = readDecodeOptions(&cfg.Request)
	fail("request.proto_descriptor", err)
	var more []StartFault
	p.tokens, more = tokenOptions(&cfg.Tokens, log)
	faults = append(faults, more...)
	p.events, more = eventOptions(cfg)
	return p, append(faults, more...)
}

func readDecodeOptions(cfg *config.Request) (extauthz.Options, error) {
	o := extauthz.Options{SkipBody: cfg.SkipBodyParse}
	if cfg.ProtoDescriptor == "" {
		return o, nil
	}
	raw, err := os.ReadFile(cfg.ProtoDescriptor)
	if err != nil {
		return o, err
	}
	if o.Descriptors, err = extauthz.ReadDescriptors(raw); err != nil {
		return o, fmt.Errorf("%s: %w", cfg.ProtoDescriptor, err)
	}
	return o, nil
}

// tokenOptions are those of the verifier, nil where no tokens are understood.
func tokenOptions(cfg *config.Tokens, log *slog.Logger) (*token.Options, []StartFault) {
	if len(cfg.Issuers) == 0 && cfg.Introspection.URL == "" {
		return nil, nil
	}
	opt := &token.Options{Timing: timing(cfg), MaxBytes: cfg.MaxBytes, AcceptBound: cfg.AcceptBound, IsKey: apikey.IsOurs, Now: time.Now, Log: log}
	faults := issuerFaults(cfg)
	for n := range cfg.Issuers {
		opt.Issuers = append(opt.Issuers, issuerOf(&cfg.Issuers[n]))
	}
	var err error
	if opt.Introspection, err = introspection(&cfg.Introspection); err != nil {
		faults = append(faults, StartFault{"tokens.introspection", err})
	}
	return opt, faults
}

// issuerFaults needs no files.
func issuerFaults(cfg *config.Tokens) (faults []StartFault) {
	known := make(map[string]bool)
	for n := range cfg.Issuers {
		i := issuerOf(&cfg.Issuers[n])
		err := i.Check()
		if err == nil && known[i.Name] {
			err = fmt.Errorf("issuer %q is there twice", i.Name)
		}
		if err != nil {
			faults = append(faults, StartFault{fmt.Sprintf("tokens.issuers[%d]", n), err})
		}
		known[i.Name] = true
	}
	return faults
}

// eventOptions are those of the port at which others revoke, if there is to be one.
func eventOptions(cfg *config.Config) (opt signals.Options, faults []StartFault) {
	if cfg.Listen.Events == "" {
		return opt, nil
	}
	faults = clientFaults(cfg)
	opt = signals.Options{Clients: make(map[string]string), Now: time.Now}
	for n, c := range cfg.Revocation.Clients {
		secret, err := readSecret("secret_file", c.SecretFile)
		if err != nil {
			faults = append(faults, StartFault{fmt.Sprintf("revocation.clients[%d]", n), err})
		}
		opt.Clients[c.ID] = secret
	}
	if path := cfg.Revocation.EventAuthorizationFile; path != "" {
		var err error
		if opt.EventAuthorization, err = readSecret("event_authorization_file", path); err != nil {
			faults = append(faults, StartFault{"revocation", err})
		}
	}
	return opt, faults
}

// clientFaults needs no files.
func clientFaults(cfg *config.Config) (faults []StartFault) {
	if cfg.Listen.Events == "" {
		return nil
	}
	if len(cfg.Tokens.Issuers) == 0 && cfg.Tokens.Introspection.URL == "" {
		faults = append(faults, StartFault{"listen.events", errors.New("no issuer and no introspection is configured, so nobody could be believed: configure tokens.issuers")})
	}
	known := make(map[string]bool)
	for n, c := range cfg.Revocation.Clients {
		if known[c.ID] {
			faults = append(faults, StartFault{fmt.Sprintf("revocation.clients[%d]", n), fmt.Errorf("%q is there twice", c.ID)})
		}
		known[c.ID] = true
	}
	return faults
}

// CheckFields returns what is wrong with a configuration for another machine, of which the files are not here.
func CheckFields(cfg *config.Config) []StartFault {
	return append(issuerFaults(&cfg.Tokens), clientFaults(cfg)...)
}

// CheckResult is what Check saw.
type CheckResult struct {
	Faults []StartFault
	Policy *policy.Policy // nil if it cannot be used
}

// Check returns everything for which New would not start with a configuration on this machine. It takes the ports for a
// moment, unless a server runs on the data directory, and changes nothing.
func Check(ctx context.Context, cfg config.Config) CheckResult {
	log := slog.New(slog.DiscardHandler)
	p, faults := prepare(&cfg, log)
	seen := CheckResult{Faults: faults}
	fail := func(field string, err error) {
		if err != nil {
			seen.Faults = append(seen.Faults, StartFault{field, err})
		}
	}
	var err error
	seen.Policy, err = rulebook.Load(ctx, cfg.Policy, log)
	fail("policy", err)
	fail("data_dir", checkDataDir(cfg.DataDir))
	running := false
	if cfg.Store == "bolt" && HasLedger(cfg.DataDir) {
		running, err = checkPepper(cfg.DataDir, p.hasher)
		fail("data_dir", err)
	}
	fail("log.decisions", checkDecisionLog(cfg.Log.Decisions))
	if _, err := admin.Running(cfg.DataDir); err != nil && !running {
		seen.Faults = append(seen.Faults, checkPorts(&cfg.Listen)...)
	}
	return seen
}

// checkDataDir looks whether a data directory can be used, or made, and its token with it.
func checkDataDir(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		above := filepath.Clean(dir)
		for errors.Is(err, os.ErrNotExist) && above != filepath.Dir(above) {
			above = filepath.Dir(above)
			info, err = os.Stat(above)
		}
		if err == nil && !info.IsDir() {
			err = errors.New(above + " is not a folder")
		}
		if err == nil {
			err = writable(above)
		}
		if err != nil {
			return fmt.Errorf("it is not there, and cannot be made: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New(dir + " is not a folder")
	}
	if err := writable(dir); err != nil {
		return err
	}
	if _, err := admin.ReadToken(filepath.Join(dir, admin.TokenFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("admin token: %w", err)
	}
	return nil
}

// checkPepper looks whether a data file was made with that pepper. It reports whether a server has the file, which then
// has the right one. Damage is for CheckLedger to report.
func checkPepper(dir string, hasher apikey.Hasher) (running bool, err error) {
	file, err := bolt.Inspect(filepath.Join(dir, databaseFile))
	if err != nil {
		return errors.Is(err, bolt.ErrInUse), nil
	}
	defer func() { _ = file.Close() }()
	return false, file.CheckPepper(hasher.Fingerprint())
}

// checkDecisionLog looks whether decisions can be written to where they are to go.
func checkDecisionLog(to string) error {
	if to == "off" || to == "stdout" || to == "stderr" {
		return nil
	}
	info, err := os.Stat(to)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return writable(filepath.Dir(to))
	case err != nil:
		return err
	case info.IsDir():
		return errors.New(to + " is a folder")
	}
	return writable(to)
}

// checkPorts takes all ports, so that two that are one are found too, and lets go of them.
func checkPorts(cfg *config.Listen) (faults []StartFault) {
	for _, a := range []struct{ field, address string }{
		{"listen.grpc", cfg.GRPC}, {"listen.health", cfg.Health}, {"listen.metrics", cfg.Metrics}, {"listen.events", cfg.Events},
		{"listen.admin", cfg.Admin},
	} {
		if a.address == "" {
			continue
		}
		var err error
		if path, ok := strings.CutPrefix(a.address, config.UnixPrefix); ok {
			if err = vacant(path); err == nil {
				err = writable(filepath.Dir(path))
			}
		} else {
			var l net.Listener
			if l, err = listenTCP(a.address); err == nil {
				defer func() { _ = l.Close() }()
			}
		}
		if err != nil {
			faults = append(faults, StartFault{a.field, err})
		}
	}
	return faults
}

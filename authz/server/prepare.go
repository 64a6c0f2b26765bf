package server

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
)

// StartFault says why a server does not start.
type StartFault struct {
	Field string // of the configuration, such as tokens.issuers[0]
	Err   error
}

func (f *StartFault) Error() string { return fmt.Sprintf("%s: %v", f.Field, f.Err) }
func (f *StartFault) Unwrap() error { return f.Err }

// faults collects everything that keeps a server from starting.
type faults []StartFault

func (fs *faults) add(field string, err error) {
	if err != nil {
		*fs = append(*fs, StartFault{field, err})
	}
}

// parts are made of the configuration and of the files that it names, before anything is opened that only one server can
// have open. New and Check both make them, so that Check finds what would stop New.
type parts struct {
	hasher        apikey.Hasher
	tls           *tlsfiles.Files // nil: no TLS is configured
	decodeOptions extauthz.Options
	tokens        *token.Options // nil: no tokens are understood
	events        signals.Options
}

// prepare makes the parts, or returns everything that is wrong with them.
func prepare(cfg *config.Config, log *slog.Logger) (p parts, fs faults) {
	var err error
	p.hasher, err = readPepper(cfg.Keys.PepperFile)
	fs.add("keys.pepper_file", err)
	p.tls, err = openTLS(&cfg.TLS, log)
	var field *tlsfiles.FieldError
	if errors.As(err, &field) {
		fs.add("tls."+field.Field, field.Err)
	} else {
		fs.add("tls", err)
	}
	p.decodeOptions, err = readDecodeOptions(&cfg.Request)
	fs.add("request.proto_descriptor", err)
	var more faults
	p.tokens, more = tokenOptions(&cfg.Tokens, log)
	fs = append(fs, more...)
	p.events, more = eventOptions(cfg)
	return p, append(fs, more...)
}

// openTLS reads the files of the TLS section. It returns nil if no TLS is configured.
func openTLS(c *config.TLS, log *slog.Logger) (*tlsfiles.Files, error) {
	if !c.On() {
		return nil, nil
	}
	o := c.Options()
	o.Now, o.Log = time.Now, log
	return tlsfiles.Open(o)
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

// tokenOptions returns the options of the verifier, nil if no tokens are understood.
func tokenOptions(cfg *config.Tokens, log *slog.Logger) (*token.Options, faults) {
	if len(cfg.Issuers) == 0 && cfg.Introspection.URL == "" {
		return nil, nil
	}
	opt := &token.Options{Timing: timing(cfg), MaxBytes: cfg.MaxBytes, AcceptBound: cfg.AcceptBound, IsKey: apikey.IsOurs, Now: time.Now, Log: log}
	fs := issuerFaults(cfg)
	for n := range cfg.Issuers {
		opt.Issuers = append(opt.Issuers, issuerOf(&cfg.Issuers[n]))
	}
	var err error
	opt.Introspection, err = introspection(&cfg.Introspection)
	fs.add("tokens.introspection", err)
	return opt, fs
}

// issuerFaults checks what can be checked without files.
func issuerFaults(cfg *config.Tokens) (fs faults) {
	known := make(map[string]bool)
	for n := range cfg.Issuers {
		i := issuerOf(&cfg.Issuers[n])
		err := i.Check()
		if err == nil && known[i.Name] {
			err = fmt.Errorf("issuer %q is there twice", i.Name)
		}
		fs.add(fmt.Sprintf("tokens.issuers[%d]", n), err)
		known[i.Name] = true
	}
	return fs
}

func issuerOf(c *config.Issuer) token.Issuer {
	return token.Issuer{
		Name: c.Issuer, Audiences: c.Audiences, Algorithms: c.Algorithms, JWKSURL: c.JWKSURL, JWKSFile: c.JWKSFile,
		Discovery: c.Discovery, Envoy: c.Envoy, AudienceClaim: c.AudienceClaim, AccountClaim: c.AccountClaim, PlanClaim: c.PlanClaim, Accounts: c.Accounts,
		LogoutAudiences: c.LogoutAudiences, EventAudiences: c.EventAudiences, StatusLists: c.StatusLists,
	}
}

// introspection returns nil if no URL is configured.
func introspection(c *config.Introspection) (*token.Introspection, error) {
	if c.URL == "" {
		return nil, nil
	}
	secret, err := readSecret("client_secret_file", c.ClientSecretFile)
	if err != nil {
		return nil, err
	}
	in := &token.Introspection{
		URL: c.URL, Issuer: c.Issuer, ClientID: c.ClientID, Secret: secret, Audiences: c.Audiences, AudienceClaim: c.AudienceClaim,
		AccountClaim: c.AccountClaim, PlanClaim: c.PlanClaim, Accounts: c.Accounts, MaxRefusals: c.MaxRefusals,
		TTL: c.TTL.Duration, NegativeTTL: c.NegativeTTL.Duration, Timeout: c.Timeout.Duration,
	}
	return in, in.Check()
}

// eventOptions returns the options of the port through which others revoke tokens, zero if it is not configured.
func eventOptions(cfg *config.Config) (opt signals.Options, fs faults) {
	if cfg.Listen.Events == "" {
		return opt, nil
	}
	fs = clientFaults(cfg)
	opt = signals.Options{Clients: make(map[string]string), Now: time.Now}
	for n, c := range cfg.Revocation.Clients {
		secret, err := readSecret("secret_file", c.SecretFile)
		fs.add(fmt.Sprintf("revocation.clients[%d]", n), err)
		opt.Clients[c.ID] = secret
	}
	if path := cfg.Revocation.EventAuthorizationFile; path != "" {
		var err error
		opt.EventAuthorization, err = readSecret("event_authorization_file", path)
		fs.add("revocation", err)
	}
	return opt, fs
}

// clientFaults checks what can be checked without files.
func clientFaults(cfg *config.Config) (fs faults) {
	if cfg.Listen.Events == "" {
		return nil
	}
	if len(cfg.Tokens.Issuers) == 0 && cfg.Tokens.Introspection.URL == "" {
		fs.add("listen.events", errors.New("no issuer and no introspection is configured, so no revocation could be believed: configure tokens.issuers"))
	}
	known := make(map[string]bool)
	for n, c := range cfg.Revocation.Clients {
		if known[c.ID] {
			fs.add(fmt.Sprintf("revocation.clients[%d]", n), fmt.Errorf("%q is there twice", c.ID))
		}
		known[c.ID] = true
	}
	return fs
}

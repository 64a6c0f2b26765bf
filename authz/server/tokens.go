package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
)

// keysGrace bounds how long a start waits for the keys of issuers. Without them their tokens are unavailable, and API
// keys are served all the same.
const keysGrace = 3 * time.Second

// openTokens makes the verifier, nil where no tokens are understood.
func (s *Server) openTokens(ctx context.Context) error {
	cfg := &s.cfg.Tokens
	if len(cfg.Issuers) == 0 && cfg.Introspection.URL == "" {
		return nil
	}
	opt := token.Options{
		Timing: timing(cfg), MaxBytes: cfg.MaxBytes, IsKey: apikey.IsOurs, Now: time.Now, Log: s.log,
	}
	known := make(map[string]bool)
	for n := range cfg.Issuers {
		i := issuerOf(&cfg.Issuers[n])
		err := i.Check()
		if err == nil && known[i.Name] {
			err = fmt.Errorf("issuer %q is there twice", i.Name)
		}
		if err != nil {
			return fmt.Errorf("tokens.issuers[%d]: %w", n, err)
		}
		known[i.Name] = true
		opt.Issuers = append(opt.Issuers, i)
	}
	var err error
	if opt.Introspection, err = introspection(&cfg.Introspection); err != nil {
		return fmt.Errorf("tokens.introspection: %w", err)
	}
	s.tokens = token.New(opt)
	s.closers = append(s.closers, closer(s.tokens.Close))
	ready, cancel := context.WithTimeout(ctx, keysGrace)
	defer cancel()
	s.tokens.Ready(ready)
	return nil
}

func issuerOf(c *config.Issuer) token.Issuer {
	return token.Issuer{
		Name: c.Issuer, Audiences: c.Audiences, Algorithms: c.Algorithms, JWKSURL: c.JWKSURL, JWKSFile: c.JWKSFile,
		Discovery: c.Discovery, Envoy: c.Envoy, AccountClaim: c.AccountClaim, PlanClaim: c.PlanClaim,
		LogoutAudiences: c.LogoutAudiences, EventAudiences: c.EventAudiences, StatusLists: c.StatusLists,
	}
}

func introspection(c *config.Introspection) (*token.Introspection, error) {
	if c.URL == "" {
		return nil, nil
	}
	secret, err := readSecret("client_secret_file", c.ClientSecretFile)
	if err != nil {
		return nil, err
	}
	in := &token.Introspection{
		URL: c.URL, Issuer: c.Issuer, ClientID: c.ClientID, Secret: secret, Audiences: c.Audiences, AccountClaim: c.AccountClaim,
		PlanClaim: c.PlanClaim, TTL: c.TTL.Duration, NegativeTTL: c.NegativeTTL.Duration, Timeout: c.Timeout.Duration,
	}
	return in, in.Check()
}

// readSecret reads a file with a secret in it. One that is not there, or empty, stops the start.
func readSecret(field, path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if raw = bytes.TrimRight(raw, "\r\n"); len(raw) == 0 {
		return "", fmt.Errorf("%s: %s is empty", field, path)
	}
	return string(raw), nil
}

// closer is a function without an error as an io.Closer.
type closer func()

func (c closer) Close() error {
	c()
	return nil
}

func timing(cfg *config.Tokens) token.Timing {
	return token.Timing{
		Refresh: cfg.Refresh.Duration, MissInterval: cfg.MissInterval.Duration, MaxAge: cfg.KeysMaxAge.Duration,
		Skew: cfg.Skew.Duration, MaxLifetime: cfg.MaxLifetime.Duration,
	}
}

// recordLife is that of the tokens.
func (s *Server) recordLife() time.Duration {
	t := timing(&s.cfg.Tokens)
	return t.RecordLife()
}

// serveEvents opens the port at which others revoke tokens, if there is to be one.
func (s *Server) serveEvents() error {
	if s.cfg.Listen.Events == "" {
		return nil
	}
	if s.tokens == nil {
		return errors.New("listen.events: no issuer and no introspection is configured, so nobody could be believed: configure tokens.issuers")
	}
	opt := signals.Options{Clients: make(map[string]string), MaxLifetime: s.recordLife(), Now: time.Now}
	for n, c := range s.cfg.Revocation.Clients {
		secret, err := readSecret("secret_file", c.SecretFile)
		if err != nil {
			return fmt.Errorf("revocation.clients[%d]: %w", n, err)
		}
		if _, twice := opt.Clients[c.ID]; twice {
			return fmt.Errorf("revocation.clients[%d]: %q is there twice", n, c.ID)
		}
		opt.Clients[c.ID] = secret
	}
	var err error
	if path := s.cfg.Revocation.EventAuthorizationFile; path != "" {
		if opt.EventAuthorization, err = readSecret("event_authorization_file", path); err != nil {
			return fmt.Errorf("revocation: %w", err)
		}
	}
	if s.eventsL, err = listen("listen.events", s.cfg.Listen.Events); err != nil {
		return err
	}
	s.events = s.httpServer(signals.Handler(s.tokens, s.revocations, opt, s.log))
	return nil
}

// httpServer makes a server that nobody can hold up for long.
func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// issuerGauges are the metrics of the issuers.
func (s *Server) issuerGauges() []telemetry.Issuer {
	if s.tokens == nil {
		return nil
	}
	var out []telemetry.Issuer
	for _, i := range s.tokens.Issuers() {
		out = append(out, telemetry.Issuer{Name: i.Issuer, Keys: i.Keys, Age: i.Age, Faulty: i.Fault != ""})
	}
	return out
}

package server

import (
	"bytes"
	"context"
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
func (s *Server) openTokens(ctx context.Context, opt *token.Options, keys *apikey.Identifier) {
	if opt == nil {
		return
	}
	s.warnOfSharedAccounts(opt.Issuers)
	opt.MayBeKey = keys.MayBeKey
	s.tokens = token.New(*opt)
	s.closers = append(s.closers, closer(s.tokens.Close))
	ready, cancel := context.WithTimeout(ctx, keysGrace)
	defer cancel()
	s.tokens.Ready(ready)
}

// warnOfSharedAccounts says so where several issuers may name any account, each that of another's customers too.
func (s *Server) warnOfSharedAccounts(issuers []token.Issuer) {
	var free []string
	for i := range issuers {
		if issuers[i].AccountClaim != "" && len(issuers[i].Accounts) == 0 {
			free = append(free, issuers[i].Name)
		}
	}
	if len(issuers) > 1 && len(free) > 0 {
		s.log.Warn("tokens of these issuers may name any account, also those of other issuers' customers: set accounts", "issuers", free)
	}
}

func issuerOf(c *config.Issuer) token.Issuer {
	return token.Issuer{
		Name: c.Issuer, Audiences: c.Audiences, Algorithms: c.Algorithms, JWKSURL: c.JWKSURL, JWKSFile: c.JWKSFile,
		Discovery: c.Discovery, Envoy: c.Envoy, AudienceClaim: c.AudienceClaim, AccountClaim: c.AccountClaim, PlanClaim: c.PlanClaim, Accounts: c.Accounts,
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
		URL: c.URL, Issuer: c.Issuer, ClientID: c.ClientID, Secret: secret, Audiences: c.Audiences, AudienceClaim: c.AudienceClaim,
		AccountClaim: c.AccountClaim, PlanClaim: c.PlanClaim, Accounts: c.Accounts, MaxRefusals: c.MaxRefusals, TTL: c.TTL.Duration, NegativeTTL: c.NegativeTTL.Duration, Timeout: c.Timeout.Duration,
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
	return t.RevocationTTL()
}

// openEvents opens the port at which others revoke tokens, if there is to be one.
func (s *Server) openEvents(opt signals.Options) error {
	if s.cfg.Listen.Events == "" {
		return nil
	}
	opt.MaxLifetime, opt.Refused = s.recordLife(), s.metrics.SignalRefused
	var err error
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
		out = append(out, telemetry.Issuer{Name: i.Issuer, Keys: i.Keys, Unusable: len(i.Unusable), Age: i.Age, Faulty: i.Fault != ""})
	}
	return out
}

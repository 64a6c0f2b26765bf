package server

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
)

// keysGrace bounds how long a start waits for the keys of issuers. While the keys are missing, tokens are unavailable; API
// keys work all the same.
const keysGrace = 3 * time.Second

// openTokens makes the verifier and fetches the keys of the issuers. It does nothing if opt is nil: no tokens are
// understood.
func (s *Server) openTokens(ctx context.Context, opt *token.Options) {
	if opt == nil {
		return
	}
	s.warnOfSharedAccounts(opt.Issuers)
	opt.MayBeKey = s.identifier.MayBeKey
	s.tokens = token.New(*opt)
	s.closers = append(s.closers, closer(s.tokens.Close))
	ready, cancel := context.WithTimeout(ctx, keysGrace)
	defer cancel()
	s.tokens.Ready(ready)
}

// warnOfSharedAccounts logs a warning if several issuers are trusted and some may name any account: each of them could make
// tokens for the customers of the others.
func (s *Server) warnOfSharedAccounts(issuers []token.Issuer) {
	var unbounded []string
	for i := range issuers {
		if issuers[i].AccountClaim != "" && len(issuers[i].Accounts) == 0 {
			unbounded = append(unbounded, issuers[i].Name)
		}
	}
	if len(issuers) > 1 && len(unbounded) > 0 {
		s.log.Warn("tokens of these issuers may name any account, also those of other issuers' customers: set accounts", "issuers", unbounded)
	}
}

// closer makes an io.Closer of a function without an error.
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

// revocationTTL is how long a revocation must be kept so that it outlives every token that it can match.
func (s *Server) revocationTTL() time.Duration {
	t := timing(&s.cfg.Tokens)
	return t.RevocationTTL()
}

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

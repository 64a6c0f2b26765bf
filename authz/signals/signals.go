package signals

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// The paths of the endpoints. Each accepts POST only.
const (
	RevokePath = "/oauth2/revoke"           // RFC 7009
	LogoutPath = "/oidc/backchannel-logout" // OpenID Connect Back-Channel Logout 1.0
	EventsPath = "/ssf/events"              // RFC 8935
)

// Revoker makes a record durable and applies it. A repeated record MUST change nothing. revocation.Set is a Revoker.
type Revoker interface {
	Revoke(ctx context.Context, r revocation.Record) (revocation.Record, error)
}

// Verifier checks what issuers signed.
//
// Its errors are *authz.TokenError and MUST NOT quote the token; any other error counts as unavailable. A statement that it
// returns has a configured issuer, and an iat that is not in the future by more than clocks may differ.
type Verifier interface {
	// Inspect returns the facts about an access token. It ignores revocations.
	Inspect(ctx context.Context, text string) authz.TokenFact
	// Logout verifies the signature, issuer, audience, typ, iat and exp of a logout token, and no other claim.
	Logout(ctx context.Context, text string) (authz.Statement, error)
	// Event verifies the same claims of a security event token, except exp, which such a token does not have.
	Event(ctx context.Context, text string) (authz.Statement, error)
}

// Options are the operator's settings.
type Options struct {
	// Clients are the secrets of the clients that may revoke tokens, by client id. Each may revoke any token, because only
	// the issuer knows which client a token was issued to. A client without a secret is refused. If there are no clients, every
	// revocation is refused.
	Clients map[string]string
	// EventAuthorization is the value that the Authorization header of a push must have, such as "Bearer ...". It is
	// agreed with the transmitter as authorization_header (SSF 1.0 section 6.1.1). Empty: the signature is enough.
	EventAuthorization string
	// MaxLifetime is the longest that any token can live. Records for a user or a session are kept that long. Zero:
	// forever.
	MaxLifetime time.Duration
	Now         func() time.Time // nil: time.Now
	// Refused is called for every request that an endpoint refuses; nil: they are not counted. The log has only some of
	// them.
	Refused func(endpoint string)
}

// endpoints is the state that the three endpoints share.
type endpoints struct {
	verifier Verifier
	revoker  Revoker
	opt      Options
	clients  map[string][sha256.Size]byte // hashes of the secrets
	log      *slog.Logger

	logouts, events *jtiCache // acknowledged statements
}

// Handler serves the three endpoints. Each authenticates its own callers, so a proxy in front need not.
func Handler(v Verifier, r Revoker, opt Options, log *slog.Logger) http.Handler {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	es := &endpoints{verifier: v, revoker: r, opt: opt, clients: make(map[string][sha256.Size]byte), log: log}
	for id, secret := range opt.Clients {
		if secret != "" {
			es.clients[id] = sha256.Sum256([]byte(secret))
		}
	}
	remember := opt.MaxLifetime
	if remember <= 0 {
		remember = 24 * time.Hour
	}
	es.logouts, es.events = newJTICache(remember), newJTICache(remember)
	if opt.Refused == nil {
		opt.Refused = func(string) {}
	}
	// Without this, net/http would log every query with a semicolon, and the query is not even read.
	return http.AllowQuerySemicolons(routes{
		log: log, now: opt.Now, refused: opt.Refused, anonymous: &throttle{}, authenticated: &throttle{},
		byPath: map[string]endpoint{
			RevokePath: {es.revoke, http.StatusOK, oauthError},
			LogoutPath: {es.logout, http.StatusOK, oauthError},
			EventsPath: {es.push, http.StatusAccepted, eventError},
		},
	})
}

// keep makes records durable and applies them, in their order. After an error some of them may be kept. Repeating the call is
// safe.
func (es *endpoints) keep(ctx context.Context, records []revocation.Record) error {
	for _, r := range records {
		if _, err := es.revoker.Revoke(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// expiry returns when every token issued at that instant, or before now, has expired. Zero: never.
func (es *endpoints) expiry(issued time.Time) time.Time {
	if es.opt.MaxLifetime <= 0 {
		return time.Time{}
	}
	return later(issued, es.opt.Now()).Add(es.opt.MaxLifetime + revocation.ClockMargin)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// kindNames lists the kinds of records for the log.
func kindNames(records []revocation.Record) []string {
	var out []string
	for _, r := range records {
		name := string(r.Kind)
		if r.Lifted {
			name += " lifted"
		}
		out = append(out, name)
	}
	return out
}

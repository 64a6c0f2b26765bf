// Package signals is the door through which others say who is to be cut off: clients that revoke a token (RFC 7009),
// issuers that log a user out (OpenID Connect Back-Channel Logout 1.0), and transmitters that push security events
// (RFC 8935, with the events of CAEP 1.0 and RISC 1.0). What they say becomes records of package revocation, and nothing
// is acknowledged before its records are durable.
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

// The paths of the endpoints. Each takes POST and nothing else.
const (
	RevokePath = "/oauth2/revoke"           // RFC 7009
	LogoutPath = "/oidc/backchannel-logout" // OpenID Connect Back-Channel Logout 1.0
	EventsPath = "/ssf/events"              // RFC 8935
)

// Revoker makes a record durable and applies it; revocation.Set does. A record that it was given before changes nothing.
type Revoker interface {
	Revoke(ctx context.Context, r revocation.Record) (revocation.Record, error)
}

// Verifier checks what issuers signed.
//
// Its errors are *authz.TokenError and never quote the token; any other error counts as unavailable. The statements it
// returns have an issuer that is configured, and an iat that is not in the future beyond what clocks may differ by.
type Verifier interface {
	// Inspect says what is known of an access token. It does not look at revocations.
	Inspect(ctx context.Context, text string) authz.TokenFact
	// Logout verifies a logout token: signature, issuer, audience, typ, iat and exp. What its claims mean is not its
	// business.
	Logout(ctx context.Context, text string) (authz.Statement, error)
	// Event verifies a security event token likewise, but for exp, which such a token does not have.
	Event(ctx context.Context, text string) (authz.Statement, error)
}

// Options are what the operator chooses.
type Options struct {
	// Clients are the secrets of those who may revoke tokens, by client id. Each may revoke any token, for who it was
	// issued to is known to its issuer alone. A client without a secret is refused, and without any client everybody is.
	Clients map[string]string
	// EventAuthorization is the value that the Authorization header of a push must have, such as "Bearer ..."; it is
	// agreed with the transmitter as authorization_header (SSF 1.0 section 6.1.1). Empty: the signature alone counts.
	EventAuthorization string
	// MaxLifetime is the longest that any token can live: a record for a user or a session is kept for as long. Zero:
	// for good.
	MaxLifetime time.Duration
	Now         func() time.Time // nil: time.Now
	// Refused is called for every request that an endpoint refuses; nil: nobody counts them. The log has some of them only.
	Refused func(endpoint string)
}

// door is what the endpoints share.
type door struct {
	verifier Verifier
	revoker  Revoker
	opt      Options
	clients  map[string][sha256.Size]byte // hashes of the secrets
	log      *slog.Logger

	// What was acknowledged, by issuer and jti.
	logouts, events *seen
}

// Handler serves the three endpoints. It needs no authentication in front: each endpoint has its own.
func Handler(v Verifier, r Revoker, opt Options, log *slog.Logger) http.Handler {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	d := &door{verifier: v, revoker: r, opt: opt, clients: make(map[string][sha256.Size]byte), log: log}
	for id, secret := range opt.Clients {
		if secret != "" {
			d.clients[id] = sha256.Sum256([]byte(secret))
		}
	}
	remember := opt.MaxLifetime
	if remember <= 0 {
		remember = 24 * time.Hour
	}
	d.logouts, d.events = newSeen(remember), newSeen(remember)
	if opt.Refused == nil {
		opt.Refused = func(string) {}
	}
	// The semicolons of a query, which is not looked at, would be a line in the log of net/http each time.
	return http.AllowQuerySemicolons(routes{log: log, now: opt.Now, refused: opt.Refused, strangers: &throttle{}, known: &throttle{}, endpoints: map[string]endpoint{
		RevokePath: {d.revoke, http.StatusOK, oauthError},
		LogoutPath: {d.logout, http.StatusOK, oauthError},
		EventsPath: {d.push, http.StatusAccepted, eventError},
	}})
}

// keep makes records durable and applies them, in their order. After an error some of them may be; to keep all of them
// again is safe.
func (d *door) keep(ctx context.Context, records []revocation.Record) error {
	for _, r := range records {
		if _, err := d.revoker.Revoke(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// expiry returns from when on nothing can be valid that was issued at that instant or before now, or zero if that never is.
func (d *door) expiry(issued time.Time) time.Time {
	if d.opt.MaxLifetime <= 0 {
		return time.Time{}
	}
	return later(issued, d.opt.Now()).Add(d.opt.MaxLifetime + revocation.ClockMargin)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// kinds names the kinds of records for the log.
func kinds(records []revocation.Record) []string {
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

package admin

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Tokens verifies bearer tokens. It does not know what is revoked.
type Tokens interface {
	Inspect(ctx context.Context, text string) authz.TokenFact
}

// TokenInspect asks about a token.
type TokenInspect struct {
	Token string `json:"token"`
}

// TokenView is what is known about a token.
type TokenView struct {
	Status    string         `json:"status"`
	Fault     string         `json:"fault,omitempty"`
	Issuer    string         `json:"issuer,omitempty"`
	ID        string         `json:"id,omitempty"`
	Subject   string         `json:"subject,omitempty"`
	Session   string         `json:"session,omitempty"`
	Client    string         `json:"client,omitempty"`
	Account   string         `json:"account,omitempty"`
	Plan      string         `json:"plan,omitempty"`
	Scopes    []string       `json:"scopes,omitempty"`
	IssuedAt  time.Time      `json:"issued_at,omitzero"`
	ExpiresAt time.Time      `json:"expires_at,omitzero" doc:"From when it is not accepted any more."`
	Claims    map[string]any `json:"claims,omitempty"`
}

// TokenRevoke names the tokens to revoke: one by its text, or all that have something in common.
type TokenRevoke struct {
	Token  string    `json:"token,omitempty"`
	Kind   string    `json:"kind,omitempty" enum:"jti,sid,sub,client,signing_key,suspension"`
	Value  string    `json:"value,omitempty"`
	Issuer string    `json:"issuer,omitempty" doc:"Absent: the only one that is configured."`
	Before time.Time `json:"before,omitzero" doc:"For sub and client: tokens whose iat is not later. Absent: now, and tokens.skew on top for issuers whose clocks are ahead."`
	Lift   bool      `json:"lift,omitempty" doc:"Ends a suspension."`
	Cause  string    `json:"cause,omitempty"`
}

// Revocation is one record of the revocation list.
type Revocation struct {
	Revision  uint64    `json:"revision"`
	Kind      string    `json:"kind"`
	Issuer    string    `json:"issuer,omitempty"`
	Value     string    `json:"value"`
	Before    time.Time `json:"before,omitzero"`
	At        time.Time `json:"at"`
	Cause     string    `json:"cause,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Lifted    bool      `json:"lifted,omitempty"`
}

func (s *Service) inspectToken(ctx context.Context, text string) (TokenView, error) {
	if s.Tokens == nil {
		return TokenView{}, noIssuers()
	}
	t := s.Tokens.Inspect(ctx, strings.TrimSpace(text))
	if t.Status == authz.TokenValid && s.Revocations.Token(&t) {
		t.Status = authz.TokenRevoked
	}
	return TokenView{
		Status: string(t.Status), Fault: t.Fault, Issuer: t.Issuer, ID: t.ID, Subject: t.Subject, Session: t.Session, Client: t.Client,
		Account: t.Account, Plan: t.Plan, Scopes: t.Scopes, IssuedAt: t.IssuedAt, ExpiresAt: t.ExpiresAt, Claims: t.Claims,
	}, nil
}

func noIssuers() error {
	return authz.Errorf(authz.KindInvalid, "no tokens are understood: configure tokens.issuers")
}

// revokeTokens revokes what the operator names. When it returns, the record is durable and in force.
func (s *Service) revokeTokens(ctx context.Context, in TokenRevoke) (Revoked, error) {
	if (in.Token == "") == (in.Kind == "") {
		return Revoked{}, authz.Errorf(authz.KindInvalid, "give a token, or what its tokens have in common")
	}
	if in.Token != "" {
		return s.revokeToken(ctx, strings.TrimSpace(in.Token), in.Cause)
	}
	r, err := s.tokenRecord(in)
	if err != nil {
		return Revoked{}, err
	}
	if in.Lift { // a misspelt subject would lift nothing
		was, ok, err := s.Revoked.Get(ctx, r.Kind, r.Issuer, r.Value)
		if err == nil && (!ok || was.Lifted) {
			err = authz.Errorf(authz.KindNotFound, "subject %q of %s is not suspended", r.Value, r.Issuer)
		}
		if err != nil {
			return Revoked{}, err
		}
	}
	return s.revoke(ctx, r)
}

// tokenRecord makes the record that revokes all tokens of a kind.
func (s *Service) tokenRecord(in TokenRevoke) (revocation.Record, error) {
	now := s.Now().UTC()
	r := revocation.Record{
		Kind: revocation.Kind(in.Kind), Issuer: in.Issuer, Value: in.Value, At: now, Cause: in.Cause, ExpiresAt: now.Add(s.RevocationTTL + revocation.ClockMargin),
	}
	if r.Issuer == "" && len(s.Issuers) == 1 {
		r.Issuer = s.Issuers[0]
	}
	if err := s.checkIssuer(&r); err != nil {
		return r, err
	}
	switch r.Kind {
	case revocation.KindSubject, revocation.KindClient:
		// The clock of the issuer may be ahead, and so may the iat of a token that was issued just now. A customer who signs in
		// within that time may have to do so again. Without the margin, old tokens would live on.
		if r.Before = in.Before; r.Before.IsZero() {
			r.Before = now.Add(s.Skew)
		}
		if r.Before.After(now) { // tokens issued until then live for that much longer
			r.ExpiresAt = r.Before.Add(s.RevocationTTL + revocation.ClockMargin)
		}
	case revocation.KindSuspension:
		if r.Lifted = in.Lift; !in.Lift {
			r.ExpiresAt = time.Time{} // until an operator lifts it
		}
	case revocation.KindSigningKey:
		r.ExpiresAt = time.Time{} // a stolen key can sign tokens for as long as it is published
	}
	if in.Lift && r.Kind != revocation.KindSuspension {
		return r, authz.Errorf(authz.KindInvalid, "only a suspension can be lifted: what is revoked stays revoked")
	}
	return r, nil
}

// checkIssuer refuses a record that could match no token.
func (s *Service) checkIssuer(r *revocation.Record) error {
	switch {
	case r.Issuer == "":
		return authz.Errorf(authz.KindInvalid, "name the issuer: one of %s", namesOf(s.Issuers))
	case !slices.Contains(s.Issuers, r.Issuer):
		return authz.Errorf(authz.KindInvalid, "no issuer is called %q: want one of %s", r.Issuer, namesOf(s.Issuers))
	case r.Kind == revocation.KindSigningKey && !slices.Contains(s.Signers, r.Issuer):
		return authz.Errorf(authz.KindInvalid,
			"the key that signed a token of %q is not known here: remove the key where its tokens are verified, or revoke by sub or client", r.Issuer)
	}
	return nil
}

func namesOf(issuers []string) string {
	return cmp.Or(strings.Join(issuers, ", "), "none, for none is configured")
}

// revokeToken revokes one token by its text, and by its jti if it has one. A token that cannot be verified now is revoked by
// its text: it may turn out to be valid.
func (s *Service) revokeToken(ctx context.Context, text, cause string) (Revoked, error) {
	if s.Tokens == nil {
		return Revoked{}, noIssuers()
	}
	t := s.Tokens.Inspect(ctx, text)
	switch {
	case t.Status == authz.TokenUnavailable:
		t.Digest = credential.TokenDigest(text)
	case !t.Known():
		return Revoked{}, authz.Errorf(authz.KindInvalid, "the token is %s, and so is refused already", strings.ReplaceAll(string(t.Status), "_", " "))
	}
	var out Revoked
	for _, r := range revocation.OfToken(&t, s.Now().UTC(), cause) {
		var err error
		if out, err = s.revoke(ctx, r); err != nil {
			return Revoked{}, err
		}
	}
	return out, nil
}

// revocations lists records after a revision, the earliest change first.
func (s *Service) revocations(ctx context.Context, after uint64, limit int) ([]Revocation, error) {
	records, err := s.Revoked.Since(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Revocation, len(records))
	for i, r := range records {
		out[i] = Revocation{
			Revision: r.Revision, Kind: string(r.Kind), Issuer: r.Issuer, Value: r.Value, Before: r.Before, At: r.At, Cause: r.Cause,
			ExpiresAt: r.ExpiresAt, Lifted: r.Lifted,
		}
	}
	return out, nil
}

package check

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
)

// Keys finds out whose a key is.
type Keys interface {
	// Identify returns what is known about a key text at that instant. It does not fail: what it cannot find out is
	// a status. It knows nothing of revocation.
	Identify(ctx context.Context, text string, now time.Time) (authz.KeyFact, authz.AccountFact)
	// Account returns what is known about an account.
	Account(ctx context.Context, id string) authz.AccountFact
}

// Tokens finds out what a bearer token is worth. As Keys, it does not fail, and knows nothing of revocation.
type Tokens interface {
	// IsToken reports whether a bearer text that is no key that is known here can be a token's.
	IsToken(text string) bool
	// Identify and FromProxy must not keep what they are given.
	Identify(ctx context.Context, b *authz.Bearer, now time.Time) authz.TokenFact
	// FromProxy returns what is known about a token that the proxy has verified, by the metadata of its filters and the
	// token's text if the request has it, and false if there is none.
	FromProxy(ctx context.Context, filters map[string]any, b *authz.Bearer, now time.Time) (authz.TokenFact, bool)
}

// Revocations says who is cut off.
type Revocations interface {
	Key(id string) bool
	Account(id string, issued time.Time) bool
	Token(t *authz.TokenFact) bool
	Stale() bool
}

// identify finds the credentials and what is known about them. It judges nothing.
func (a *attempt) identify(ctx context.Context) {
	a.facts.Token.Status = authz.TokenMissing
	a.facts.Account.Status = authz.AccountUnknown
	a.facts.Revocation.Stale = a.revocations.Stale()
	a.opt.Credentials.find(&a.credentials, a.request, a.opt.Tokens)
	patient := a.patient(ctx)
	known := a.tellBearer(patient)
	switch key := &a.facts.Key; {
	case a.credentials.ambiguous:
		a.facts.Account = authz.AccountFact{Status: authz.AccountUnknown}
		*key = authz.KeyFact{Status: authz.KeyAmbiguous}
	case a.credentials.text == "":
		key.Status = authz.KeyMissing
	default:
		if !known {
			a.facts.Key, a.facts.Account = a.keys.Identify(patient, a.credentials.text, a.began)
		}
		if key.Found() && (a.revocations.Key(key.ID) || a.revocations.Account(key.Account, key.CreatedAt)) {
			key.Status = authz.KeyRevoked
		}
	}
	if a.opt.Tokens != nil && !a.credentials.ambiguous {
		a.identifyToken(ctx)
	}
}

// tellBearer says of what came by the bearer scheme whether it is a key or a token. Keys are looked up first: those that
// were imported have any form, that of a token too, and a text that may be a key must not be shown to a token's server.
// It reports whether the facts about the request's key are there by that.
func (a *attempt) tellBearer(ctx context.Context) bool {
	c, tokens := &a.credentials, a.opt.Tokens
	here := place{"header", "authorization"}
	switch {
	case c.bearer == "" || c.ambiguous:
		return false
	case !a.opt.Credentials.Bearer: // keys do not come this way, and the verifier keeps those that do to itself
		if tokens != nil && tokens.IsToken(c.bearer) {
			c.token = c.bearer
		}
		return false
	case c.bearer == c.text:
		c.add(here, c.bearer)
		return false
	}
	key, account := a.keys.Identify(ctx, c.bearer, a.began)
	if key.Status == authz.KeyUnknown || key.Status == authz.KeyMalformed {
		switch {
		case tokens != nil && tokens.IsToken(c.bearer):
			c.token = c.bearer
			return false
		case credential.LooksLikeJWT(c.bearer): // the upstream's business, while no issuer is trusted
			return false
		}
	}
	alone := c.text == ""
	c.add(here, c.bearer)
	if alone {
		a.facts.Key, a.facts.Account = key, account
	}
	return alone
}

// identifyToken does the same for the bearer token. Whether it was revoked is asked every time, however long ago its
// signature was verified.
func (a *attempt) identifyToken(ctx context.Context) {
	ctx = a.patient(ctx)
	token := &a.facts.Token
	b := &a.credentials.shown
	b.Text = a.credentials.token
	if from := a.request.Source; from != nil {
		b.Certificate = from.Certificate
		if from.Address != nil && from.Address.Socket != nil {
			b.Peer = from.Address.Socket.Address
		}
	}
	vouched := false
	if m := a.request.Metadata; m != nil {
		*token, vouched = a.opt.Tokens.FromProxy(ctx, m.Filter, b, a.began)
	}
	switch {
	case vouched:
	case b.Text != "":
		*token = a.opt.Tokens.Identify(ctx, b, a.began)
	default:
		token.Status = authz.TokenMissing
	}
	if token.Status == authz.TokenValid && a.revocations.Token(token) {
		token.Status = authz.TokenRevoked
	}
	if a.facts.Key.Status == authz.KeyMissing && token.Status == authz.TokenValid && token.Account != "" {
		a.facts.Account = a.accountOf(ctx, token)
	}
}

// accountOf is who pays for a caller that has only a token: the account that its issuer names. An issuer that names the
// plan as well may have customers of whom nothing else is known here.
func (a *attempt) accountOf(ctx context.Context, token *authz.TokenFact) authz.AccountFact {
	account := a.keys.Account(ctx, token.Account)
	if token.Plan == "" {
		return account
	}
	if account.Status == authz.AccountUnknown {
		account.ID, account.Status = token.Account, authz.AccountActive
	}
	account.Plan = token.Plan
	return account
}

// peek looks at the limits of the plan. Only a good credential has any: a stranger learns nothing of anybody's quota.
func (a *attempt) peek(ctx context.Context) {
	switch key, token, account := &a.facts.Key, &a.facts.Token, &a.facts.Account; {
	case key.Status == authz.KeyActive:
		a.plan, a.holder = key.Plan, authz.Holder{Key: key.Lineage, Account: key.Account}
	case key.Status == authz.KeyMissing && token.Status == authz.TokenValid && account.ID != "":
		a.plan, a.holder = account.Plan, authz.Holder{
			Key: authz.BearerHolder(account.ID, token.Issuer, token.Subject, token.Client), Account: account.ID,
		}
	default:
		return
	}
	a.limits = a.rules.Plans[a.plan]
	if len(a.limits) > 0 {
		a.facts.Quota = a.quotaFacts()
		a.meter.Peek(a.patient(ctx), a.holder, a.limits, a.facts.Quota)
	}
}

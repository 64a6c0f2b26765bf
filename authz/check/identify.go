package check

import (
	"context"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
)

// identifyKey collects the facts about the key. First it finds out whether the bearer credential is a key.
func (e *evaluation) identifyKey(ctx context.Context) {
	known := e.classifyBearer(ctx)
	switch key := &e.facts.Key; {
	case e.credentials.ambiguous:
		e.facts.Account = authz.AccountFact{Status: authz.AccountUnknown}
		*key = authz.KeyFact{Status: authz.KeyAmbiguous}
	case e.credentials.key == "":
		key.Status = authz.KeyMissing
	default:
		if !known {
			e.facts.Key, e.facts.Account = e.keys.Identify(ctx, e.credentials.key, e.began)
		}
		if key.Found() && (e.revocations.Key(key.ID) || e.revocations.Account(key.Account, key.CreatedAt)) {
			key.Status = authz.KeyRevoked
		}
	}
}

// classifyBearer decides whether the bearer credential is a key or a token. It looks for a key first: an imported key may
// look like a token, and a text that may be a key must not be sent to a token server. It reports whether it has set the facts
// about the request's key.
func (e *evaluation) classifyBearer(ctx context.Context) bool {
	c, tokens := &e.credentials, e.opt.Tokens
	from := place{"header", "authorization"}
	switch {
	case c.bearer == "" || c.ambiguous:
		return false
	case !e.opt.Credentials.Bearer: // no keys come this way, and IsToken refuses those that do
		if tokens != nil && tokens.IsToken(c.bearer) {
			c.token.Text = c.bearer
		}
		return false
	case c.bearer == c.key:
		c.addKey(from, c.bearer)
		return false
	}
	key, account := e.keys.Identify(ctx, c.bearer, e.began)
	if key.Status == authz.KeyUnknown || key.Status == authz.KeyMalformed {
		switch {
		case tokens != nil && tokens.IsToken(c.bearer):
			c.token.Text = c.bearer
			return false
		case credential.LooksLikeJWT(c.bearer): // no issuer is trusted, so tokens are left to the upstream
			return false
		}
	}
	only := c.key == ""
	c.addKey(from, c.bearer)
	if only {
		e.facts.Key, e.facts.Account = key, account
	}
	return only
}

// identifyToken collects the facts about the bearer token. It looks up revocations every time, even if the token was verified
// before.
func (e *evaluation) identifyToken(ctx context.Context) {
	token, b := &e.facts.Token, &e.credentials.token
	if from := e.request.Source; from != nil {
		b.Certificate = from.Certificate
		if from.Address != nil && from.Address.Socket != nil {
			b.Peer = from.Address.Socket.Address
		}
	}
	byProxy := false
	if m := e.request.Metadata; m != nil {
		*token, byProxy = e.opt.Tokens.FromProxy(ctx, m.Filter, b, e.began)
	}
	switch {
	case byProxy:
	case b.Text != "":
		*token = e.opt.Tokens.Identify(ctx, b, e.began)
	default:
		token.Status = authz.TokenMissing
	}
	if token.Status == authz.TokenValid && e.revocations.Token(token) {
		token.Status = authz.TokenRevoked
	}
	if e.facts.Key.Status == authz.KeyMissing && token.Status == authz.TokenValid && token.Account != "" {
		e.facts.Account = e.accountOf(ctx, token)
	}
}

// accountOf is the account of a caller who has only a token: the token names it. If the token names the plan too, the account
// need not exist here.
func (e *evaluation) accountOf(ctx context.Context, token *authz.TokenFact) authz.AccountFact {
	account := e.keys.Account(ctx, token.Account)
	if token.Plan == "" {
		return account
	}
	if account.Status == authz.AccountUnknown {
		account.ID, account.Status = token.Account, authz.AccountActive
	}
	account.Plan = token.Plan
	return account
}

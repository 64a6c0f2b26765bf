package token

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
)

// IsToken reports whether the text of an Authorization field is a token's and not a key's. JSON Web Tokens are, where
// any issuer is trusted; other texts are where somebody can be asked about them, unless they are keys of our own form.
func (v *Verifier) IsToken(text string) bool {
	if credential.LooksLikeJWT(text) {
		return true
	}
	return v.introspector != nil && !v.opt.IsKey(text)
}

// Identify returns what is known about a token at that instant. It does not fail: what it cannot find out is a status.
// A token that was verified before costs a hash and a look into memory; one that was not, a signature, or a call to its
// issuer that the context bounds.
func (v *Verifier) Identify(ctx context.Context, b *authz.Bearer, now time.Time) authz.TokenFact {
	if len(b.Text) > v.opt.MaxBytes {
		return factOf(malformed("a token of %d bytes: %d are read", len(b.Text), v.opt.MaxBytes))
	}
	k := cacheKey{sum: sha256.Sum256([]byte(b.Text)), epoch: v.epoch.Load()}
	t := v.remembered(k, now)
	if t == nil {
		var err error
		if t, err = v.verify(ctx, b, k, now); err != nil {
			return factOf(err)
		}
	}
	return v.state(ctx, t, b, now)
}

// remembered is a token that was verified before, nil if there is none, or if its server has to be asked again.
func (v *Verifier) remembered(k cacheKey, now time.Time) *verified {
	t, ok := v.cache.GetIfPresent(k)
	switch {
	case !ok, !t.recheck.IsZero() && !now.Before(t.recheck):
		return nil
	case t.keys != nil && t.keys.current() == nil: // a signature is good for as long as its key is trusted
		return nil
	}
	return t
}

// Inspect is Identify at the present time, for who wants to know and not to enter. A token of an issuer that is left to
// the proxy is unavailable: it may be good, and nobody here can tell. By what it says of itself it can be revoked: the
// proxy need not forward its text.
func (v *Verifier) Inspect(ctx context.Context, text string) authz.TokenFact {
	now := v.opt.Now()
	if fact, ok := v.leftToProxy(text, now); ok {
		return fact
	}
	return v.Identify(ctx, &authz.Bearer{Text: text}, now)
}

// state is the fact about a verified token at that instant, as that request brought it.
func (v *Verifier) state(ctx context.Context, t *verified, b *authz.Bearer, now time.Time) authz.TokenFact {
	fact := t.fact
	switch skew := v.opt.Timing.Skew; {
	case fact.Status != authz.TokenValid:
	case !t.until.IsZero() && !now.Before(t.until):
		fact.Status = authz.TokenExpired
	// One that was made in the future would escape from every revocation until then.
	case now.Add(skew).Before(t.notBefore), now.Add(skew).Before(fact.IssuedAt):
		fact.Status = authz.TokenNotYetValid
	default:
		fact.Status, fact.Fault = t.binding.proven(b.Certificate, v.opt.AcceptBound)
		if fact.Status == authz.TokenValid && t.status != nil {
			fact.Status = v.lists.state(ctx, t.status, now)
		}
	}
	return fact
}

// verify does what is done once for every token, and remembers it. A token of which there is nothing to remember is an
// error.
func (v *Verifier) verify(ctx context.Context, b *authz.Bearer, k cacheKey, now time.Time) (*verified, error) {
	if !credential.LooksLikeJWT(b.Text) {
		return v.introspect(ctx, b, k, now)
	}
	p, err := parse(b.Text, v.opt.MaxBytes)
	if err != nil {
		return nil, err
	}
	is, err := v.issuerOf(p)
	if err != nil {
		if v.introspector == nil {
			return nil, err
		}
		if !notOther(kindOf(p.typ)) { // its server may call it active all the same
			return nil, otherType(p)
		}
		return v.introspect(ctx, b, k, now)
	}
	if is.keys == nil {
		return nil, refuse(authz.TokenUntrustedIssuer, "the proxy, to which the issuer %q is left, did not vouch for it", is.Name)
	}
	if !p.forAccess() {
		return nil, otherType(p)
	}
	kid, err := is.signature(ctx, p)
	if err != nil {
		return nil, err
	}
	t, err := v.describe(is, p.claims)
	if err != nil {
		return nil, err
	}
	t.fact.Digest, t.fact.SigningKey, t.keys = credential.TokenDigest(b.Text), kid, is.keys
	v.cache.Set(k, t)
	return t, nil
}

func factOf(err error) authz.TokenFact {
	var e *authz.TokenError
	if errors.As(err, &e) {
		return authz.TokenFact{Status: e.Status, Fault: e.Text}
	}
	return authz.TokenFact{Status: authz.TokenUnavailable, Fault: err.Error()}
}

// issuerOf finds whose a token claims to be.
func (v *Verifier) issuerOf(p *parsed) (*issuer, error) {
	name, err := text(p.claims, "iss")
	if err != nil {
		return nil, err
	}
	is, ok := v.issuers[name]
	if !ok {
		return nil, refuse(authz.TokenUntrustedIssuer, "the issuer %.256q is not trusted", name)
	}
	return is, nil
}

// signature verifies the signature with the keys that the issuer's configuration leads to and an algorithm that it
// allows, and returns the kid of the key that made it.
func (is *issuer) signature(ctx context.Context, p *parsed) (kid string, err error) {
	if !slices.ContainsFunc(is.Algorithms, func(a string) bool { return canonical(a) == canonical(p.alg) }) {
		return "", refuse(authz.TokenBadSignature, "the algorithm %.32q is not one of the issuer's", p.alg)
	}
	set := is.keys.current()
	kid, named, ok := set.verify(p)
	// A key that is not there, or that its kid does not tell from the one before it, may have been published since.
	if !ok && !named && is.keys.missing(ctx, set) {
		set = is.keys.current()
		kid, _, ok = set.verify(p)
	}
	switch {
	case ok:
		return kid, nil
	case set == nil:
		return "", refuse(authz.TokenUnavailable, "the keys of the issuer cannot be had")
	case len(set.faulty) > 0:
		return "", refuse(authz.TokenBadSignature, "no key of the issuer that can be used made the signature: %s", someOf(set.faulty))
	}
	return "", refuse(authz.TokenBadSignature, "no key of the issuer made the signature")
}

// verify finds the key that made a signature, and reports whether the signature names one of the set's.
func (s *keySet) verify(p *parsed) (kid string, named, ok bool) {
	if s == nil {
		return "", false, false
	}
	candidates, named := s.find(p.kid, p.alg)
	for _, k := range candidates {
		if _, err := jws.Verify([]byte(p.text), jws.WithKey(algorithms[p.alg].alg, k.raw)); err == nil {
			return cmp.Or(k.kid, p.kid), named, true
		}
	}
	return "", named, false
}

// describe reads the claims of a token whose signature is good. A token for somebody else is described as what it is.
func (v *Verifier) describe(is *issuer, claims map[string]any) (*verified, error) {
	t := &verified{fact: authz.TokenFact{Status: authz.TokenValid, Issuer: is.Name, Claims: claims, Scopes: scopes(claims)}}
	if err := v.times(claims, t); err != nil {
		return nil, err
	}
	// Without iat nobody could be logged out everywhere, and nobody could say when what revokes it may be forgotten.
	if claims["exp"] == nil || t.fact.IssuedAt.IsZero() {
		return nil, malformed("a token needs exp and iat")
	}
	if err := t.read(claims, is.payers(), notOther); err != nil {
		return nil, err
	}
	ours, err := addressed(claims, is.AudienceClaim, is.Audiences)
	if err != nil {
		return nil, err
	}
	if !ours {
		t.fact.Status, t.fact.Fault = authz.TokenWrongAudience, is.AudienceClaim+" names none of the audiences that are configured"
	}
	t.status, err = statusOf(is, claims)
	return t, err
}

// payers say how tokens name who pays.
type payers struct {
	account, plan string   // the claims
	may           []string // how the accounts begin that they may name; empty: any
}

// read reads the claims that mean the same wherever a token comes from. Only of token_type the caller says which will do.
func (t *verified) read(claims map[string]any, p payers, tokenType func(kind string) bool) (err error) {
	if err := forAccess(claims, tokenType); err != nil {
		return err
	}
	if t.binding, err = bindingOf(claims); err != nil {
		return err
	}
	for name, to := range map[string]*string{"jti": &t.fact.ID, "sub": &t.fact.Subject, "sid": &t.fact.Session} {
		if *to, err = text(claims, name); err != nil {
			return err
		}
	}
	for _, name := range []string{"azp", "client_id"} { // OpenID Connect Core section 2, RFC 8693 section 4.3
		s, err := text(claims, name)
		if err != nil {
			return err
		}
		t.fact.Client = cmp.Or(s, t.fact.Client)
	}
	t.fact.Account, t.fact.Plan, t.fact.Accountless = named(claims, p.account), named(claims, p.plan), p.account == ""
	if a := t.fact.Account; a != "" && len(p.may) > 0 && !slices.ContainsFunc(p.may, func(begin string) bool { return strings.HasPrefix(a, begin) }) {
		return refuse(authz.TokenUntrustedIssuer, "the issuer is not trusted to name the account %.256q", a)
	}
	return nil
}

// times reads when a token begins and ends.
func (v *Verifier) times(claims map[string]any, t *verified) error {
	exp, err := instant(claims, "exp")
	if err != nil {
		return err
	}
	if t.fact.IssuedAt, err = instant(claims, "iat"); err != nil {
		return err
	}
	if t.notBefore, err = instant(claims, "nbf"); err != nil {
		return err
	}
	if last := t.fact.IssuedAt.Add(v.opt.Timing.MaxLifetime); !t.fact.IssuedAt.IsZero() && (exp.IsZero() || exp.After(last)) {
		exp = last
	}
	if !exp.IsZero() {
		t.until = exp.Add(v.opt.Timing.Skew)
		t.fact.ExpiresAt = t.until
	}
	return nil
}

// named is a claim that names an account or a plan: a text, or a number as some number their customers.
func named(claims map[string]any, claim string) string {
	switch v := claims[claim].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// Logout verifies a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.6, steps 1 to 5).
func (v *Verifier) Logout(ctx context.Context, text string) (authz.Statement, error) {
	s, err := v.statement(ctx, text, []string{"", "jwt", "logout+jwt"}, func(i *Issuer) []string { return i.LogoutAudiences })
	switch {
	case err != nil:
		return authz.Statement{}, err
	case s.ExpiresAt.IsZero():
		return authz.Statement{}, malformed("a logout token needs exp")
	case !v.opt.Now().Before(s.ExpiresAt.Add(v.opt.Timing.Skew)):
		return authz.Statement{}, refuse(authz.TokenExpired, "the logout token has expired")
	}
	return s, nil
}

// Event verifies a security event token (RFC 8417 section 2.2, RFC 8935 section 2.3).
func (v *Verifier) Event(ctx context.Context, text string) (authz.Statement, error) {
	return v.statement(ctx, text, []string{"secevent+jwt"}, func(i *Issuer) []string { return i.EventAudiences })
}

// statement verifies what an issuer signed that is not an access token: of one of the types, and for one of the audiences.
func (v *Verifier) statement(ctx context.Context, raw string, types []string, wanted func(*Issuer) []string) (authz.Statement, error) {
	var none authz.Statement
	p, err := parse(strings.TrimSpace(raw), v.opt.MaxBytes)
	if err != nil {
		return none, err
	}
	is, err := v.issuerOf(p)
	switch {
	case err != nil:
		return none, err
	case is.keys == nil:
		return none, refuse(authz.TokenUntrustedIssuer, "the keys of the issuer %q are not configured here", is.Name)
	case !slices.Contains(types, p.typ):
		return none, malformed("a token of the type %.64q is not wanted here", p.typ)
	}
	if _, err := is.signature(ctx, p); err != nil {
		return none, err
	}
	s := authz.Statement{Issuer: is.Name, Claims: p.claims}
	ours, err := addressed(p.claims, "aud", wanted(&is.Issuer))
	if err != nil {
		return none, err
	}
	if !ours {
		return none, refuse(authz.TokenWrongAudience, "the audience is not one that is configured for this")
	}
	if s.ID, err = text(p.claims, "jti"); err != nil {
		return none, err
	}
	if s.IssuedAt, err = instant(p.claims, "iat"); err != nil {
		return none, err
	}
	if s.ExpiresAt, err = instant(p.claims, "exp"); err != nil {
		return none, err
	}
	switch {
	case s.IssuedAt.IsZero():
		return none, malformed("iat is missing")
	case v.opt.Now().Add(v.opt.Timing.Skew).Before(s.IssuedAt):
		return none, refuse(authz.TokenNotYetValid, "iat is in the future")
	}
	return s, nil
}

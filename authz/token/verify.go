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

// IsToken reports whether the text of an Authorization field is a token and not an API key. A JSON Web Token always is a
// token. Any other text is a token if introspection is configured and the text does not have the form of our keys.
func (v *Verifier) IsToken(text string) bool {
	if credential.LooksLikeJWT(text) {
		return true
	}
	return v.introspector != nil && !v.opt.IsKey(text)
}

// Identify returns what is known about a token at that instant. It never fails: what it cannot find out is a status. A token
// that was verified before costs a hash and a lookup in memory. A new one costs a signature check, or a call to its server,
// which the context bounds.
func (v *Verifier) Identify(ctx context.Context, b *authz.Bearer, now time.Time) authz.TokenFact {
	if len(b.Text) > v.opt.MaxBytes {
		return factOf(tooLong(b.Text, v.opt.MaxBytes))
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

// remembered returns a token that was verified before. It is nil if the token is new or has to be verified again.
func (v *Verifier) remembered(k cacheKey, now time.Time) *verified {
	t, ok := v.cache.GetIfPresent(k)
	switch {
	case !ok, !t.recheck.IsZero() && !now.Before(t.recheck):
		return nil
	case t.keys != nil && t.keys.current() == nil: // a signature is good only while its keys are trusted
		return nil
	}
	return t
}

// Inspect is Identify at the present time, for operators and revocation, without a request. A token that only the proxy can
// verify is unavailable, because it may be good. Its fact has what is needed to revoke it, also for a proxy that does not
// forward its text.
func (v *Verifier) Inspect(ctx context.Context, text string) authz.TokenFact {
	now := v.opt.Now()
	if fact, ok := v.leftToProxy(text, now); ok {
		return fact
	}
	return v.Identify(ctx, &authz.Bearer{Text: text}, now)
}

// state returns the fact about a verified token at that instant, with the certificate that came with it.
func (v *Verifier) state(ctx context.Context, t *verified, b *authz.Bearer, now time.Time) authz.TokenFact {
	fact := t.fact
	switch skew := v.opt.Timing.Skew; {
	case fact.Status != authz.TokenValid:
	case !t.until.IsZero() && !now.Before(t.until):
		fact.Status = authz.TokenExpired
	// A token whose iat is in the future would escape every revocation with a revoked-before instant until then.
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

// verify does what is needed once for every token, and remembers the result. An error is not remembered here.
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
		if !mayBeAccess(kindOf(p.typ)) { // a server may call its refresh token active
			return nil, otherType(p)
		}
		return v.introspect(ctx, b, k, now)
	}
	if is.keys == nil {
		return nil, refuse(authz.TokenUntrustedIssuer, "the proxy verifies tokens of the issuer %q and did not vouch for this one", is.Name)
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

// issuerOf finds the issuer that a token names.
func (v *Verifier) issuerOf(p *parsed) (*issuer, error) {
	name, err := textClaim(p.claims, "iss")
	if err != nil {
		return nil, err
	}
	is, ok := v.issuers[name]
	if !ok {
		return nil, refuse(authz.TokenUntrustedIssuer, "the issuer %.256q is not trusted", name)
	}
	return is, nil
}

// signature verifies a signature with the issuer's keys and one of its allowed algorithms. It returns the kid of the key
// that made the signature.
func (is *issuer) signature(ctx context.Context, p *parsed) (kid string, err error) {
	if !slices.ContainsFunc(is.Algorithms, func(a string) bool { return canonical(a) == canonical(p.alg) }) {
		return "", refuse(authz.TokenBadSignature, "the algorithm %.32q is not one of the issuer's", p.alg)
	}
	set := is.keys.current()
	kid, named, ok := set.verify(p)
	// The issuer may have published the key since the last fetch. Keys without a kid cannot be told from their successors.
	if !ok && !named && is.keys.fetchMissing(ctx, set) {
		set = is.keys.current()
		kid, _, ok = set.verify(p)
	}
	switch {
	case ok:
		return kid, nil
	case set == nil:
		return "", refuse(authz.TokenUnavailable, "the keys of the issuer cannot be fetched")
	case len(set.faulty) > 0:
		return "", refuse(authz.TokenBadSignature, "no usable key of the issuer made the signature: %s", firstFew(set.faulty))
	}
	return "", refuse(authz.TokenBadSignature, "no key of the issuer made the signature")
}

// verify finds the key that made a signature. named reports whether the signature names a key of the set.
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

// describe reads the claims of a token whose signature is good. A token for another audience is no error but a status.
func (v *Verifier) describe(is *issuer, claims map[string]any) (*verified, error) {
	t := &verified{fact: authz.TokenFact{Status: authz.TokenValid, Issuer: is.Name, Claims: claims, Scopes: scopes(claims)}}
	if err := v.times(claims, t); err != nil {
		return nil, err
	}
	// Without iat, a revoked-before record could not match, and nothing would say when its revocation may be forgotten.
	if claims["exp"] == nil || t.fact.IssuedAt.IsZero() {
		return nil, malformed("a token needs exp and iat")
	}
	if err := t.read(claims, is.payers(), mayBeAccess); err != nil {
		return nil, err
	}
	ours, err := addressed(claims, is.AudienceClaim, is.Audiences)
	if err != nil {
		return nil, err
	}
	if !ours {
		t.fact.Status, t.fact.Fault = authz.TokenWrongAudience, is.AudienceClaim+" names none of the configured audiences"
	}
	t.status, err = statusOf(is, claims)
	return t, err
}

// payers says how tokens name who pays.
type payers struct {
	account, plan string   // names of the claims
	prefixes      []string // of the accounts that tokens may name; empty: any account
}

// read reads the claims that mean the same wherever a token comes from. The caller says which values of token_type are good.
func (t *verified) read(claims map[string]any, p payers, tokenType func(kind string) bool) (err error) {
	if err := forAccess(claims, tokenType); err != nil {
		return err
	}
	if t.binding, err = bindingOf(claims); err != nil {
		return err
	}
	for name, to := range map[string]*string{"jti": &t.fact.ID, "sub": &t.fact.Subject, "sid": &t.fact.Session} {
		if *to, err = textClaim(claims, name); err != nil {
			return err
		}
	}
	for _, name := range []string{"azp", "client_id"} { // OpenID Connect Core section 2, RFC 8693 section 4.3
		s, err := textClaim(claims, name)
		if err != nil {
			return err
		}
		t.fact.Client = cmp.Or(s, t.fact.Client)
	}
	t.fact.Account, t.fact.Plan, t.fact.Accountless = textOrNumber(claims, p.account), textOrNumber(claims, p.plan), p.account == ""
	hasPrefix := func(prefix string) bool { return strings.HasPrefix(t.fact.Account, prefix) }
	if a := t.fact.Account; a != "" && len(p.prefixes) > 0 && !slices.ContainsFunc(p.prefixes, hasPrefix) {
		return refuse(authz.TokenUntrustedIssuer, "the issuer is not trusted to name the account %.256q", a)
	}
	return nil
}

// times reads exp, iat and nbf.
func (v *Verifier) times(claims map[string]any, t *verified) error {
	exp, err := timeClaim(claims, "exp")
	if err != nil {
		return err
	}
	if t.fact.IssuedAt, err = timeClaim(claims, "iat"); err != nil {
		return err
	}
	if t.notBefore, err = timeClaim(claims, "nbf"); err != nil {
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

// textOrNumber reads a claim that names an account or a plan. It may be a number, because some services number their
// customers.
func textOrNumber(claims map[string]any, claim string) string {
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

// statement verifies a signed token that is not an access token: it must have one of the types and one of the audiences.
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
		return none, refuse(authz.TokenUntrustedIssuer, "the keys of the issuer %q are not configured", is.Name)
	case !slices.Contains(types, p.typ):
		return none, malformed("the typ is %.64q: want one of %q", p.typ, types)
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
		return none, refuse(authz.TokenWrongAudience, "aud names none of the audiences configured for such tokens")
	}
	if s.ID, err = textClaim(p.claims, "jti"); err != nil {
		return none, err
	}
	if s.IssuedAt, err = timeClaim(p.claims, "iat"); err != nil {
		return none, err
	}
	if s.ExpiresAt, err = timeClaim(p.claims, "exp"); err != nil {
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

package token

import (
	"context"
	"encoding/json"
	"reflect"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
)

// envoyFilter is the filter that verifies tokens in the proxy, under whose name it leaves their claims.
const envoyFilter = "envoy.filters.http.jwt_authn"

// FromProxy returns what is known about a token that the proxy has verified, by the metadata that it sent, and false if it
// sent none of an issuer whose tokens are left to it. The text is that of the token in the request, if there is one: it
// has to be the one that was verified. Of two tokens of such issuers nobody could say who pays, so there must be one.
func (v *Verifier) FromProxy(ctx context.Context, filters map[string]any, b *authz.Bearer, now time.Time) (authz.TokenFact, bool) {
	payloads, _ := filters[envoyFilter].(map[string]any)
	if payloads == nil {
		return authz.TokenFact{}, false
	}
	var by *issuer
	var claims map[string]any
	for _, is := range v.issuers {
		found, ok := payloads[is.Envoy].(map[string]any)
		if is.Envoy == "" || !ok || found["iss"] != is.Name {
			continue
		}
		if by != nil {
			return factOf(malformed("the proxy verified a token of %q and one of %q", by.Name, is.Name)), true
		}
		by, claims = is, found
	}
	if by == nil {
		return authz.TokenFact{}, false
	}
	t, err := v.vouched(by, claims, b.Text)
	if err != nil {
		return factOf(err), true
	}
	return v.state(ctx, t, b, now), true
}

// vouched describes a token that the proxy has verified.
func (v *Verifier) vouched(by *issuer, claims map[string]any, bearer string) (*verified, error) {
	if bearer != "" {
		if err := v.shown(bearer, claims); err != nil {
			return nil, err
		}
	}
	claims, err := exact(claims)
	if err != nil {
		return nil, malformed("the claims that the proxy sent: %v", err)
	}
	t, err := v.describe(by, claims)
	if err != nil {
		return nil, err
	}
	if t.fact.ByClaims, err = byClaims(claims); err != nil {
		return nil, err
	}
	if bearer != "" {
		t.fact.Digest = credential.TokenDigest(bearer)
	}
	return t, nil
}

// byClaims is the name of a token of which there may be only the claims, in the form that exact gives them.
func byClaims(claims map[string]any) (string, error) {
	raw, err := json.Marshal(claims) // in the order of their names
	return credential.ClaimsDigest(raw), err
}

// shown returns an error if the token in the request is not the one that the proxy verified, or says in its header, which the
// proxy does not pass on, that it is not for access.
func (v *Verifier) shown(bearer string, claims map[string]any) error {
	p, err := parse(bearer, v.opt.MaxBytes)
	if err != nil || !samePayload(p.claims, claims) {
		return malformed("the token in the request is not the one that the proxy verified")
	}
	if !p.forAccess() {
		return otherType(p)
	}
	return nil
}

// samePayload reports whether a token's payload is what the proxy found in the token that it verified.
func samePayload(token, proxy map[string]any) bool {
	mine, err := exact(token)
	if err != nil {
		return false
	}
	theirs, err := exact(proxy)
	return err == nil && reflect.DeepEqual(mine, theirs)
}

// exact brings claims into one form: protobuf's numbers are floating point, and so become all others here.
func exact(claims map[string]any) (map[string]any, error) {
	raw, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	var loose map[string]any
	if err := json.Unmarshal(raw, &loose); err != nil { // all numbers are float64 now
		return nil, err
	}
	if raw, err = json.Marshal(loose); err != nil {
		return nil, err
	}
	return decodeObject(raw)
}

// leftToProxy describes a token that says that it is of an issuer whose tokens the proxy verifies, and false for others.
func (v *Verifier) leftToProxy(text string, now time.Time) (authz.TokenFact, bool) {
	p, err := parse(text, v.opt.MaxBytes)
	if err != nil {
		return authz.TokenFact{}, false
	}
	is, err := v.issuerOf(p)
	if err != nil || is.keys != nil {
		return authz.TokenFact{}, false
	}
	fact := authz.TokenFact{
		Status: authz.TokenUnavailable, Fault: "only the proxy can tell, to which its issuer is left", Issuer: is.Name, Digest: credential.TokenDigest(text),
		ExpiresAt: now.Add(v.opt.Timing.RevocationTTL()), // if it is good now, it ends by then
	}
	fact.ID, _ = p.claims["jti"].(string)
	if claims, err := exact(p.claims); err == nil {
		fact.ByClaims, _ = byClaims(claims)
	}
	return fact, true
}

package token

import (
	"context"
	"encoding/json"
	"reflect"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
)

// envoyFilter is the filter that verifies tokens in the proxy. It leaves their claims in metadata of this name.
const envoyFilter = "envoy.filters.http.jwt_authn"

// FromProxy returns the fact about a token that the proxy verified, from the metadata that it sent. It returns false if the
// metadata has no token of an issuer whose tokens the proxy verifies. If the request has a token as well, it must be the
// same one. Two tokens in the metadata are malformed, because it would not be clear who pays.
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
	t, err := v.describeVouched(by, claims, b.Text)
	if err != nil {
		return factOf(err), true
	}
	return v.state(ctx, t, b, now), true
}

// describeVouched describes a token that the proxy verified.
func (v *Verifier) describeVouched(by *issuer, claims map[string]any, bearer string) (*verified, error) {
	if bearer != "" {
		if err := v.checkBearer(bearer, claims); err != nil {
			return nil, err
		}
	}
	claims, err := normalize(claims)
	if err != nil {
		return nil, malformed("the claims from the proxy: %v", err)
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

// byClaims identifies a token by its normalized claims, for a token whose text may be absent.
func byClaims(claims map[string]any) (string, error) {
	raw, err := json.Marshal(claims) // sorts them by name
	return credential.ClaimsDigest(raw), err
}

// checkBearer returns an error if the token in the request is not the one that the proxy verified, or if its header says that
// it is not an access token. The proxy does not pass the header on.
func (v *Verifier) checkBearer(bearer string, claims map[string]any) error {
	p, err := parse(bearer, v.opt.MaxBytes)
	if err != nil || !samePayload(p.claims, claims) {
		return malformed("the token in the request is not the one that the proxy verified")
	}
	if !p.forAccess() {
		return otherType(p)
	}
	return nil
}

// samePayload reports whether the claims of a token are those that the proxy sent.
func samePayload(token, proxy map[string]any) bool {
	mine, err := normalize(token)
	if err != nil {
		return false
	}
	theirs, err := normalize(proxy)
	return err == nil && reflect.DeepEqual(mine, theirs)
}

// normalize brings claims into one form. The numbers of the proxy went through protobuf as float64, so all others do here.
func normalize(claims map[string]any) (map[string]any, error) {
	raw, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	var loose map[string]any
	if err := json.Unmarshal(raw, &loose); err != nil { // makes all numbers float64
		return nil, err
	}
	if raw, err = json.Marshal(loose); err != nil {
		return nil, err
	}
	return decodeObject(raw)
}

// leftToProxy describes a token of an issuer whose tokens the proxy verifies. It returns false for other tokens.
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
		Status: authz.TokenUnavailable, Fault: "only the proxy can verify tokens of its issuer", Issuer: is.Name,
		Digest:    credential.TokenDigest(text),
		ExpiresAt: now.Add(v.opt.Timing.RevocationTTL()), // if it is valid now, it expires before then
	}
	fact.ID, _ = p.claims["jti"].(string)
	if claims, err := normalize(p.claims); err == nil {
		fact.ByClaims, _ = byClaims(claims)
	}
	return fact, true
}

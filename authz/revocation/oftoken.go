package revocation

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// ClockMargin is the most by which clocks may differ. A record is kept that much longer than the token that it matches lives: a
// verifier whose clock is behind may accept the token until then.
const ClockMargin = 5 * time.Minute

// OfToken returns the records that cut off one token: by its jti, if it has one, because an issuer may write the same token in
// more than one way, by the digest of its text, and by the digest of its claims, because a request may lack the text. They are kept
// as long as the token may be accepted, and for ever if that is not known.
func OfToken(t *authz.TokenFact, now time.Time, cause string) []Record {
	r := Record{At: now, Cause: cause}
	if !t.ExpiresAt.IsZero() {
		r.ExpiresAt = t.ExpiresAt.Add(ClockMargin)
	}
	var out []Record
	if t.Known() && t.ID != "" && len(t.ID) <= maxLength {
		jti := r
		jti.Kind, jti.Issuer, jti.Value = KindJTI, t.Issuer, t.ID
		out = append(out, jti)
	}
	for _, digest := range []string{t.Digest, t.ByClaims} {
		if digest != "" {
			r.Kind, r.Value = KindToken, digest
			out = append(out, r)
		}
	}
	return out
}

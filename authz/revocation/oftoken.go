package revocation

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// ClockMargin is by how much clocks may differ at the most. Records are kept that much longer than what they match, for a
// verifier whose clock is behind may accept it until then.
const ClockMargin = 5 * time.Minute

// OfToken returns the records that cut off one token: by its jti, if it has one, under which its issuer may have written
// it in more than one way, and by the digests of its text and, where a request may lack the text, of its claims. They are
// kept as long as the token is accepted, and for ever if that is not known.
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

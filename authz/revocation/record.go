package revocation

import (
	"crypto/sha256"
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// maxLength is how many bytes an issuer or a value may have. Every store can keep a record that has two of them.
const maxLength = 1024

// trait says what the records of a kind must have.
type trait struct {
	name   string // for messages
	issuer bool   // values are only unique for an issuer
	before bool   // cuts off only credentials that were issued until an instant: later ones may be good again
}

var traits = map[Kind]trait{
	KindKey:         {name: "a key"},
	KindAccount:     {name: "an account", before: true},
	KindToken:       {name: "a token"},
	KindJTI:         {name: "a jti", issuer: true},
	KindSession:     {name: "a session", issuer: true},
	KindSubject:     {name: "a subject", issuer: true, before: true},
	KindSessionless: {name: "a subject's tokens without a session", issuer: true, before: true},
	KindClient:      {name: "a client", issuer: true, before: true},
	KindSigningKey:  {name: "a signing key", issuer: true},
	KindSuspension:  {name: "a suspended subject", issuer: true},
}

// CheckRecord returns an error if the record could match nothing or too much, or could not be stored as it is.
func CheckRecord(r Record) error {
	kind, ok := traits[r.Kind]
	switch {
	case r.Value == "":
		return authz.Errorf(authz.KindInvalid, "a revocation needs the id of what it revokes")
	case !ok:
		return authz.Errorf(authz.KindInvalid, "cannot revoke a %q", r.Kind)
	case kind.issuer && r.Issuer == "":
		return authz.Errorf(authz.KindInvalid, "revoking %s needs the issuer", kind.name)
	case !kind.issuer && r.Issuer != "":
		return authz.Errorf(authz.KindInvalid, "%s has no issuer: leave it out", kind.name)
	case kind.before && r.Before.IsZero():
		return authz.Errorf(authz.KindInvalid, "revoking %s needs the instant up to which its credentials are cut off", kind.name)
	case r.Kind == KindToken && !isDigest(r.Value):
		return authz.Errorf(authz.KindInvalid, "a token is revoked by its digest: SHA-256 in base64url, 43 characters")
	case r.Lifted && r.Kind != KindSuspension:
		return authz.Errorf(authz.KindInvalid, "only a suspension can be lifted, and not the revocation of %s", kind.name)
	case len(r.Issuer) > maxLength || len(r.Value) > maxLength:
		return authz.Errorf(authz.KindInvalid, "the issuer or the id is longer than %d bytes", maxLength)
	case !utf8.ValidString(r.Issuer) || !utf8.ValidString(r.Value):
		return authz.Errorf(authz.KindInvalid, "the issuer or the id is not valid UTF-8")
	case r.Kind == KindSuspension:
		return checkSuspension(r)
	}
	return nil
}

func checkSuspension(r Record) error {
	if r.At.IsZero() {
		return authz.Errorf(authz.KindInvalid, "a suspension needs the instant at which it began or was lifted: the latest holds")
	}
	if !r.Before.IsZero() {
		return authz.Errorf(authz.KindInvalid, "a suspension cuts off all tokens of the subject: leave out when they were issued")
	}
	return nil
}

// isDigest reports whether a text can be a credential.TokenDigest. The text of a token, which is a secret, is not one.
func isDigest(text string) bool {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(sum) == sha256.Size && len(text) == base64.RawURLEncoding.EncodedLen(sha256.Size)
}

// Merge makes one record of two for the same kind, issuer and value, and reports whether it differs from old. It cuts off
// everything that either of the two does, and lives as long as either. Of two suspensions it is the one that happened later.
func Merge(old, add Record) (Record, bool) {
	out := old
	if old.Kind == KindSuspension {
		if !later(add, old) {
			return old, false
		}
		out.At, out.Cause, out.Lifted, out.ExpiresAt = add.At, add.Cause, add.Lifted, add.ExpiresAt
		return out, true
	}
	if wider(add.Before, old.Before) {
		out.Before, out.At, out.Cause = add.Before, add.At, add.Cause
	}
	if wider(add.ExpiresAt, old.ExpiresAt) {
		out.ExpiresAt = add.ExpiresAt
	}
	return out, !out.Before.Equal(old.Before) || !out.ExpiresAt.Equal(old.ExpiresAt)
}

// later reports whether a suspension replaces another. At the same instant, a suspension wins over its end, and a later expiry over
// an earlier one, so that the order in which records arrive does not matter.
func later(add, old Record) bool {
	switch {
	case !add.At.Equal(old.At):
		return add.At.After(old.At)
	case add.Lifted != old.Lifted:
		return old.Lifted
	default:
		return wider(add.ExpiresAt, old.ExpiresAt)
	}
}

// wider reports whether a bound reaches further than another. Zero has no end.
func wider(a, b time.Time) bool {
	if a.IsZero() || b.IsZero() {
		return a.IsZero() && !b.IsZero()
	}
	return a.After(b)
}

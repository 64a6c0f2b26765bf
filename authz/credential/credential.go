// Package credential knows what the text of a credential looks like, and the digest by which a token is named. It
// verifies nothing.
package credential

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// LooksLikeJWT reports whether a text may be a JWS in its compact form (RFC 7515 section 3.1): three parts, the first
// of which begins like a JSON object in base64url.
func LooksLikeJWT(text string) bool {
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

// TokenDigest names a token by its text: SHA-256 in base64url without padding. The digest of a JWT leaves out the
// signature, because one signature can be written in more than one way. Any other text counts whole, also one with two
// dots in it.
func TokenDigest(text string) string {
	if at := strings.LastIndexByte(text, '.'); at > 0 && isJWS(text) {
		text = text[:at]
	}
	return digest([]byte(text))
}

// ClaimsDigest names a token by its claims. It is for tokens whose text only the proxy has seen. The claims must be in a
// canonical form, which does not depend on who read them.
func ClaimsDigest(canonical []byte) string { return digest(append([]byte("claims:"), canonical...)) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// isJWS reports whether a text is a JWS in its compact form (RFC 7515 section 7.1): three parts of base64url, the first
// of which is a JSON object that names an algorithm.
func isJWS(text string) bool {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return false
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return false
	}
	var header struct{ Alg *string }
	if json.Unmarshal(raw, &header) != nil || header.Alg == nil {
		return false
	}
	_, err = base64.RawURLEncoding.DecodeString(parts[1])
	return err == nil
}
